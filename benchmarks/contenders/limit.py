"""The limit: the convolutions and matrix products of exact MAML and nothing else, each layer's as one large batch.

How often a layer's three products are needed (forward F, by the input X, by the weights W):
an inner step runs F X W once for its gradient and, backwards, twice more for the product with the Hessian (the tangents
of F, X and W have two terms each): 3 F, 3 X, 3 W, nine passes. The query set needs one of each. The first layer has no
X, and no tangent of its input: 2 F and 2 W, and on the query set F and W. Every pass runs in whichever memory format
is the faster, found by trying.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.device import device, here, settle
from benchmarks.problem import Problem, Step

Run = Callable[[], Any]
FORMATS = (torch.contiguous_format, torch.channels_last)
INNER, QUERY = {"F": 3, "X": 3, "W": 3}, {"F": 1, "X": 1, "W": 1}
INNER_FIRST, QUERY_FIRST = {"F": 2, "W": 2}, {"F": 1, "W": 1}


class Pass(NamedTuple):
    """One of a layer's three products over a batch, and how often it is needed."""

    kind: str
    times: int
    examples: int
    weight: Tensor
    size: int
    """Height and width of the layer's input."""
    stride: int

    @property
    def gflop(self) -> float:
        """10^9 multiplications and additions, of all times together."""
        positions = math.ceil(self.size / self.stride) ** 2 if self.weight.dim() == 4 else 1
        return 2e-9 * self.times * self.examples * positions * self.weight.numel()


def prepare(problem: Problem) -> Step:
    chosen = [(min(_candidates(each), key=_seconds), each.times) for each in passes(problem)]

    def step() -> dict[str, Any]:
        for run, times in chosen:
            for _ in range(times):
                run()
        return {}

    return step


def passes(problem: Problem) -> Iterator[Pass]:
    """All products of a meta-gradient."""
    method = problem.method
    inner = problem.tasks * problem.support_y.shape[1] * method.inner_steps
    query = problem.tasks * problem.query_y.shape[1]
    size, first = problem.support_x.shape[-1], True
    for name, value in problem.theta.items():
        if not name.endswith(".weight"):
            continue
        weight = here(value)
        for examples, counts in (
            (inner, INNER_FIRST if first else INNER),
            (query, QUERY_FIRST if first else QUERY),
        ):
            for kind, times in counts.items():
                yield Pass(kind, times, examples, weight, size, method.stride)
        size, first = math.ceil(size / 2) if method.stride == 2 else size // 2, False


def _candidates(of: Pass) -> Iterator[Run]:
    """Every way of doing it."""
    kind, _, examples, weight, size, stride = of
    if weight.dim() == 2:
        x, gradient = (torch.randn(examples, size, device=device()) for size in reversed(weight.shape))
        yield partial(torch.mm, *{"F": (x, weight.T), "X": (gradient, weight), "W": (gradient.T, x)}[kind])
        return
    for memory_format in FORMATS:
        image = torch.randn(examples, weight.shape[1], size, size, device=device()).to(memory_format=memory_format)
        w = weight.to(memory_format=memory_format)
        forward = partial(F.conv2d, image, w, None, stride, 1)
        wanted = (kind == "X", kind == "W", False)
        yield forward if kind == "F" else partial(_backward, torch.randn_like(forward()), image, w, stride, wanted)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: tuple[bool, bool, bool]) -> Any:
    """The convolution's gradients by its input, its weights and its bias, of which those wanted are computed."""
    strides, one, none = (stride, stride), (1, 1), (0, 0)
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, strides, one, one, False, none, 1, wanted)


def _seconds(run: Run) -> float:
    """The shorter of two runs, after one to warm up."""
    run()
    settle()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        settle()
        times.append(time.perf_counter() - start)
    return min(times)
