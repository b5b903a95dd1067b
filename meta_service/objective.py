"""The meta-loss of one meta-batch, as a function of theta."""

from typing import NamedTuple, Protocol, runtime_checkable

from meta_service.params import Params, add, scale


class MetaGradient(NamedTuple):
    """The sum of the meta-gradients of a set of tasks."""

    grads: Params
    loss: float
    """The sum of the tasks' query losses after adaptation."""
    tasks: int
    facts: dict[str, float] = {}  # noqa: RUF012 - a default of a tuple's field, which nobody changes
    """More that was seen on the way, by the name of its metric; sums over the tasks, too."""

    def __add__(self, other: "MetaGradient") -> "MetaGradient":  # type: ignore[override]
        """Two sets of tasks as one."""
        facts = {name: value + other.facts[name] for name, value in self.facts.items()}
        return MetaGradient(add(self.grads, other.grads), self.loss + other.loss, self.tasks + other.tasks, facts)

    def mean(self) -> "MetaGradient":
        """The average task."""
        facts = {name: value / self.tasks for name, value in self.facts.items()}
        return MetaGradient(scale(self.grads, 1 / self.tasks), self.loss / self.tasks, 1, facts)


class Surrogate(NamedTuple):
    """What a trust region asks of another theta; sums over a set of tasks."""

    loss: float
    """Of the adapted policies on the trajectories that were gathered with theta."""
    kl: float
    """The divergence of the policies adapted from the other theta from those adapted from theta."""
    tasks: int

    def __add__(self, other: "Surrogate") -> "Surrogate":  # type: ignore[override]
        return Surrogate(self.loss + other.loss, self.kl + other.kl, self.tasks + other.tasks)

    def mean(self) -> "Surrogate":
        return Surrogate(self.loss / self.tasks, self.kl / self.tasks, 1)


class Objective(Protocol):
    """What an outer optimiser asks about a meta-batch; always about the same tasks."""

    def gradient(self, params: Params) -> MetaGradient: ...


@runtime_checkable
class PolicyObjective(Protocol):
    """What is asked about a meta-batch of reinforcement learning.

    `params` gathered the trajectories: with the tasks' seeds, they name them. They stay where they were gathered.
    """

    def gradient(self, params: Params, at: Params | None = None) -> MetaGradient:
        """The meta-gradient at `at`, or at params; loss is minus the mean return after adaptation, of params."""

    def curvature(self, params: Params, vector: Params, reach: float = 0.0) -> Params:
        """The mean over the tasks of the KL divergence's Hessian at params, times vector: J' F J vector.

        reach > 0: the symmetric difference of its gradients at params + reach * vector and params - reach * vector
        instead, over 2 * reach.
        """

    def value(self, params: Params, at: Params) -> Surrogate:
        """The mean surrogate loss and divergence at `at`."""
