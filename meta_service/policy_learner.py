"""One block of reinforcement-learning tasks: from seeds and theta to trajectories, and what is asked about them."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch

from meta_service.algorithms.policy_gradient import Adapted, Experience, PolicyGradient
from meta_service.allocator import keep_freed_memory
from meta_service.episode import Split
from meta_service.errors import UserError
from meta_service.job import Evaluation, JobSpec
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.objective import MetaGradient, Surrogate
from meta_service.params import Params, add, add_scaled, scale, sha256
from meta_service.rl.rollout import gather
from meta_service.rl.simulation import PolicyTasks
from meta_service.rl.trajectories import Trajectories


class PolicyLearner:
    """Does a job's blocks on one CPU. The same theta and block give the same bits, whoever asks and however often.

    Trajectories are kept until another theta gathers its own: a learner that has none gathers them, again to the same
    bits. So what is kept saves time, and nothing is lost with it.
    """

    def __init__(self, job: JobSpec) -> None:
        if not (isinstance(job.algorithm, PolicyGradient) and isinstance(job.model, GaussianPolicy)):
            raise UserError("a PolicyGradient and a GaussianPolicy are expected for tasks of reinforcement learning")
        self.algorithm, self.policy = job.algorithm, job.model
        self.tasks: PolicyTasks = job.tasks  # type: ignore[assignment]
        torch.set_num_threads(1)  # the number of threads changes the bits of a sum; more cores are more workers
        keep_freed_memory()
        self._gathered_by = ""
        self._kept: dict[tuple[int, ...], _Block] = {}

    def meta_gradient(self, params: Params, seeds: Sequence[int], at: Params | None = None) -> MetaGradient:
        """The sum of the meta-gradients at `at`, or params, on the trajectories params gather on these tasks."""
        block = self._block(params, seeds)
        adapted = block.adapted if at is None else (self._adapt(at, data) for data in block.data)
        total = reduce(add, (task.gradient() for task in adapted))
        return MetaGradient(total, -block.facts["return_after"], len(seeds), block.facts)

    def curvature(self, params: Params, seeds: Sequence[int], vector: Params, reach: float = 0.0) -> Params:
        """The sum over the tasks of what `PolicyObjective.curvature` is the mean of."""
        block = self._block(params, seeds)
        if not reach:
            return reduce(add, (task.curvature(vector) for task in block.adapted))
        ahead, behind = (add_scaled(params, vector, h) for h in (reach, -reach))

        def slope(data: Sequence[Experience]) -> Params:
            change = add_scaled(self._adapt(ahead, data).kl_gradient(), self._adapt(behind, data).kl_gradient(), -1.0)
            return scale(change, 0.5 / reach)

        return reduce(add, map(slope, block.data))

    def value(self, params: Params, seeds: Sequence[int], at: Params) -> Surrogate:
        """The sums of surrogate loss and divergence at `at`."""
        loss = kl = 0.0
        block = self._block(params, seeds)
        here = sha256(at) == self._gathered_by
        for task in block.adapted if here else (self._adapt(at, data) for data in block.data):
            loss, kl = loss + task.value(), kl + task.kl()
        return Surrogate(loss, kl, len(seeds))

    def curves(
        self, params: Params, seeds: Sequence[int], split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        """The return of each task after 0, 1, ... steps of adaptation: float64 [tasks, steps + 1].

        Each step is judged by the trajectories that the next one adapts on: K of them, and K more at the end.
        """
        tasks = evaluation.tasks_of(self.tasks)
        steps = self.adaptation(params, seeds, evaluation.steps, tasks, inner_lr)
        return np.stack([trajectories.returns().numpy() for trajectories in steps], 1)

    def adaptation(
        self,
        params: Params,
        seeds: Sequence[int],
        steps: int,
        tasks: PolicyTasks | None = None,
        inner_lr: float | None = None,
    ) -> Iterator[Trajectories]:
        """What the policies of these tasks do after 0, 1, ... steps of adaptation, each on the one before."""
        algorithm = dataclasses.replace(self.algorithm, inner_lr=inner_lr or self.algorithm.inner_lr)
        adapted = [params] * len(seeds)
        for step in range(steps + 1):
            trajectories = gather(self.policy, _stacked(adapted), tasks or self.tasks, seeds, step)
            yield trajectories
            if step < steps:
                adapted = [
                    algorithm.inner_step(self.policy, theta, self._seen(theta, trajectories, b), step)
                    for b, theta in enumerate(adapted)
                ]

    def _block(self, params: Params, seeds: Sequence[int]) -> "_Block":
        digest = sha256(params)
        if digest != self._gathered_by:
            self._kept.clear()
            self._gathered_by = digest
        key = tuple(seeds)
        if key not in self._kept:
            self._kept[key] = self._gather(params, seeds)
        return self._kept[key]

    def _gather(self, params: Params, seeds: Sequence[int]) -> "_Block":
        """Lines 5 to 9 of Algorithm 3, with a step of adaptation before each batch of trajectories but the first."""
        adapted = [params] * len(seeds)
        batches: list[Trajectories] = []
        seen: list[list[Experience]] = []
        for step in range(self.algorithm.inner_steps + 1):
            if step:
                adapted = [
                    self.algorithm.inner_step(self.policy, theta, experience, step - 1)
                    for theta, experience in zip(adapted, seen[-1], strict=True)
                ]
            batches.append(gather(self.policy, _stacked(adapted), self.tasks, seeds, step))
            seen.append([self._seen(theta, batches[-1], b) for b, theta in enumerate(adapted)])
        data = list(zip(*seen, strict=True))
        facts = {
            "return_before": float(batches[0].returns().sum()),
            "return_after": float(batches[-1].returns().sum()),
            "unstable": float(sum(int(batch.unstable.sum()) for batch in batches)),
        }
        return _Block(data, [self._adapt(params, of_task) for of_task in data], facts)

    def _seen(self, theta: Params, trajectories: Trajectories, index: int) -> Experience:
        return self.algorithm.seen(self.policy, theta, trajectories.of_task(index))

    def _adapt(self, at: Params, data: Sequence[Experience]) -> Adapted:
        return self.algorithm.adapted(self.policy, at, data)


class _Block(NamedTuple):
    data: list[tuple[Experience, ...]]
    """Of each task, after 0, 1, ... steps."""
    adapted: list[Adapted]
    """At the theta that gathered the data."""
    facts: dict[str, float]
    """Sums over the tasks."""


def _stacked(each: Sequence[Params]) -> Params:
    """One policy a task: [B, ...]."""
    return {name: torch.stack([params[name] for params in each]) for name in each[0]}
