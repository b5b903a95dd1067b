"""The outer update of the supervised experiments: Kingma and Ba (2015), Adam, Algorithm 1."""

import math
from dataclasses import dataclass

import torch

from meta_service.errors import UserError
from meta_service.objective import MetaGradient, Objective
from meta_service.params import Params, zeros_like
from meta_service.state import MetaState


@dataclass(frozen=True)
class Adam:
    """theta <- theta - beta * m_hat / (sqrt(v_hat) + epsilon)."""

    meta_lr: float = 1e-3
    """beta, the step size of meta-training."""
    clip: float | None = None
    """Cut every entry of the mean meta-gradient to [-clip, clip] first: 10 for MiniImageNet (the authors' code)."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if self.meta_lr <= 0 or (self.clip is not None and self.clip <= 0):
            raise UserError(f"outer: meta_lr > 0 and clip > 0 (or none) are expected, {self} came")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.epsilon > 0):
            raise UserError(f"outer: beta1 and beta2 in [0, 1) and epsilon > 0 are expected, {self} came")

    def init(self, params: Params) -> MetaState:
        """The state before the first outer step: both moments zero."""
        moments = {f"m/{name}": value for name, value in zeros_like(params).items()}
        moments |= {f"v/{name}": value for name, value in zeros_like(params).items()}
        return MetaState(0, params, moments)

    def step(self, state: MetaState, objective: Objective) -> tuple[MetaState, MetaGradient]:
        """One outer step, and the mean meta-gradient it was made with (before clipping)."""
        mean = objective.gradient(state.params).mean()
        step = state.iteration + 1
        lr = self.meta_lr * math.sqrt(1 - self.beta2**step) / (1 - self.beta1**step)
        epsilon = self.epsilon * math.sqrt(1 - self.beta2**step)
        params, moments = {}, {}
        for name, theta in state.params.items():
            g = mean.grads[name] if self.clip is None else mean.grads[name].clamp(-self.clip, self.clip)
            m = torch.lerp(g, state.optimizer[f"m/{name}"], self.beta1)
            v = torch.lerp(g.square(), state.optimizer[f"v/{name}"], self.beta2)
            params[name] = theta - lr * m / (v.sqrt() + epsilon)
            moments[f"m/{name}"], moments[f"v/{name}"] = m, v
        return MetaState(step, params, moments), mean
