"""MAML for reinforcement learning: Finn, Abbeel, Levine (2017), Algorithm 3, with exact products instead of a graph.

With theta' = theta - alpha grad L(theta) and J = d theta' / d theta = I - alpha H, H the Hessian of the adaptation's
loss, the meta-gradient is J' grad L'(theta'). Where old and new policy are equal the gradient of their KL divergence
is zero, so the Hessian of the adapted policies' divergence with respect to theta is exactly J' F J, F the Fisher
information at theta'. All three are products with vectors, task by task, and need no graph through the adaptation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from meta_service.errors import UserError
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.params import Params, add_scaled, scale
from meta_service.rl.advantages import advantages
from meta_service.rl.losses import INNER, Estimator, Loss, clipped, lvc, weights, weights_along
from meta_service.rl.network import Network
from meta_service.rl.trajectories import Trajectories


@dataclass(frozen=True)
class PolicyGradient:
    """Learns a theta from which `inner_steps` policy-gradient steps on a new task go far."""

    inner_lr: float = 0.1
    """alpha, the step size of adaptation."""
    inner_steps: int = 1
    """Policy-gradient steps on a task during meta-training, each on fresh trajectories; 0 is training on all tasks."""
    later_lr: float = 0.5
    """Steps after the first are of this share of alpha, as in the authors' tests."""
    loss_weights: tuple[float, ...] = ()
    """Of the losses after 1, 2, ... `inner_steps` steps, whose weighted mean the outer loss is: Antoniou et al. (2019).
    None: the last one alone. The trajectories that a step adapts on are the ones by which the step before is judged."""
    estimator: Estimator = "loglik"
    """The adaptation's loss, and with it the meta-gradient's estimator: see `rl/losses.py`."""
    first_order: bool = False
    """Take the inner gradients as constants: H = 0. Of one robot's few thousand steps H is mostly noise
    (docs/results.md)."""
    discount: float = 0.99
    """gamma."""
    gae_lambda: float = 1.0
    """lambda of Schulman et al. (2016); 1 as in the authors' code, less is less noise and more bias."""
    clip: float | None = None
    """PPO's clipping of the outer loss; none: the plain probability ratio. ProMP: 0.3."""
    inner_kl: float = 0.0
    """Weight of the divergence of theta from the policy that acted, in the outer loss. ProMP: 5e-4."""

    def __post_init__(self) -> None:
        if self.inner_lr <= 0 or self.inner_steps < 0 or self.later_lr <= 0:
            raise UserError(f"algorithm: inner_lr > 0, inner_steps >= 0 and later_lr > 0 are expected, {self} came")
        if not (0 <= self.discount <= 1 and 0 <= self.gae_lambda <= 1):
            raise UserError(f"algorithm: discount and gae_lambda in [0, 1] are expected, {self} came")
        if self.loss_weights and (
            len(self.loss_weights) != self.inner_steps or min(self.loss_weights) < 0 or self.loss_weights[-1] == 0
        ):
            raise UserError(
                f"algorithm.loss_weights: none are expected, or {self.inner_steps} >= 0 (one for each of inner_steps), "
                f"the last above 0, {self.loss_weights} came"
            )
        if self.inner_kl < 0 or (self.clip is not None and self.clip <= 0):
            raise UserError(f"algorithm: clip > 0 (or none) and inner_kl >= 0 are expected, {self} came")

    def lr(self, step: int) -> float:
        """The size of the `step`-th adaptation step, counted from 0."""
        return self.inner_lr if step == 0 else self.inner_lr * self.later_lr

    def weight(self, steps: int) -> float:
        """The share that the loss after so many inner steps has in the outer loss."""
        if not self.loss_weights:
            return float(steps == self.inner_steps)
        return self.loss_weights[steps - 1] / sum(self.loss_weights) if steps else 0.0

    def seen(self, policy: GaussianPolicy, params: Params, trajectories: Trajectories) -> "Experience":
        """One task's trajectories, ready for derivatives; params are those of the policy that acted."""
        with torch.no_grad():
            observations, actions = trajectories.observations.flatten(0, 1), trajectories.actions.flatten(0, 1)
            network, log_std = Network(params, observations), policy.log_std(params)
            z = (actions - network.mean) * (-log_std).exp()
            return Experience(
                observations,
                actions,
                trajectories.mask,
                trajectories.mask.sum().clamp(min=1),
                advantages(trajectories, self.discount, self.gae_lambda),
                network.mean,
                log_std,
                (-0.5 * z.square().sum(1) - log_std.sum()).view_as(trajectories.mask),
            )

    def inner_step(self, policy: GaussianPolicy, params: Params, experience: "Experience", step: int = 0) -> Params:
        """theta' = theta - alpha grad L(theta), equation (1); step: how many were made before."""
        gradient = Linearised(policy, params, experience, INNER[self.estimator]).gradient
        return add_scaled(params, gradient, -self.lr(step))

    def adapted(self, policy: GaussianPolicy, params: Params, experiences: Sequence["Experience"]) -> "Adapted":
        """Adaptation from theta, and the outer loss; experiences: what was seen after 0, 1, ... `inner_steps` steps."""
        inner, outer = INNER[self.estimator], lvc if self.clip is None else clipped(self.clip)
        steps, queries = [], {}
        for k, experience in enumerate(experiences):
            if self.weight(k):
                queries[k] = Linearised(policy, params, experience, outer)
            if k < self.inner_steps:
                steps.append(Linearised(policy, params, experience, inner))
                params = add_scaled(params, steps[k].gradient, -self.lr(k))
        return Adapted(self, steps, queries)


