"""The four workloads, each a job of ours with the papers' numbers, and any of them with fields changed."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch

import jobs
from benchmarks.problem import Method, Problem
from meta_service.adjoint.primitives import EPSILON
from meta_service.data.cache import Images
from meta_service.dotted import override
from meta_service.episode import Signature, Split
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.tasks.few_shot import ClassTable, FewShot, LossScale, class_table
from meta_service.tasks.sinusoid import Sinusoid

CLASSES, EXAMPLES = 64, 20  # of the made-up data set


@dataclass(frozen=True)
class MadeUpImages(FewShot):
    """Images of noise: how long a gradient takes does not depend on what is in them."""

    size: int
    channels: int
    ways: int = 5
    shots: int = 1
    query_shots: int = 15
    loss_scale: LossScale = "sum_over_k"
    transductive: bool = True

    title = "made-up images"

    @property
    def signature(self) -> Signature:
        return Signature((self.channels, self.size, self.size), self.ways)

    @property
    def queries(self) -> int:
        return self.query_shots

    def images(self) -> Images:
        return _noise(self.size, self.channels)

    def table(self, split: Split) -> ClassTable:
        images = self.images()
        return class_table(images, images.classes)


@lru_cache(4)
def _noise(size: int, channels: int) -> Images:
    classes = {f"class{index}": EXAMPLES for index in range(CLASSES)}
    shape = (CLASSES * EXAMPLES, channels, size, size)
    return Images(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8), classes, "")


OMNIGLOT = replace(jobs.find("omniglot"), tasks=MadeUpImages(28, 1, query_shots=1))
MINIIMAGENET = replace(jobs.find("miniimagenet"), tasks=MadeUpImages(84, 3))
ALL = {
    "W1": jobs.find("sinusoid"),
    "W2-1": OMNIGLOT,
    "W2-15": override(OMNIGLOT, ["tasks.query_shots=15"]),
    "W3": MINIIMAGENET,
    "W4": override(MINIIMAGENET, ["tasks.shots=5"]),
}
TITLES = {
    "W1": "sinusoid, 1-40-40-1, 10 + 10 points, 1 step, 25 tasks",
    "W2-1": "Omniglot 5-way 1-shot, 1 query a class, 1 step, 32 tasks",
    "W2-15": "Omniglot 5-way 1-shot, 15 queries a class, 1 step, 32 tasks",
    "W3": "MiniImageNet 5-way 1-shot, 15 queries a class, 5 steps, 4 tasks",
    "W4": "MiniImageNet 5-way 5-shot, 15 queries a class, 5 steps, 4 tasks",
}


def find(workload: str) -> JobSpec:
    """The job of `W3`, or of `W3 tasks.ways=10 meta_batch_size=8`. UserError where there is none."""
    name, *changes = workload.split()
    if name not in ALL:
        raise UserError(f"--workloads: some of {', '.join(ALL)} are expected, '{name}' came")
    return override(ALL[name], changes)


def smaller(workload: str) -> str:
    """The same with few tasks and query examples, for a comparison that does not take long."""
    few = "tasks.query_shots=2"
    return f"{workload} {'meta_batch_size=1' if find(workload).meta_batch_size < 8 else 'meta_batch_size=2'} {few}"


def draw(workload: str, dtype: str = "float32") -> Problem:
    """The workload's first meta-batch at its initial theta, moved off the zeros where some gradients vanish."""
    job = find(workload)
    seeds = [seed for block in job.blocks("train", 0, job.meta_batch_size) for seed in block]
    drawn = [job.data_sets.sample(seed, "train") for seed in seeds]
    stacked: list[Any] = []
    for batches in zip(*drawn, strict=True):
        stacked += [
            torch.stack([b.inputs[0] for b in batches]).numpy(),
            torch.stack([b.targets for b in batches]).numpy(),
        ]
    generator = torch.Generator().manual_seed(1)
    theta = job.model.init(0, job.tasks.signature)
    theta = {name: value + 0.02 * torch.randn(value.shape, generator=generator) for name, value in theta.items()}
    arrays = {name: value.numpy() for name, value in theta.items()}
    return Problem(workload, method_of(job), arrays, *stacked).astype(dtype)


def method_of(job: JobSpec) -> Method:
    """The job in the terms the peers are written in."""
    algorithm = job.maml
    if isinstance(job.tasks, Sinusoid) and isinstance(job.model, MLP):
        return Method(
            "mlp", len(job.model.hidden) + 1, 1, EPSILON, "mse", 1.0, algorithm.inner_lr, algorithm.inner_steps
        )
    assert isinstance(job.tasks, FewShot)
    assert isinstance(job.model, Conv4)
    stride = 2 if job.model.downsample == "stride" else 1
    return Method(
        "conv4", 4, stride, EPSILON, "cross_entropy", float(job.tasks.shots), algorithm.inner_lr, algorithm.inner_steps
    )
