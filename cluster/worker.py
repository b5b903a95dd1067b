"""What an actor does: one block at a time, and it keeps nothing that could not be made again."""

import gc
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.func import grad

from cluster.policy_objective import Answer, PolicyQuestion, answer
from cluster.question import Ticket
from meta_service.adjoint import native
from meta_service.episode import Split
from meta_service.job import Evaluation, JobSpec
from meta_service.learner import Learner
from meta_service.params import Params, flatten, unflatten
from meta_service.policy_learner import PolicyLearner
from meta_service.pool import learner_of


class TaskWorker:
    """An actor around a Learner: theta comes and meta-gradients go as one flat vector."""

    def __init__(self, job: JobSpec, like: Params) -> None:
        device = "cuda" if job.resources.gpus_per_worker else "cpu"
        self.learner = learner_of(job, device)
        self.like = {name: value.to(device) for name, value in like.items()}

    def ready(self) -> str:
        """Answers once the worker is up, its data are there, and what torch.func imports at its first use is loaded.

        That takes a second, so it is done only where it is used. Why its passes are not the compiled ones, or "".
        """
        if not (isinstance(self.learner, Learner) and self.learner.by_hand):
            grad(torch.sum)(torch.zeros(1))
        reason = native.missing()
        gc.freeze()  # Ray has the garbage collected again and again; what is loaded by now never is any
        return reason

    def ask(
        self, ticket: Ticket, method: str, theta: np.ndarray, seeds: Sequence[int], *more: Any
    ) -> tuple[Ticket, Any]:
        """One of the methods below, of the block with these seeds; its result, and the ticket again."""
        return ticket, getattr(self, method)(theta, seeds, *more)

    def meta_gradient(self, theta: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, float]:
        result = self.learner.meta_gradient(unflatten(theta, self.like), seeds)
        return flatten(result.grads), result.loss

    def prepare(self, seeds: Sequence[int]) -> None:
        """Draws the tasks of the block that will probably be asked for next."""
        assert isinstance(self.learner, Learner)
        with suppress(Exception):  # they are drawn again then, and fail where somebody hears of it
            self.learner.prepare(seeds)

    def answer(
        self, theta: np.ndarray, seeds: Sequence[int], question: PolicyQuestion, other: np.ndarray | None, reach: float
    ) -> Answer:
        """What an outer optimiser of policies asks; the trajectories stay here in between."""
        assert isinstance(self.learner, PolicyLearner)
        return answer(self.learner, self.like, question, theta, seeds, other, reach)

    def curves(
        self, theta: np.ndarray, seeds: Sequence[int], split: Split, evaluation: Evaluation, inner_lr: float | None
    ) -> np.ndarray:
        return self.learner.curves(unflatten(theta, self.like), seeds, split, evaluation, inner_lr)