class Experience(NamedTuple):
    """Trajectories of one task as n = K * H steps, with what the policy that acted thought of them."""

    observations: Tensor
    """[n, o]"""
    actions: Tensor
    """[n, a]"""
    mask: Tensor
    """[K, H]"""
    counted: Tensor
    """[]: steps that count."""
    advantages: Tensor
    """[K, H]"""
    mean: Tensor
    """[n, a]"""
    log_std: Tensor
    """[a]"""
    log_prob: Tensor
    """[K, H], without the constant."""


class Linearised:
    """A loss of one task's trajectories around params: value, gradient, and products with second derivatives."""

    def __init__(self, policy: GaussianPolicy, params: Params, seen: Experience, loss: Loss) -> None:
        self.seen, self.loss = seen, loss
        with torch.no_grad():
            self.network, self.log_std = Network(params, seen.observations), policy.log_std(params)
            self._adapts_std = (params["log_std"] >= self.log_std).to(self.log_std.dtype)  # 0 below the floor
            self.inverse = (-self.log_std).exp()
            self.z = (seen.actions - self.network.mean) * self.inverse  # [n, a]
            log_prob = (-0.5 * self.z.square().sum(1) - self.log_std.sum()).view_as(seen.mask)
            self.log_ratio = (log_prob - seen.log_prob) * seen.mask  # [K, H]

    @cached_property
    def weights(self) -> Tensor:
        """d loss / d log pi of each step: [n, 1]."""
        seen = self.seen
        return (weights(self.loss, self.log_ratio, seen.advantages, seen.counted) * seen.mask).view(-1, 1)

    @cached_property
    def _backward(self) -> tuple[Params, list[Tensor]]:
        return self.network.back(self.weights * self.z * self.inverse)

    @property
    def gradient(self) -> Params:
        """Of the loss with respect to params."""
        log_std = (self.weights * (self.z.square() - 1)).sum(0) * self._adapts_std
        return self._backward[0] | {"log_std": log_std}

    def value(self) -> float:
        return float(self.loss(self.log_ratio, self.seen.advantages, self.seen.counted))

    def kl(self) -> float:
        """The mean of KL(acting policy || this one) over the steps that count."""
        seen = self.seen
        change = self.log_std - seen.log_std
        gap = ((seen.mean - self.network.mean) * self.inverse).square() + (-2 * change).exp()
        each = (change + 0.5 * gap - 0.5).sum(1)
        return float((each * seen.mask.view(-1)).sum() / seen.counted)

    def kl_gradient(self) -> Params:
        """The gradient of `kl`."""
        seen, mask = self.seen, self.seen.mask.view(-1, 1) / self.seen.counted
        gap = (self.network.mean - seen.mean) * self.inverse
        gradient, _ = self.network.back(gap * self.inverse * mask)
        ratio = (2 * (seen.log_std - self.log_std)).exp()
        gradient["log_std"] = ((1 - ratio - gap.square()) * mask).sum(0) * self._adapts_std
        return gradient

    @torch.no_grad()
    def hessian(self, v: Params) -> Params:
        """The loss's Hessian times v."""
        seen, z = self.seen, self.z
        changes, d_mean = self.network.along(v)
        d_log_std = v["log_std"] * self._adapts_std
        scaled = d_mean * self.inverse
        d_z = -scaled - z * d_log_std
        squared = z.square() - 1
        d_log_prob = (z * scaled + squared * d_log_std).sum(1).view_as(seen.mask) * seen.mask
        d_weights = weights_along(self.loss, self.log_ratio, d_log_prob, seen.advantages, seen.counted) * seen.mask
        d_weights = d_weights.view(-1, 1)
        d_score = (d_weights * z + self.weights * (d_z - z * d_log_std)) * self.inverse
        product = self.network.back_along(v, changes, self._backward[1], d_score)
        product["log_std"] = (d_weights * squared + 2 * self.weights * z * d_z).sum(0) * self._adapts_std
        return product

    @torch.no_grad()
    def fisher(self, v: Params) -> Params:
        """The Fisher information over the steps that count, times v: the Hessian of `kl` at the acting policy."""
        mask = self.seen.mask.view(-1, 1) / self.seen.counted
        _, d_mean = self.network.along(v)
        product, _ = self.network.back(d_mean * self.inverse.square() * mask)
        product["log_std"] = 2 * mask.sum() * v["log_std"] * self._adapts_std
        return product


