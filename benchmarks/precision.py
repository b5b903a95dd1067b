"""What fewer bits do to a meta-gradient: its distance from the same tasks' in float64.

    DATA_ROOT=... python -m benchmarks.precision omniglot miniimagenet
    DATA_ROOT=... python -m benchmarks.precision miniimagenet --steps 30      at the theta after 30 outer steps

Meta-batches of each job, computed by the learner in float32 and with `precision=bf16`; and as they would come out where
all convolutions, forward and back, round their factors to so many bits and add in float32. That is done here by
rounding: 11 bits are TF32's, in which cuDNN convolves unless told not to, 8 are bfloat16's. The columns, as the median
over meta-batches and the worst:

    error    |g - g64| / |g64|
    cosine   of g and g64
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

import jobs
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.learner import Learner
from meta_service.params import Params, flatten
from meta_service.pool import LocalPool

BITS = {"TF32 in all convolutions": 11, "bfloat16 in all convolutions": 8}


class RoundedConvolutions(TorchFunctionMode):
    """Within it, factors of convolutions are rounded to so many bits, also on all ways back."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is not torch.nn.functional.conv2d:
            return function(*args, **(kwargs or {}))
        x, weight, bias, *rest = args
        z = function(_round(x, self.bits, True), _round(weight, self.bits, True), None, *rest, **(kwargs or {}))
        return _round(z, self.bits, False) + bias[:, None, None]


class _Rounded(torch.autograd.Function):
    """Rounds on the way there and passes on the way back (`there`), or the other way round; for derivatives, too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bits: int, there: bool) -> Tensor:
        return rounded(x, bits) if there else x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int, bool], output: Tensor) -> None:
        ctx.bits, ctx.there = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None, None]:
        return _round(g[0], ctx.bits, not ctx.there), None, None


def _round(x: Tensor, bits: int, there: bool) -> Tensor:
    return cast(Tensor, _Rounded.apply(x, bits, there))  # type: ignore[no-untyped-call]


def rounded(x: Tensor, bits: int) -> Tensor:
    """x with a mantissa of so many bits, half to even."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def meta_gradient(
    job: JobSpec, params: Params, blocks: list[list[int]], dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Of one meta-batch: float64 [parameters], in the order of their names."""
    learner = Learner(job)
    params = {name: value.to(dtype) for name, value in params.items()}

    def of_block(seeds: list[int]) -> np.ndarray:
        drawn = learner.draw(job.data_sets, seeds, "train")
        drawn = tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, drawn)
        return flatten(learner.block(params, drawn).grads).astype(np.float64)

    total: np.ndarray = np.stack([of_block(seeds) for seeds in blocks]).sum(0)
    return total


def rows(job: JobSpec, params: Params, blocks: list[list[int]]) -> dict[str, tuple[float, float]]:
    """(error, cosine) of each way to compute it."""
    exact = meta_gradient(job, params, blocks, torch.float64)
    found = {
        "float32": meta_gradient(job, params, blocks),
        "precision=bf16": meta_gradient(replace(job, precision="bf16"), params, blocks),
    }
    for title, bits in BITS.items():
        with RoundedConvolutions(bits):
            found[title] = meta_gradient(replace(job, vectorize="loop"), params, blocks)

    def beside(g: np.ndarray) -> tuple[float, float]:
        norms = np.linalg.norm(g), np.linalg.norm(exact)
        return float(np.linalg.norm(g - exact) / norms[1]), float(g @ exact / (norms[0] * norms[1]))

    return {title: beside(g) for title, g in found.items()}


def main(arguments: Sequence[str]) -> int:
    """Prints a table for each job."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.precision", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", metavar="JOB", nargs="+")
    parser.add_argument("--steps", type=int, default=0, help="outer steps before (0)")
    parser.add_argument("--batches", type=int, default=5, help="meta-batches, of tasks that training does not draw (5)")
    args = parser.parse_args(arguments)
    try:
        for name in args.jobs:
            job = jobs.find(name)
            pool, state = LocalPool.of(job), job.init()
            for step in range(args.steps):
                state, _ = job.outer.step(state, pool.objective(job.blocks("train", step, job.meta_batch_size)))
            unseen = [job.blocks("train", job.iterations + i, job.meta_batch_size) for i in range(args.batches)]
            found = [rows(job, state.params, blocks) for blocks in unseen]
            print(f"{f'{name}, {args.steps} steps':30}  error   worst    cosine   worst")
            for title in found[0]:
                errors, cosines = zip(*(of[title] for of in found), strict=True)
                print(f"{title:30} {median(errors):.1e} {max(errors):.1e}  {median(cosines):7.4f} {min(cosines):7.4f}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
