"""Who computes the blocks: the protocol, and the pool that does it in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np

from meta_service.episode import Split
from meta_service.job import Evaluation, JobSpec
from meta_service.learner import Learner
from meta_service.objective import MetaGradient, Objective
from meta_service.params import Params

Blocks = Sequence[Sequence[int]]
"""The seeds of a meta-batch's tasks, block by block."""


class WorkerPool(Protocol):
    """Computes blocks, and adds up their results in block order."""

    def objective(self, blocks: Blocks) -> Objective:
        """The meta-loss of these blocks' tasks."""

    def curves(
        self, params: Params, blocks: Blocks, split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        """The adaptation curve of every task, in the order of the seeds: [tasks, steps + 1]."""


def add_in_order(parts: Sequence[MetaGradient]) -> MetaGradient:
    """The sum from the first block to the last: any other order rounds to other bits."""
    return reduce(add, parts)


@dataclass(frozen=True)
class LocalPool:
    """Computes block after block in this process: for debugging, and where there is no Ray."""

    learner: Learner

    @staticmethod
    def of(job: JobSpec) -> "LocalPool":
        return LocalPool(Learner(job))

    def objective(self, blocks: Blocks) -> Objective:
        return _LocalObjective(self.learner, blocks)

    def curves(
        self, params: Params, blocks: Blocks, split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        return np.concatenate([self.learner.curves(params, seeds, split, evaluation, inner_lr) for seeds in blocks])


@dataclass(frozen=True)
class _LocalObjective:
    learner: Learner
    blocks: Blocks

    def gradient(self, params: Params) -> MetaGradient:
        return add_in_order([self.learner.meta_gradient(params, seeds) for seeds in self.blocks])
