"""JAX at its fastest on a CPU: each convolution as one matrix product, the tasks in a loop inside the compiled program.

XLA's convolution is slow on CPUs, and the grouped one that `vmap` makes of it many times slower.
"""

from functools import partial

import jax.numpy as jnp

from benchmarks.contenders import jax_vmap
from benchmarks.contenders.jax_vmap import Array


def convolve(x: Array, weight: Array, stride: int) -> Array:
    """The nine shifted images beside each other, channels last, times the weights."""
    x = x.transpose(0, 2, 3, 1)
    height, width, channels = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    columns = jnp.concatenate(shifted, -1) @ weight.transpose(2, 3, 1, 0).reshape(9 * channels, -1)
    return columns.transpose(0, 3, 1, 2)


prepare = partial(jax_vmap.prepare, convolve=convolve, one_by_one=True)
