"""JAX: `jit` of the sum of `vmap`ped meta-losses, differentiated; the convolution is XLA's own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.problem import Method, Problem, Step

jax.config.update("jax_enable_x64", True)  # for the comparison; what is given as float32 stays so
jax.config.update("jax_platforms", "cpu")

Array = Any
Params = Mapping[str, Array]
Convolve = Callable[[Array, Array, int], Array]


def convolve(x: Array, weight: Array, stride: int) -> Array:
    """3x3, padded by one: x [n, c, h, w], weight [d, c, 3, 3] -> [n, d, h / stride, w / stride]."""
    return lax.conv_general_dilated(x, weight, (stride, stride), ((1, 1), (1, 1)))


def prepare(problem: Problem, convolve: Convolve = convolve, one_by_one: bool = False) -> Step:
    """`one_by_one`: the tasks in a loop inside the compiled program, instead of all at once."""
    method = problem.method
    apply = mlp if method.network == "mlp" else conv4

    def loss(params: Params, x: Array, y: Array) -> Array:
        outputs = apply(method, params, x, convolve)
        if method.loss == "mse":
            return jnp.mean((outputs - y) ** 2)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], 1)
        return -chosen.sum() / method.loss_divisor

    def meta_loss(params: Params, support_x: Array, support_y: Array, query_x: Array, query_y: Array) -> Array:
        def inner_step(adapted: Params, _: None) -> tuple[Params, None]:
            gradient = jax.grad(loss)(adapted, support_x, support_y)
            return {
                name: value if name.startswith("norm") else value - method.inner_lr * gradient[name]
                for name, value in adapted.items()
            }, None

        adapted, _ = lax.scan(inner_step, params, None, length=method.inner_steps)
        return loss(adapted, query_x, query_y)

    def gradient(params: Params, *tasks: Array) -> Params:
        if one_by_one:
            grads = lax.map(lambda task: jax.grad(meta_loss)(params, *task), tasks)
            return jax.tree.map(lambda gradient: gradient.sum(0), grads)  # type: ignore[no-any-return]
        return jax.grad(lambda params: jax.vmap(meta_loss, (None, 0, 0, 0, 0))(params, *tasks).sum())(params)  # type: ignore[no-any-return]

    params = {name: jnp.asarray(value) for name, value in problem.theta.items()}
    tasks = [jnp.asarray(array) for array in problem[3:]]
    compiled = jax.jit(gradient)
    return lambda: jax.block_until_ready(compiled(params, *tasks))


def mlp(method: Method, params: Params, x: Array, convolve: Convolve) -> Array:
    for layer in range(method.layers):
        x = x @ params[f"linear{layer}.weight"].T + params[f"linear{layer}.bias"]
        x = jax.nn.relu(x) if layer < method.layers - 1 else x
    return x


def conv4(method: Method, params: Params, x: Array, convolve: Convolve) -> Array:
    for block in range(method.layers):
        x = convolve(x, params[f"conv{block}.weight"], method.stride)
        x = x + params[f"conv{block}.bias"][:, None, None]
        mean, variance = (f(x, (0, 2, 3), keepdims=True) for f in (jnp.mean, jnp.var))
        x = (x - mean) * lax.rsqrt(variance + method.epsilon) + params[f"norm{block}.shift"][:, None, None]
        x = jax.nn.relu(x)
        if method.stride == 1:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = x.mean((2, 3)) if method.stride == 2 else x.reshape(len(x), -1)
    return x @ params["linear.weight"].T + params["linear.bias"]
