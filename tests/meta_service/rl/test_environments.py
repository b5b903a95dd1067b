"""The tasks as Gymnasium environments, one by one and as vectors."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from meta_service.environments import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_environment_passes_gymnasium_s_own_check(name: str) -> None:
    env = gymnasium.make(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(minimum|maximum) value is -?infinity")
        warnings.filterwarnings("ignore", message=".*not inheriting from|.*render")
        check_env(env.unwrapped, skip_render_check=True)


def test_there_are_both_variants_of_every_locomotion_task() -> None:
    assert len(TASKS) == 1 + 2 * 2 * 2
    assert "meta_service/AntVelocityFinn2017-v0" in TASKS
    assert "meta_service/HalfCheetahDirection-v0" in TASKS


@pytest.mark.parametrize("name", ["meta_service/HalfCheetahVelocityFinn2017-v0", "meta_service/Ant Direction-v0"])
def test_a_vector_steps_as_its_environments_one_by_one(name: str) -> None:
    name = name.replace(" ", "")
    together = gymnasium.make_vec(name, num_envs=1, vectorization_mode="vector_entry_point", goal=1.0)
    alone = gymnasium.make(name, goal=1.0)
    first, second = together.reset(seed=3)[0], alone.reset(seed=3)[0]
    assert np.array_equal(first[0], second)
    for action in np.random.default_rng(0).normal(size=(30, *alone.action_space.shape)):
        many, one = together.step(action[None]), alone.step(action)
        assert np.array_equal(many[0][0], one[0])
        assert [float(many[k][0]) for k in (1, 2, 3)] == [float(one[k]) for k in (1, 2, 3)]
        if one[2] or one[3]:
            break


def test_a_time_limit_is_a_truncation_and_the_next_step_starts_anew() -> None:
    envs: Any = gymnasium.make_vec("meta_service/Navigation-v0", num_envs=3, vectorization_mode="vector_entry_point")
    envs.reset(seed=0)
    before = envs.goals
    still = np.zeros((3, 2))
    for _ in range(100):
        observations, rewards, terminated, truncated, _ = envs.step(still)
    assert truncated.all()
    assert not terminated.any()
    observations, rewards, terminated, truncated, info = envs.step(still)
    assert not np.any([rewards, terminated, truncated])
    assert not observations.any()
    assert not np.array_equal(info["goal"], before)


def test_arriving_terminates() -> None:
    env = gymnasium.make("meta_service/Navigation-v0", goal=(0.1, 0.0))
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(np.array([1.0, 0.0]))
    assert terminated
    assert not truncated
    assert reward == pytest.approx(0.0)


def test_the_same_seed_gives_the_same_goals_and_starts() -> None:
    envs = [gymnasium.make("meta_service/HalfCheetahVelocity-v0") for _ in range(2)]
    starts = [env.reset(seed=5) for env in envs]
    assert np.array_equal(starts[0][0], starts[1][0])
    assert starts[0][1]["goal"] == starts[1][1]["goal"]
    assert envs[0].reset()[1]["goal"] != starts[0][1]["goal"]
