"""Derivatives through the adaptation of a policy, against autograd's and finite differences, in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev

from meta_service.algorithms.policy_gradient import Experience, Linearised, PolicyGradient
from meta_service.episode import Signature
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.params import Params, add_scaled
from meta_service.rl.losses import INNER, Estimator, clipped, lvc
from meta_service.rl.trajectories import Trajectories

POLICY = GaussianPolicy(hidden=(5, 4), init_std=0.7)
K, H = 3, 6
LATER = 0.7


def theta(seed: int) -> Params:
    params = POLICY.init(seed, Signature((3,), 2))
    generator = torch.Generator().manual_seed(seed)
    return {n: p.double() + 0.1 * torch.randn(p.shape, generator=generator).double() for n, p in params.items()}


def trajectories(params: Params, seed: int) -> Trajectories:
    """Fixed ones, the last of which ends early."""
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(K, H, 3, generator=generator).double()
    noise = torch.randn(K, H, 2, generator=generator).double()
    actions = POLICY.apply(params, observations) + POLICY.log_std(params).exp() * noise
    rewards, mask = torch.randn(K, H, generator=generator).double(), torch.ones(K, H).double()
    mask[-1, H // 2 :] = 0
    return Trajectories(observations, actions, rewards, mask, mask[:, -1] == 0, torch.zeros(K, dtype=torch.bool))


def likelihood(params: Params, seen: Experience) -> Tensor:
    constant = 0.5 * math.log(2 * math.pi) * 2
    log_prob = POLICY.log_prob(params, seen.observations, seen.actions) + constant
    return (log_prob.view_as(seen.mask) - seen.log_prob) * seen.mask


def divergence(params: Params, seen: Experience) -> Tensor:
    old = torch.distributions.Normal(seen.mean, seen.log_std.exp())
    new = torch.distributions.Normal(POLICY.apply(params, seen.observations), POLICY.log_std(params).exp())
    each = torch.distributions.kl_divergence(old, new).sum(1)
    return (each * seen.mask.flatten()).sum() / seen.counted


class Problem:
    """One task with fixed trajectories, and its meta-objective written down for autograd."""

    def __init__(self, algorithm: PolicyGradient) -> None:
        self.algorithm, self.theta = algorithm, theta(0)
        self.seen, acting = [], self.theta
        for step in range(algorithm.inner_steps + 1):
            self.seen.append(algorithm.seen(POLICY, acting, trajectories(acting, step + 1)))
            acting = algorithm.inner_step(POLICY, acting, self.seen[-1], step)
        weights = algorithm.loss_weights
        self.shares = {k: w / sum(weights) for k, w in enumerate(weights, 1)} or {algorithm.inner_steps: 1.0}

    def adapt(self, params: Params, steps: int) -> Params:
        loss = INNER[self.algorithm.estimator]

        def inner(p: Params, seen: Experience) -> Tensor:
            return loss(likelihood(p, seen), seen.advantages, seen.counted)

        for step in range(steps):
            gradient = grad(inner)(params, self.seen[step])
            if self.algorithm.first_order:
                gradient = {name: value.detach() for name, value in gradient.items()}
            params = add_scaled(params, gradient, -self.algorithm.inner_lr * (1 if step == 0 else LATER))
        return params

    def mean(self, of: Callable[[Params, Experience], Tensor], params: Params) -> Tensor:
        """Over the steps that count, of something at the parameters then."""
        return torch.stack([w * of(self.adapt(params, k), self.seen[k]) for k, w in self.shares.items()]).sum()

    def loss(self, params: Params) -> Tensor:
        outer = lvc if self.algorithm.clip is None else clipped(self.algorithm.clip)
        loss = self.mean(lambda p, seen: outer(likelihood(p, seen), seen.advantages, seen.counted), params)
        if self.algorithm.inner_kl:
            loss = loss + self.algorithm.inner_kl * divergence(params, self.seen[0])
        return loss

    def kl(self, params: Params) -> Tensor:
        return self.mean(divergence, params)

    def adapted(self, at: Params) -> Any:
        return self.algorithm.adapted(POLICY, at, self.seen)


def assert_close(found: Params, expected: Params, rtol: float = 1e-9) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(value.abs().max()) for value in expected.values())
    assert scale > 1e-6
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0, atol=rtol * scale), name


ALGORITHMS = {
    **{name: PolicyGradient(inner_lr=0.3, estimator=name) for name in INNER},
    "two steps": PolicyGradient(inner_lr=0.2, inner_steps=2, later_lr=LATER),
    "two steps of dice": PolicyGradient(inner_lr=0.2, inner_steps=2, later_lr=LATER, estimator="dice"),
    "a loss after the first and the last of three steps": PolicyGradient(
        inner_lr=0.2, inner_steps=3, later_lr=LATER, estimator="lvc", loss_weights=(2, 0, 1)
    ),
    "first order": PolicyGradient(inner_lr=0.3, first_order=True),
    "promp": PolicyGradient(inner_lr=0.3, estimator="lvc", clip=0.05, inner_kl=0.1),
}


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("where", ["at theta", "elsewhere"])
def test_the_meta_gradient_is_autograd_s(name: str, where: str) -> None:
    problem = Problem(ALGORITHMS[name])
    at = problem.theta if where == "at theta" else add_scaled(problem.theta, theta(5), 0.1)
    assert_close(problem.adapted(at).gradient(), grad(problem.loss)(at))


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "promp"])
def test_the_loss_and_the_divergence_are_those_written_down(name: str) -> None:
    problem = Problem(ALGORITHMS[name])
    at = add_scaled(problem.theta, theta(5), 0.1)
    assert problem.adapted(at).value() == pytest.approx(float(problem.loss(at)), abs=1e-12)
    assert problem.adapted(at).kl() == pytest.approx(float(problem.kl(at)), abs=1e-12)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "first order"])
def test_the_meta_gradient_is_that_of_finite_differences(name: str) -> None:
    problem, v, h = Problem(ALGORITHMS[name]), theta(7), 1e-5
    at = add_scaled(problem.theta, theta(5), 0.02)
    slope = (problem.loss(add_scaled(at, v, h)) - problem.loss(add_scaled(at, v, -h))) / (2 * h)
    gradient = problem.adapted(at).gradient()
    assert float(sum((gradient[n] * v[n]).sum() for n in v)) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize("estimator", INNER)
def test_a_hessian_s_product_is_autograd_s(estimator: Estimator) -> None:
    problem, v = Problem(ALGORITHMS[estimator]), theta(3)
    loss = INNER[estimator]
    at = add_scaled(problem.theta, theta(5), 0.1)
    seen = problem.seen[0]
    full: Any = jacrev(grad(lambda p: loss(likelihood(p, seen), seen.advantages, seen.counted)))(at)
    expected = {a: sum(torch.tensordot(full[a][b], v[b], dims=v[b].dim()) for b in v) for a in v}
    assert_close(Linearised(POLICY, at, seen, loss).hessian(v), expected)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "first order"])
def test_the_curvature_is_the_hessian_of_the_divergence_through_the_adaptation(name: str) -> None:
    problem, v = Problem(ALGORITHMS[name]), theta(3)
    full: Any = jacrev(grad(problem.kl))(problem.theta)
    expected = {a: sum(torch.tensordot(full[a][b], v[b], dims=v[b].dim()) for b in v) for a in v}
    assert_close(problem.adapted(problem.theta).curvature(v), expected)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_divergence_s_gradient_through_the_adaptation_is_autograd_s_away_from_theta(name: str) -> None:
    problem = Problem(ALGORITHMS[name])
    at = add_scaled(problem.theta, theta(5), 0.1)
    assert_close(problem.adapted(at).kl_gradient(), grad(problem.kl)(at))


def test_masked_steps_change_nothing() -> None:
    algorithm, params = PolicyGradient(), theta(0)
    whole = trajectories(params, 1)
    noise = torch.where(whole.mask == 1, 0.0, 3.0)
    other = whole._replace(
        observations=whole.observations + noise.unsqueeze(-1),
        actions=whole.actions - noise.unsqueeze(-1),
        rewards=whole.rewards + noise,
    )
    results = [algorithm.inner_step(POLICY, params, algorithm.seen(POLICY, params, t)) for t in (whole, other)]
    assert_close(results[0], results[1], 1e-12)


def test_a_standard_deviation_below_its_floor_has_no_gradient() -> None:
    policy, algorithm = GaussianPolicy(hidden=(5, 4), min_std=0.5), PolicyGradient()
    params = theta(0) | {"log_std": torch.tensor([-3.0, 0.0]).double()}
    adapted = algorithm.inner_step(policy, params, algorithm.seen(policy, params, trajectories(params, 1)))
    assert adapted["log_std"][0] == -3.0
    assert adapted["log_std"][1] != 0.0


def test_probabilities_are_summed_over_the_actions_dimensions() -> None:
    params, x = theta(0), torch.randn(4, 3).double()
    actions = torch.randn(4, 2).double()
    normal = torch.distributions.Normal(POLICY.apply(params, x), POLICY.log_std(params).exp())
    assert torch.allclose(POLICY.log_prob(params, x, actions), normal.log_prob(actions).sum(1))