@dataclass(frozen=True)
class Adapted:
    """One task: the inner steps from theta, and the outer loss after those that count."""

    algorithm: PolicyGradient
    steps: Sequence[Linearised]
    """Step k starts at theta_k; theta_0 = theta."""
    queries: Mapping[int, Linearised]
    """By k: the outer loss at theta_k."""

    def value(self) -> float:
        """The outer loss."""
        return sum(self.algorithm.weight(k) * query.value() for k, query in self.queries.items())

    def kl(self) -> float:
        """The divergence of the adapted policies that acted from the ones here."""
        return sum(self.algorithm.weight(k) * query.kl() for k, query in self.queries.items())

    def gradient(self) -> Params:
        """J' grad L'(theta'): the outer loss's gradient with respect to theta."""
        gradient = self._back({k: query.gradient for k, query in self.queries.items()})
        if self.algorithm.inner_kl and self.steps:
            gradient = add_scaled(gradient, self.steps[0].kl_gradient(), self.algorithm.inner_kl)
        return gradient

    def curvature(self, v: Params) -> Params:
        """J' F J v: the Hessian, at the policies that acted, of the adapted policies' KL divergence, times v."""
        products = {}
        for k in range(len(self.steps) + 1):
            if k > 0:
                v = self._bent(k - 1, v)
            if k in self.queries:
                products[k] = self.queries[k].fisher(v)
        return self._back(products)

    def kl_gradient(self) -> Params:
        """J' grad KL(theta'): the gradient, with respect to theta, of the adapted policy's KL divergence."""
        return self._back({k: query.kl_gradient() for k, query in self.queries.items()})

    def _back(self, each: Mapping[int, Params]) -> Params:
        """The weighted mean of J_k' v_k, J_k = d theta_k / d theta, in one pass from the last step to the first."""
        last = len(self.steps)
        total = scale(each[last], self.algorithm.weight(last))
        for k in reversed(range(last)):
            total = self._bent(k, total)
            if k in each:
                total = add_scaled(total, each[k], self.algorithm.weight(k))
        return total

    def _bent(self, k: int, v: Params) -> Params:
        """(I - alpha H) v, of step k; H is symmetric."""
        return v if self.algorithm.first_order else add_scaled(v, self.steps[k].hessian(v), -self.algorithm.lr(k))
