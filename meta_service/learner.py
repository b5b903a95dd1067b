"""One block of tasks: from seeds and theta to meta-gradients, or to adaptation curves. Keeps no state, knows no Ray."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from meta_service.algorithms.maml import MAML
from meta_service.allocator import keep_freed_memory
from meta_service.episode import Batch, Episode, Split, TaskDistribution
from meta_service.job import Evaluation, JobSpec
from meta_service.objective import MetaGradient
from meta_service.params import Params


class Learner:
    """Does a job's blocks on one device. The same block gives the same bits, whoever does it."""

    def __init__(self, job: JobSpec, device: str = "cpu") -> None:
        self.job = job
        self.device = device
        torch.set_num_threads(1)  # the number of threads changes the bits of a sum; more cores are more workers
        keep_freed_memory()
        torch.backends.cudnn.deterministic = True  # on a GPU; CPU kernels are so anyway
        job.prepare()

    def meta_gradient(self, params: Params, seeds: Sequence[int]) -> MetaGradient:
        """The sum of the meta-gradients of the training tasks with these seeds."""
        job, algorithm = self.job, self.job.algorithm

        def of_task(support: Batch, query: Batch) -> tuple[Params, Tensor]:
            loss = loss_of(job, job.tasks)
            return algorithm.meta_gradient(loss, params, Episode((support,) * algorithm.inner_steps, query))

        grads, losses = self._each(of_task, job.tasks, seeds, "train")
        total = {name: value.sum(0) for name, value in grads.items()}
        return MetaGradient(total, float(losses.sum()), len(seeds))

    def curves(
        self, params: Params, seeds: Sequence[int], split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        """The metric on each task's query set after 0, 1, ... steps of adaptation: float64 [tasks, steps + 1]."""
        job = self.job
        algorithm = dataclasses.replace(job.algorithm, inner_lr=inner_lr or job.algorithm.inner_lr)
        tasks = evaluation.tasks_of(job.tasks)

        def of_task(support: Batch, query: Batch) -> Tensor:
            return adaptation_curve(job, algorithm, tasks, params, Episode((support,) * evaluation.steps, query))

        curves: Tensor = self._each(of_task, tasks, seeds, split)
        return curves.double().cpu().numpy()

    def _each(
        self, of_task: Callable[[Batch, Batch], Any], tasks: TaskDistribution, seeds: Sequence[int], split: Split
    ) -> Any:
        """`of_task(support, query)` of every task, stacked along a first axis [tasks, ...]."""
        drawn = [tasks.sample(seed, split) for seed in seeds]
        supports, queries = zip(*drawn, strict=True)
        if self.job.vectorize == "vmap":
            return vmap(of_task)(_stack(supports, self.device), _stack(queries, self.device))
        on_device = [tree_map(lambda t: t.to(self.device), pair) for pair in drawn]
        return _stack([of_task(support, query) for support, query in on_device], self.device)


def loss_of(job: JobSpec, tasks: TaskDistribution) -> Callable[[Params, Batch], Tensor]:
    """L(f_theta, D) as a function of theta and D."""
    return lambda params, batch: tasks.loss(lambda *inputs: job.model.apply(params, *inputs), batch)


def adaptation_curve(
    job: JobSpec, algorithm: MAML, tasks: TaskDistribution, params: Params, episode: Episode
) -> Tensor:
    """The metric on one task's query set before and after each inner step: [steps + 1]."""
    loss = loss_of(job, tasks)

    def metric(adapted: Params) -> Tensor:
        return tasks.metric(lambda *inputs: job.model.apply(adapted, *inputs), episode.query)

    points = [metric(params)]
    for batch in episode.support:
        params = algorithm.inner_step(loss, params, batch)
        points.append(metric(params))
    return torch.stack(points)


def _stack(items: Sequence[Any], device: str) -> Any:
    """Trees of the same form as one tree of tensors with a first axis more."""
    return tree_map(lambda *tensors: torch.stack(tensors).to(device), *items)
