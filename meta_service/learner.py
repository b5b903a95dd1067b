"""One block of tasks: from seeds and theta to meta-gradients, or to adaptation curves. Knows no Ray.

Keeps nothing but tasks that were drawn in advance.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from meta_service.adjoint.compiled import Compiled
from meta_service.adjoint.network import Data, Network
from meta_service.algorithms.maml import MAML
from meta_service.allocator import keep_freed_memory
from meta_service.episode import Batch, DrawsTogether, Episode, Split, TaskDistribution
from meta_service.job import Evaluation, JobSpec
from meta_service.losses import OutputLoss
from meta_service.objective import MetaGradient
from meta_service.params import Params


class Drawn(NamedTuple):
    """The tasks of a block, along a first axis [tasks, ...]."""

    support: Batch
    query: Batch


class Learner:
    """Does a job's blocks on one device. The same block gives the same bits, whoever does it."""

    def __init__(self, job: JobSpec, device: str = "cpu") -> None:
        self.job = job
        self.device = device
        torch.set_num_threads(1)  # the number of threads changes the bits of a sum; more cores are more workers
        keep_freed_memory()
        torch.backends.cudnn.deterministic = True  # on a GPU; CPU kernels are so anyway
        # on GPUs that can, torch lets convolutions be in TF32 unless told not to
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = job.precision == "tf32"
        job.prepare()
        self.drawn: dict[tuple[int, ...], Drawn] = {}
        """Training tasks drawn in advance, by their seeds."""
        self._adjoint = job.maml.block_meta_gradient
        if job.compile:
            self._adjoint = self._compiled(job)

    @property
    def by_hand(self) -> bool:
        """Whether gradients are computed without torch.func."""
        return self._by_hand(self.job.data_sets) is not None

    def meta_gradient(self, params: Params, seeds: Sequence[int]) -> MetaGradient:
        """The sum of the meta-gradients of the training tasks with these seeds."""
        drawn = self.drawn.pop(tuple(seeds), None)
        return self.block(params, drawn or self.draw(self.job.data_sets, seeds, "train"))

    def prepare(self, seeds: Sequence[int]) -> None:
        """Draws the training tasks with these seeds, for when they are asked for; forgets what it drew before."""
        self.drawn = {tuple(seeds): self.draw(self.job.data_sets, seeds, "train")}

    def draw(self, tasks: TaskDistribution, seeds: Sequence[int], split: Split) -> Drawn:
        """The tasks with these seeds, stacked, on the learner's device."""
        if isinstance(tasks, DrawsTogether):
            return Drawn(*tree_map(lambda t: t.to(self.device), tasks.sample_all(seeds, split)))
        supports, queries = zip(*(tasks.sample(seed, split) for seed in seeds), strict=True)
        return Drawn(_stack(supports, self.device), _stack(queries, self.device))

    def block(self, params: Params, drawn: Drawn) -> MetaGradient:
        """The sum of the meta-gradients of these tasks."""
        job, algorithm = self.job, self.job.maml
        if differentiated := self._by_hand(job.data_sets):
            network, loss = differentiated
            if job.precision == "bf16":
                network = dataclasses.replace(network, curvature=torch.bfloat16)
            support, query = (network.data(batch.inputs, batch.targets) for batch in drawn)
            sums = []
            for part in support.parts():
                grads, losses = self._adjoint(network, loss, params, support.part(part), query.part(part))
                sums.append(MetaGradient(grads, float(losses.sum()), len(losses)))
            return reduce(add, sums)

        def of_task(support: Batch, query: Batch) -> tuple[Params, Tensor]:
            loss = loss_of(job, job.data_sets)
            return algorithm.meta_gradient(loss, params, Episode((support,) * algorithm.inner_steps, query))

        grads, losses = self._each(of_task, drawn)
        total = {name: value.sum(0) for name, value in grads.items()}
        return MetaGradient(total, float(losses.sum()), len(losses))

    def curves(
        self, params: Params, seeds: Sequence[int], split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        """The metric on each task's query set after 0, 1, ... steps of adaptation: float64 [tasks, steps + 1]."""
        job = self.job
        algorithm = dataclasses.replace(job.maml, inner_lr=inner_lr or job.maml.inner_lr)
        tasks = evaluation.tasks_of(job.data_sets)
        drawn = self.draw(tasks, seeds, split)
        if differentiated := self._by_hand(tasks):
            parts = self._curves_by_hand(*differentiated, params, drawn, tasks, algorithm, evaluation.steps)
            return torch.cat(list(parts)).double().cpu().numpy()

        def of_task(support: Batch, query: Batch) -> Tensor:
            return adaptation_curve(job, algorithm, tasks, params, Episode((support,) * evaluation.steps, query))

        curves: Tensor = self._each(of_task, drawn)
        return curves.double().cpu().numpy()

    def _compiled(self, job: JobSpec) -> Callable[..., tuple[Params, Tensor]]:
        """`MAML.block_meta_gradient`, compiled for the job's network; without context, which is for normalisation."""
        by_hand = self._by_hand(job.data_sets)
        assert by_hand, "JobSpec lets compile pass only with a network"
        compiled = Compiled(
            lambda params, x, y, query_x, query_y: job.maml.block_meta_gradient(
                *by_hand, params, Data(x, y), Data(query_x, query_y)
            )
        )
        return lambda network, loss, params, support, query: compiled(params, *support[:2], *query[:2])

    def _curves_by_hand(
        self,
        network: Network,
        loss: OutputLoss,
        params: Params,
        drawn: Drawn,
        tasks: TaskDistribution,
        algorithm: MAML,
        steps: int,
    ) -> Iterator[Tensor]:
        support, query = (network.data(batch.inputs, batch.targets) for batch in drawn)
        for part in query.parts():
            theta = network.shared(params)
            judged = query.part(part)
            points = [_metrics(tasks, network.outputs(theta, judged), judged.targets)]
            for _ in range(steps):
                theta = algorithm.descend(theta, network.gradient(loss, theta, support.part(part)).grads)
                points.append(_metrics(tasks, network.outputs(theta, judged), judged.targets))
            yield torch.stack(points, 1)

    def _by_hand(self, tasks: TaskDistribution) -> tuple[Network, OutputLoss] | None:
        """What the adjoint needs, where job, model and tasks have it."""
        network, loss = self.job.network, getattr(tasks, "output_loss", None)
        return (network, loss) if network and loss else None

    def _each(self, of_task: Callable[[Batch, Batch], Any], drawn: Drawn) -> Any:
        """`of_task(support, query)` of every task, stacked along a first axis [tasks, ...]."""
        if self.job.vectorize != "loop":
            return vmap(of_task)(*drawn)
        tasks = len(drawn.query.targets)
        return _stack([of_task(*tree_map(lambda t, i=i: t[i], tuple(drawn))) for i in range(tasks)], self.device)


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


def _metrics(tasks: TaskDistribution, outputs: Tensor, targets: Tensor) -> Tensor:
    """The metric of each task, from its outputs [T, N, O]: [T]."""
    return torch.stack([tasks.metric(lambda *_, o=o: o, Batch((), y)) for o, y in zip(outputs, targets, strict=True)])


def _stack(items: Sequence[Any], device: str) -> Any:
    """Trees of the same form as one tree of tensors with a first axis more."""
    return tree_map(lambda *tensors: torch.stack(tensors).to(device), *items)
