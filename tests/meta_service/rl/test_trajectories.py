"""Returns, baseline and advantages, against their closed forms and a plain loop."""

import pytest
import torch

from meta_service.rl.advantages import RIDGE, advantages, features, fit
from meta_service.rl.losses import dice, loglik, lvc, weights
from meta_service.rl.trajectories import Trajectories, reward_to_go


def random_task(K: int = 4, H: int = 7, seed: int = 0) -> Trajectories:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(K, H).double()
    mask[1, 3:] = 0
    return Trajectories(
        12 * torch.randn(K, H, 2, generator=generator).double(),
        torch.zeros(K, H, 1).double(),
        torch.randn(K, H, generator=generator).double() * mask,
        mask,
        mask[:, -1] == 0,
        torch.zeros(K, dtype=torch.bool),
    )


def test_a_constant_reward_adds_up_to_the_geometric_series() -> None:
    togo = reward_to_go(torch.ones(1, 50, dtype=torch.float64), 0.9)[0]
    assert togo.tolist() == pytest.approx([(1 - 0.9 ** (50 - t)) / 0.1 for t in range(50)])


def test_features_are_observation_square_and_powers_of_time() -> None:
    x = features(torch.tensor([[1.0, -20.0], [2.0, 3.0]]))
    assert x.tolist() == [[1, -10, 1, 100, 0, 0, 0, 1], pytest.approx([2, 3, 4, 9, 0.01, 1e-4, 1e-6, 1])]


def test_the_baseline_is_ridge_regression_over_the_steps_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 4, generator=generator).double(), torch.randn(30, generator=generator).double()
    mask = (torch.arange(30) < 20).double()
    design = torch.cat((x[:20], RIDGE**0.5 * torch.eye(4).double()))
    weights = torch.linalg.lstsq(design, torch.cat((y[:20], torch.zeros(4).double()))).solution
    assert torch.allclose(fit(x, y, mask), x @ weights)


@pytest.mark.parametrize("gae_lambda", [1.0, 0.9, 0.0])
def test_advantages_are_a_plain_loop_s(gae_lambda: float) -> None:
    task, discount = random_task(), 0.95
    found = advantages(task, discount, gae_lambda)
    x = features(task.observations).flatten(0, 1)
    value = fit(x, reward_to_go(task.rewards, discount).flatten(), task.mask.flatten()).view(4, 7)
    raw = []
    for k in range(4):
        length = int(task.mask[k].sum())
        for t in range(length):
            total = 0.0
            for later in range(t, length):
                following = float(value[k, later + 1]) if later + 1 < length else 0.0
                delta = float(task.rewards[k, later]) + discount * following - float(value[k, later])
                total += (discount * gae_lambda) ** (later - t) * delta
            raw.append(total)
    expected = torch.tensor(raw).double()
    expected = (expected - expected.mean()) / expected.std(correction=0)
    assert torch.allclose(found[task.mask == 1], expected)
    assert not found[task.mask == 0].any()


def test_returns_are_undiscounted_and_leave_unstable_trajectories_out() -> None:
    task = random_task()
    rewards, mask = torch.ones(1, 4, 7).double(), task.mask.unsqueeze(0).clone()
    mask[0, 3] = 0
    unstable = torch.tensor([[False, False, False, True]])
    batch = task._replace(rewards=rewards, mask=mask, unstable=unstable)
    assert batch.returns().tolist() == [pytest.approx((7 + 3 + 7) / 3)]


def test_all_estimators_have_the_policy_gradient_as_their_first_derivative() -> None:
    A, zero = torch.randn(3, 5).double(), torch.zeros(3, 5).double()
    for loss in (loglik, lvc, dice):
        assert torch.allclose(weights(loss, zero, A, torch.tensor(15.0)), -A / 15)
