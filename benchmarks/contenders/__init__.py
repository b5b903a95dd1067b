"""One way of computing the same meta-gradient a file: `prepare(problem)` gives a function that does it once."""

from typing import NamedTuple

from cluster.services import INLINE

SHIPPED, KEPT = "shipped", "kept"  # how a process treats freed memory: as glibc does, or as this project tells it to
CONVOLUTIONS = ("W2-1", "W2-15", "W3", "W4")
EVERYWHERE = ("W1", *CONVOLUTIONS)


class Contender(NamedTuple):
    """Who takes part, where, and in which settings."""

    title: str
    module: str
    allocators: tuple[str, ...] = (SHIPPED, KEPT)
    workloads: tuple[str, ...] = EVERYWHERE
    """Where it runs when it is not asked for by name."""
    checked: bool = True
    """Whether it computes the meta-gradient, which then has to be right."""
    tolerance: float = 1e-6
    """The largest relative error that is right."""
    slow_start: bool = False
    """Whether its first call does more than compute: compiles, starts Ray, or tries what is fastest."""
    env: tuple[tuple[str, str], ...] = ()
    """What its process finds in the environment."""
    gpu: bool = True
    """Whether it can compute on a GPU."""


ALL = {
    "ours": Contender("this project, in process", "ours", (KEPT,)),
    "ours-ray": Contender(
        "this project, through Ray", "ours_ray", (KEPT,), checked=False, slow_start=True, env=tuple(INLINE.items())
    ),
    "ours-torch": Contender(
        "this project, without a C compiler", "ours", (KEPT,), env=(("META_NATIVE", "0"),), gpu=False
    ),
    "ours-compiled": Contender(
        "this project, compile=true",
        "ours",
        (KEPT,),
        EVERYWHERE[:1],
        slow_start=True,
        env=(("BENCH_FIELDS", "compile=true"),),
    ),
    "ours-bf16": Contender(
        "this project, precision=bf16",
        "ours",
        (KEPT,),
        CONVOLUTIONS,
        tolerance=1e-2,
        env=(("BENCH_FIELDS", "precision=bf16"),),
    ),
    "plain": Contender("plain loop", "plain"),
    "learn2learn": Contender("learn2learn", "learn2learn"),
    "higher": Contender("higher", "higher", workloads=EVERYWHERE[:-1]),
    "torchopt": Contender("TorchOpt", "torchopt"),
    "jax": Contender("JAX, jit + vmap", "jax_vmap", (SHIPPED,), EVERYWHERE[:2], slow_start=True, gpu=False),
    "jax-im2col": Contender("JAX, jit + im2col", "jax_im2col", workloads=CONVOLUTIONS, slow_start=True, gpu=False),
    "limit": Contender("limit: its convolutions alone", "limit", (KEPT,), checked=False, slow_start=True),
}
PEERS = ("learn2learn", "higher", "torchopt")
"""The PyTorch libraries."""
JAX = ("jax", "jax-im2col")
