"""Who computes the blocks: the protocol, and the pool that does it in this process."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol, TypeVar

import numpy as np

from meta_service.episode import Split
from meta_service.job import Evaluation, JobSpec
from meta_service.learner import Learner
from meta_service.objective import MetaGradient, Objective, Surrogate
from meta_service.params import Params, scale
from meta_service.params import add as add_params
from meta_service.policy_learner import PolicyLearner

Blocks = Sequence[Sequence[int]]
"""The seeds of a meta-batch's tasks, block by block."""


class WorkerPool(Protocol):
    """Computes blocks, and adds up their results in block order."""

    def objective(self, blocks: Blocks, step: int | None = None) -> Objective:
        """The meta-loss of these blocks' tasks; step: the outer step it is for, counted from 1."""

    def curves(
        self, params: Params, blocks: Blocks, split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        """The adaptation curve of every task, in the order of the seeds: [tasks, steps + 1]."""


SumT = TypeVar("SumT", MetaGradient, Surrogate)


def add_in_order(parts: Sequence[SumT]) -> SumT:
    """The sum from the first block to the last: any other order rounds to other bits."""
    return reduce(add, parts)


def mean_in_order(parts: Sequence[Params], tasks: int) -> Params:
    """The mean over the tasks of the blocks' sums."""
    return scale(reduce(add_params, parts), 1 / tasks)


def learner_of(job: JobSpec, device: str = "cpu") -> Learner | PolicyLearner:
    """Who does the blocks of a job."""
    return PolicyLearner(job) if job.explores else Learner(job, device)


@dataclass(frozen=True)
class LocalPool:
    """Computes block after block in this process: for debugging, and where there is no Ray."""

    learner: Learner | PolicyLearner

    @staticmethod
    def of(job: JobSpec) -> "LocalPool":
        return LocalPool(learner_of(job))

    def objective(self, blocks: Blocks, step: int | None = None) -> Objective:
        if isinstance(self.learner, PolicyLearner):
            return _LocalPolicyObjective(self.learner, blocks)
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


@dataclass(frozen=True)
class _LocalPolicyObjective:
    learner: PolicyLearner
    blocks: Blocks

    def gradient(self, params: Params, at: Params | None = None) -> MetaGradient:
        return add_in_order([self.learner.meta_gradient(params, seeds, at) for seeds in self.blocks])

    def curvature(self, params: Params, vector: Params, reach: float = 0.0) -> Params:
        parts = [self.learner.curvature(params, seeds, vector, reach) for seeds in self.blocks]
        return mean_in_order(parts, sum(map(len, self.blocks)))

    def value(self, params: Params, at: Params) -> Surrogate:
        return add_in_order([self.learner.value(params, seeds, at) for seeds in self.blocks])
