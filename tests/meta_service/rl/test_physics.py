"""The robots: Gymnasium's to the bit where they should be, and the paper's where that differs."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from meta_service.rl.physics import Ant, HalfCheetah

STEPS = 60


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Iterator[Any]:
    environment = gymnasium.make(request.param)
    environment.reset(seed=0)
    yield environment.unwrapped
    environment.close()


def started_like(environment: Any, robot: Any) -> np.ndarray:
    """All simulations in the reference's state, and actions to come, beyond the limits, too: [STEPS, actions]."""
    generators = [np.random.default_rng(0) for _ in robot.qpos]
    robot.reset(generators, np.arange(len(robot.qpos)))
    robot.qpos[:], robot.qvel[:] = environment.data.qpos, environment.data.qvel
    return np.random.default_rng(1).normal(size=(STEPS, robot.action_size))


@pytest.mark.parametrize("reference", ["HalfCheetah-v5"], indirect=True)
def test_the_half_cheetah_is_gymnasium_s_to_the_bit(reference: Any) -> None:
    robot = HalfCheetah(3, "gymnasium")
    for action in started_like(reference, robot):
        seen = robot.step(np.tile(action, (3, 1)))
        observation, _, _, _, info = reference.step(np.clip(action, -1, 1))
        assert np.array_equal(seen.observations, np.tile(observation, (3, 1)))
        assert seen.velocity == pytest.approx(info["x_velocity"], abs=1e-12)
        assert seen.effort == pytest.approx(np.square(np.clip(action, -1, 1)).sum())


@pytest.mark.parametrize("reference", ["Ant-v5"], indirect=True)
def test_the_ant_moves_as_gymnasium_s(reference: Any) -> None:
    robot = Ant(2, "gymnasium")
    for action in started_like(reference, robot)[:20]:
        seen = robot.step(np.tile(action, (2, 1)))
        before = reference.data.qpos[0]
        observation, _, terminated, _, _ = reference.step(np.clip(action, -1, 1))
        assert seen.observations[0, :27] == pytest.approx(observation[:27], abs=1e-7)
        # its own x_velocity is of positions one substep older
        assert seen.velocity[0] == pytest.approx((reference.data.qpos[0] - before) / 0.05, abs=1e-6)
        assert bool(seen.upright[0]) != terminated
        assert seen.observations.shape[1] == len(observation)


def test_the_paper_s_half_cheetah_observes_its_centre_of_mass_and_is_rewarded_for_its_velocity() -> None:
    robot = HalfCheetah(4, "finn2017")
    assert robot.seconds == 0.01
    robot.reset([np.random.default_rng(k) for k in range(4)], np.arange(4))
    actions = np.random.default_rng(1).normal(size=(STEPS, 4, 6))
    for action in actions:
        seen = robot.step(action)
    data = mujoco.MjData(robot.model)
    for k in range(4):
        data.qpos[:], data.qvel[:] = robot.qpos[k], robot.qvel[k]
        mujoco.mj_forward(robot.model, data)
        mujoco.mj_subtreeVel(robot.model, data)
        assert seen.observations[k, 17:] == pytest.approx(data.subtree_com[1], abs=1e-12)
        assert seen.velocity[k] == pytest.approx(data.subtree_linvel[1, 0], abs=1e-12)
        assert seen.observations[k, :8] == pytest.approx(data.qpos[1:])


def test_the_paper_s_ant_observes_and_is_rewarded_for_the_state_it_is_in() -> None:
    robot = Ant(3, "finn2017")
    assert robot.seconds == 0.02
    assert robot.model.geom_solimp[:, :3].tolist() == [[0.8, 0.8, 0.01]] * robot.model.ngeom
    first = robot.reset([np.random.default_rng(k) for k in range(3)], np.arange(3))
    assert first[:, 2] == pytest.approx(0.55, abs=0.06)  # m, the torso's height
    for action in np.random.default_rng(1).normal(size=(STEPS, 3, 8)):
        seen = robot.step(action)
    data = mujoco.MjData(robot.model)
    touched = 0.0
    for k in range(3):
        data.qpos[:], data.qvel[:], data.ctrl[:] = robot.qpos[k], robot.qvel[k], robot.ctrl[k]
        data.qacc_warmstart[:] = robot.batch.bind("qacc_warmstart")[k]
        mujoco.mj_forward(robot.model, data)
        mujoco.mj_subtreeVel(robot.model, data)
        forces = np.clip(data.cfrc_ext, -1, 1)
        expected = np.concatenate((data.qpos, data.qvel, forces.ravel(), data.xmat[1], data.subtree_com[1]))
        assert seen.observations[k] == pytest.approx(expected, abs=1e-6)
        assert seen.velocity[k] == pytest.approx(data.subtree_linvel[1, 0], abs=1e-9)
        assert seen.contact[k] == pytest.approx(np.square(forces).sum(), abs=1e-5)
        touched += float(seen.contact[k])
    assert touched > 0


@pytest.mark.parametrize("robot", [HalfCheetah, Ant])
def test_a_robot_that_is_started_anew_leaves_the_others_alone(robot: Any) -> None:
    robots = robot(3, "finn2017")
    robots.reset([np.random.default_rng(k) for k in range(3)], np.arange(3))
    seen = robots.step(np.ones((3, robots.action_size)))
    again = robots.reset([np.random.default_rng(7)], np.array([1]))
    assert np.array_equal(again[[0, 2]], seen.observations[[0, 2]])
    assert not np.array_equal(again[1], seen.observations[1])


def test_a_state_that_is_not_finite_stays_so() -> None:
    robot = HalfCheetah(2, "finn2017")
    robot.reset([np.random.default_rng(k) for k in range(2)], np.arange(2))
    robot.qvel[1] = 1e300
    for _ in range(3):
        seen = robot.step(np.zeros((2, 6)))
    assert np.isfinite(seen.observations[0]).all()
    assert not np.isfinite(seen.observations[1]).all()
