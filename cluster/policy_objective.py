"""What an outer optimiser asks about policies, on the cluster: each question goes to where the trajectories are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from cluster.question import Question
from meta_service.objective import MetaGradient, Surrogate
from meta_service.params import Params, flatten, unflatten
from meta_service.policy_learner import PolicyLearner
from meta_service.pool import Blocks, add_in_order, mean_in_order

PolicyQuestion = Literal["gradient", "curvature", "value"]


GATHERING = "gradient"
"""The kind of question with which a worker gathers trajectories, in any case."""


class Answer(NamedTuple):
    """Of one block; sums over its tasks."""

    vector: np.ndarray | None = None
    """[P]: a gradient, or a curvature's product."""
    loss: float = 0.0
    kl: float = 0.0
    facts: dict[str, float] | None = None


def answer(
    learner: PolicyLearner,
    like: Params,
    question: PolicyQuestion,
    theta: np.ndarray,
    seeds: Sequence[int],
    other: np.ndarray | None,
    reach: float,
) -> Answer:
    """In the worker: `other` is the parameters to ask about, or the vector to multiply with, as `PolicyObjective` says.

    theta comes along with every question: a worker without the block's trajectories gathers them again.
    """
    params = unflatten(theta, like)
    asked = None if other is None else unflatten(other, like)
    if question == "gradient":
        gradient = learner.meta_gradient(params, seeds, asked)
        return Answer(flatten(gradient.grads), gradient.loss, facts=gradient.facts)
    assert asked is not None
    if question == "curvature":
        return Answer(flatten(learner.curvature(params, seeds, asked, reach)))
    surrogate = learner.value(params, seeds, asked)
    return Answer(None, surrogate.loss, surrogate.kl)


class Asking(Protocol):
    """The part of a pool that is needed here."""

    def ask(self, question: Question, blocks: Blocks, homes: dict[int, Any]) -> list[Any]: ...


@dataclass(frozen=True)
class RayPolicyObjective:
    """The objective of one meta-batch. A worker that dies is replaced, and its trajectories gathered again."""

    pool: Asking
    blocks: Blocks
    step: int | None
    homes: dict[int, Any] = field(default_factory=dict)
    """The worker that holds each block's trajectories."""

    def gradient(self, params: Params, at: Params | None = None) -> MetaGradient:
        parts = []
        for found, seeds in zip(self._ask("gradient", params, at), self.blocks, strict=True):
            assert found.vector is not None
            parts.append(MetaGradient(unflatten(found.vector, params), found.loss, len(seeds), found.facts or {}))
        return add_in_order(parts)

    def curvature(self, params: Params, vector: Params, reach: float = 0.0) -> Params:
        found = self._ask("curvature", params, vector, reach)
        parts = [unflatten(part.vector, params) for part in found if part.vector is not None]
        return mean_in_order(parts, sum(map(len, self.blocks)))

    def value(self, params: Params, at: Params) -> Surrogate:
        found = self._ask("value", params, at)
        return add_in_order(
            [Surrogate(part.loss, part.kl, len(seeds)) for part, seeds in zip(found, self.blocks, strict=True)]
        )

    def _ask(self, question: PolicyQuestion, params: Params, other: Params | None, reach: float = 0.0) -> list[Answer]:
        kind = GATHERING if other is None else question if question != "gradient" else "gradient elsewhere"
        return self.pool.ask(
            Question("answer", kind, params, (question, other, reach), self.step), self.blocks, self.homes
        )
