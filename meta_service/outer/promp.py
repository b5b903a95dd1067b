"""Proximal meta-policy search: Rothfuss et al. (2019), Algorithm 1, with Adam as its optimiser."""

from dataclasses import dataclass

from meta_service.errors import UserError
from meta_service.objective import MetaGradient, Objective, PolicyObjective
from meta_service.outer.adam import Adam
from meta_service.params import Params
from meta_service.state import MetaState


@dataclass(frozen=True)
class ProMP:
    """`epochs` steps of Adam on the same trajectories.

    The algorithm's `estimator=lvc`, `clip=0.3` and `inner_kl=0.0005` complete it; what it gives without them is MAML
    with that many gradient steps a meta-batch.
    """

    meta_lr: float = 1e-3
    """beta, the step size of Adam."""
    epochs: int = 5
    """Gradient steps on the trajectories of one meta-batch."""

    def __post_init__(self) -> None:
        if self.meta_lr <= 0 or self.epochs < 1:
            raise UserError(f"outer: meta_lr > 0 and epochs >= 1 are expected, {self} came")

    def init(self, params: Params) -> MetaState:
        """The state before the first outer step: Adam's, and that is all."""
        return Adam(self.meta_lr).init(params)

    def step(self, state: MetaState, objective: Objective) -> tuple[MetaState, MetaGradient]:
        """One outer step of `epochs` gradient steps; the mean meta-gradient is that of the first."""
        if not isinstance(objective, PolicyObjective):
            raise UserError("outer: ProMP is for policies; take Adam for supervised tasks")
        adam, gathered = Adam(self.meta_lr), state.params
        following = MetaState(self.epochs * state.iteration, state.params, state.optimizer)
        first: MetaGradient | None = None
        for _ in range(self.epochs):
            following, mean = adam.step(following, _At(objective, gathered))
            first = first or mean
        assert first is not None
        facts = first.facts | {"kl": objective.value(gathered, following.params).mean().kl}
        return MetaState(state.iteration + 1, following.params, following.optimizer), first._replace(facts=facts)


@dataclass(frozen=True)
class _At:
    """The objective on trajectories that stay the same, whatever theta is asked about."""

    objective: PolicyObjective
    gathered: Params

    def gradient(self, params: Params) -> MetaGradient:
        return self.objective.gradient(self.gathered, params)
