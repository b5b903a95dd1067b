"""The outer update of the paper's reinforcement learning: Schulman et al. (2015), trust region policy optimisation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from meta_service.errors import UserError
from meta_service.objective import MetaGradient, Objective, PolicyObjective
from meta_service.params import Params, flatten, norm, unflatten
from meta_service.state import MetaState


@dataclass(frozen=True)
class TRPO:
    """The step that lowers the surrogate loss most while the adapted policies diverge by `max_kl` at most.

    Direction: conjugate gradients on products of the divergence's Hessian with vectors, over all data. Length: the
    longest of a series, from `stretch` times the one the quadratic model allows downwards, that keeps the measured
    divergence and lowers the measured loss; if there is none, theta stays as it is.
    """

    max_kl: float = 0.01
    """The bound of the mean divergence of the adapted policies, before from after."""
    cg_iterations: int = 10
    hvp_eps: float = 0.0
    """0: the products are exact, J' F J v. More: each is a symmetric difference of the divergence's gradients at
    theta +- hvp_eps / |theta| * v, which sees the kinks of the ReLUs on the way. It is 1 in the authors' code, where
    another argument takes its place. Navigation learns better by it, HalfCheetah does not (docs/results.md)."""
    damping: float = 1e-5
    """Added to the curvature's diagonal."""
    backtrack: float = 0.8
    """Each length of the series is this share of the one before."""
    max_backtracks: int = 15
    """Lengths tried."""
    stretch: float = 1.0
    """The first length tried, in those of the quadratic model."""

    def __post_init__(self) -> None:
        if self.hvp_eps < 0:
            raise UserError(f"outer: hvp_eps >= 0 is expected, {self} came")
        numbers = (self.max_kl, self.cg_iterations, self.damping, self.max_backtracks, self.stretch)
        if min(numbers) <= 0 or not 0 < self.backtrack < 1:
            raise UserError(f"outer: numbers > 0 and backtrack in (0, 1) are expected, {self} came")

    def init(self, params: Params) -> MetaState:
        """The state before the first outer step: theta alone."""
        return MetaState(0, params, {})

    def step(self, state: MetaState, objective: Objective) -> tuple[MetaState, MetaGradient]:
        """One outer step; the mean meta-gradient's facts say how it went."""
        if not isinstance(objective, PolicyObjective):
            raise UserError("outer: TRPO is for policies; take Adam for supervised tasks")
        params = state.params
        like = next(iter(params.values())).dtype
        mean = objective.gradient(params).mean()

        def vector(flat: np.ndarray) -> Params:
            return unflatten(torch.from_numpy(flat).to(like).numpy(), params)

        reach = self.hvp_eps / norm(params) if self.hvp_eps else 0.0

        def curvature(flat: np.ndarray) -> np.ndarray:
            return flatten(objective.curvature(params, vector(flat), reach)).astype(np.float64) + self.damping * flat

        gradient = flatten(mean.grads).astype(np.float64)
        direction, squared = conjugate_gradients(curvature, gradient, self.cg_iterations)
        full = math.sqrt(2 * self.max_kl / squared) if squared > 0 else 0.0  # 0.5 step' H step = max_kl
        theta, before = flatten(params).astype(np.float64), objective.value(params, params).mean()
        facts = {"kl": 0.0, "surrogate_gain": 0.0, "backtracks": float(self.max_backtracks), "step_accepted": 0.0}
        following = params
        for tries in range(self.max_backtracks if full else 0):
            candidate = vector(theta - self.stretch * self.backtrack**tries * full * direction)
            seen = objective.value(params, candidate).mean()
            if seen.loss < before.loss and seen.kl <= self.max_kl:
                following = candidate
                gain = before.loss - seen.loss
                facts = {"kl": seen.kl, "surrogate_gain": gain, "backtracks": float(tries), "step_accepted": 1.0}
                break
        return MetaState(state.iteration + 1, following, {}), mean._replace(facts=mean.facts | facts)


def conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray], b: np.ndarray, iterations: int, tolerance: float = 1e-10
) -> tuple[np.ndarray, float]:
    """x with H x = b as far as so many iterations come, and x' H x; `product(v)` is H v, float64 throughout."""
    x, residual = np.zeros_like(b), b.copy()
    p, norm = residual.copy(), float(residual @ residual)
    for _ in range(iterations):
        if norm < tolerance:
            break
        Hp = product(p)
        alpha = norm / float(p @ Hp)
        x += alpha * p
        residual -= alpha * Hp
        norm, last = float(residual @ residual), norm
        p = residual + norm / last * p
    return x, float(x @ (b - residual))  # H x = b - residual: no product more
