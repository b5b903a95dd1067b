"""Rolling out: a function of theta and seed; ends, cuts and unstable simulations are told apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.params import Params
from meta_service.rl.rollout import gather, roll_out
from meta_service.rl.simulation import PolicyTasks, Step
from meta_service.tasks.locomotion import Locomotion
from meta_service.tasks.navigation import Navigation, Points

POLICY = GaussianPolicy(hidden=(8, 8))
SEEDS = [11, 12, 13]


def policies(tasks: PolicyTasks, count: int = 3) -> Params:
    each = [POLICY.init(seed, tasks.signature) for seed in range(count)]
    return {name: torch.stack([params[name] for params in each]) for name in each[0]}


ALL = [
    Navigation(shots=4, horizon=20),
    *(
        Locomotion(robot, kind, variant, shots=3, horizon=10)  # type: ignore[arg-type]
        for robot in ("cheetah", "ant")
        for kind in ("velocity", "direction")
        for variant in ("finn2017", "gymnasium")
    ),
]


@pytest.mark.parametrize("tasks", ALL, ids=str)
@pytest.mark.parametrize("oracle", [False, True])
def test_every_task_rolls_out_and_the_same_theta_and_seeds_give_the_same_bits(tasks: PolicyTasks, oracle: bool) -> None:
    tasks = replace(tasks, oracle=oracle)  # type: ignore[type-var]
    params = policies(tasks)
    first, second = (roll_out(POLICY, params, tasks, SEEDS, 0) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert first.observations.shape == (3, tasks.shots, tasks.horizon, tasks.signature.inputs[0])
    assert first.actions.shape == (3, tasks.shots, tasks.horizon, tasks.signature.outputs)
    assert not first.unstable.any()
    assert first.mask.any()


@pytest.mark.parametrize(("other_seeds", "phase"), [([11, 12, 14], 0), (SEEDS, 1)])
def test_another_seed_or_phase_gives_other_trajectories(other_seeds: list[int], phase: int) -> None:
    tasks = Locomotion(shots=2, horizon=5)
    params = policies(tasks)
    one, other = roll_out(POLICY, params, tasks, SEEDS, 0), roll_out(POLICY, params, tasks, other_seeds, phase)
    assert not torch.equal(one.actions[2], other.actions[2])


def test_each_task_is_acted_in_by_its_own_policy_with_noise_of_its_width() -> None:
    tasks = Navigation(shots=500, horizon=2)
    params = policies(tasks)
    params["log_std"] = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [-2.0, 1.0]])
    batch = roll_out(POLICY, params, tasks, SEEDS, 0)
    for b in range(3):
        own = {name: value[b] for name, value in params.items()}
        noise = batch.actions[b].flatten(0, 1) - POLICY.apply(own, batch.observations[b].flatten(0, 1))
        assert noise.std(0).tolist() == pytest.approx(own["log_std"].exp().tolist(), rel=0.1)
        assert noise.mean(0).abs().max() < 0.2 * own["log_std"].exp().max()


def test_navigation_s_reward_is_minus_the_distance_after_the_step() -> None:
    tasks = Navigation(shots=2, horizon=3)
    batch = roll_out(POLICY, policies(tasks), tasks, SEEDS, 0)
    at = batch.observations[:, :, 1:].double().numpy()
    goals = np.stack([tasks.goal(seed) for seed in SEEDS])[:, None, None]
    assert batch.rewards[:, :, :2].numpy() == pytest.approx(-np.linalg.norm(at - goals, axis=-1), abs=1e-6)
    moved = 0.1 * batch.actions.clamp(-1, 1)
    assert torch.allclose(batch.observations[:, :, 1], moved[:, :, 0])


def test_a_point_that_has_arrived_is_masked_from_then_on_and_terminated() -> None:
    points = Points(np.array([[0.105, 0.0], [0.3, 0.3]]))
    points.reset([])
    step = points.step(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert step.terminated.tolist() == [True, False]


def test_the_ant_s_trajectories_end_where_it_falls_and_are_cut_off_else() -> None:
    tasks = Locomotion("ant", shots=10, horizon=120)
    batch = roll_out(POLICY, policies(tasks), tasks, SEEDS, 0)
    lengths = batch.mask.sum(-1)
    assert bool((batch.terminated == (lengths < 120)).all() | (batch.terminated & (lengths == 120)).any())
    assert batch.terminated.any()
    assert not batch.rewards[batch.mask == 0].any()
    assert bool((batch.mask.diff(dim=-1) <= 0).all())


class Bursting:
    """Rewards of 1; the first of every two simulations is lost at its third step."""

    def __init__(self, goals: np.ndarray) -> None:
        self.goals, self.t = goals, 0

    def reset(self, generators: Sequence[np.random.Generator], which: np.ndarray | None = None) -> np.ndarray:
        return np.zeros((len(self.goals), 2))

    def step(self, actions: np.ndarray) -> Step:
        self.t += 1
        observations = np.zeros((len(self.goals), 2))
        if self.t >= 3:
            observations[::2, 1] = np.nan
        return Step(observations, np.ones(len(self.goals)), np.zeros(len(self.goals), bool))


@dataclass(frozen=True)
class Unstable(Navigation):
    def simulation(self, goals: np.ndarray) -> Bursting:  # type: ignore[override]
        return Bursting(goals)


def test_an_unstable_simulation_is_masked_whole_counted_and_finite_in_what_is_kept() -> None:
    tasks = Unstable(shots=2, horizon=6)
    batch = roll_out(POLICY, policies(tasks), tasks, SEEDS, 0)
    assert batch.unstable.tolist() == [[True, False]] * 3
    assert not batch.terminated.any()
    assert batch.mask[:, 0].sum() == 0
    assert bool((batch.mask[:, 1] == 1).all())
    assert all(bool(part.isfinite().all()) for part in batch[:4])
    assert batch.returns().tolist() == [6.0] * 3


def wandering(tasks: Navigation) -> Params:
    """Policies that move at random around the start, the first two of them hardly at all."""
    zeros = {name: torch.zeros_like(value) for name, value in policies(tasks).items()}
    return zeros | {"log_std": torch.tensor([[-9.0, -9.0], [-9.0, -9.0], [-1.5, -1.5]])}


@dataclass(frozen=True)
class Close(Navigation):
    """The goal is the start itself, but for the first task, whose goal is far."""

    def goal(self, seed: int) -> np.ndarray:
        return np.array([0.4, 0.4]) if seed == SEEDS[0] else np.zeros(2)


def test_counted_in_steps_a_task_gets_whole_trajectories_until_it_has_k_times_h_steps() -> None:
    tasks = Close(shots=3, horizon=10, by_steps=True)
    batch = gather(POLICY, params := wandering(tasks), tasks, SEEDS, 0)
    lengths = batch.mask.sum(-1)
    counts = (lengths > 0).sum(-1).tolist()
    assert counts[0] == 3  # of 10 steps each
    assert counts[1] == 30  # of one step each
    assert 3 < counts[2] < 30
    for b, count in enumerate(counts):
        assert lengths[b].sum() >= 30 > lengths[b, : count - 1].sum()  # the last one was needed
        assert not lengths[b, count:].any()
    longer = roll_out(POLICY, params, replace(tasks, shots=30), SEEDS, 0)
    for b, count in enumerate(counts):
        for mine, theirs in zip(batch.of_task(b), longer.of_task(b), strict=True):
            assert len(mine) == count
            assert torch.allclose(mine.double(), theirs[:count].double())  # the same ones, by their numbers


def test_the_return_is_the_mean_over_the_trajectories_a_task_has() -> None:
    tasks = Close(shots=3, horizon=10, by_steps=True)
    batch = gather(POLICY, wandering(tasks), tasks, SEEDS, 0)
    for b, mean in enumerate(batch.returns().tolist()):
        own = batch.of_task(b)
        assert mean == pytest.approx(float((own.rewards * own.mask).sum(-1).mean()))


def test_counted_in_steps_an_unstable_simulation_has_cost_its_horizon() -> None:
    tasks = Unstable(shots=4, horizon=6, by_steps=True)
    batch = gather(POLICY, policies(tasks), tasks, SEEDS, 0)
    assert batch.unstable.tolist() == [[True, False, True, False]] * 3


def test_goals_are_drawn_as_the_paper_says() -> None:
    def goals(tasks: PolicyTasks) -> np.ndarray:
        return np.stack([tasks.goal(seed) for seed in range(500)])

    assert set(goals(Locomotion(kind="direction")).ravel()) == {-1.0, 1.0}
    for robot, fastest in (("cheetah", 2.0), ("ant", 3.0)):
        drawn = goals(Locomotion(robot, "velocity"))  # type: ignore[arg-type]
        assert 0 <= drawn.min() < 0.1 < fastest - 0.1 < drawn.max() <= fastest
    drawn = goals(Navigation())
    assert np.abs(drawn).max() <= 0.5
    assert len(np.unique(drawn, axis=0)) == 500


def test_the_first_forty_tasks_of_navigation_are_those_of_the_authors_test() -> None:
    goals = np.stack([Navigation().goal(seed) for seed in range(40)])
    np.testing.assert_allclose(goals[[0, -1]], [[-0.082978, 0.220324], [0.250812, 0.225998]], atol=1e-6)
    assert np.linalg.norm(goals, axis=1).mean() == pytest.approx(0.40, abs=0.005)  # -40.4 for 100 steps at the start


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (Locomotion("cheetah", "direction"), "-1 * v - 0.05 * e"),
        (Locomotion("cheetah", "velocity"), "-abs(v + 1) - 0.05 * e"),
        (Locomotion("ant", "direction"), "-1 * v + 0.05 - 0.005 * e - 0.0005 * c"),
        (Locomotion("ant", "velocity"), "1 - abs(v + 1) + 0.05 - 0.005 * e - 0.0005 * c"),
        (Locomotion("cheetah", "velocity", "gymnasium"), "-abs(v + 1) - 0.1 * e"),
        (Locomotion("ant", "direction", "gymnasium"), "-1 * v + 1 - 0.5 * e - 0.0005 * c"),
    ],
    ids=str,
)
def test_the_reward_is_the_documented_sum(tasks: Locomotion, expected: str) -> None:
    robots = tasks.simulation(np.full((2, 1), -1.0))
    robots.reset([np.random.default_rng(k) for k in range(2)])
    twin = tasks.simulation(np.full((2, 1), -1.0))
    twin.reset([np.random.default_rng(k) for k in range(2)])
    for action in np.random.default_rng(0).normal(size=(15, 2, robots.robot.action_size)):
        rewards, seen = robots.step(action).rewards, twin.robot.step(action)
    value = eval(expected, {"v": seen.velocity, "e": seen.effort, "c": seen.contact, "abs": np.abs})
    assert rewards == pytest.approx(value)
