"""The meta-loss of one meta-batch, as a function of theta."""

from typing import NamedTuple, Protocol

from meta_service.params import Params, add, scale


class MetaGradient(NamedTuple):
    """The sum of the meta-gradients of a set of tasks."""

    grads: Params
    loss: float
    """The sum of the tasks' query losses after adaptation."""
    tasks: int

    def __add__(self, other: "MetaGradient") -> "MetaGradient":  # type: ignore[override]
        """Two sets of tasks as one."""
        return MetaGradient(add(self.grads, other.grads), self.loss + other.loss, self.tasks + other.tasks)

    def mean(self) -> "MetaGradient":
        """The average task."""
        return MetaGradient(scale(self.grads, 1 / self.tasks), self.loss / self.tasks, 1)


class Objective(Protocol):
    """What an outer optimiser asks about a meta-batch; always about the same tasks."""

    def gradient(self, params: Params) -> MetaGradient: ...
