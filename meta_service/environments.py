"""The tasks of reinforcement learning as Gymnasium environments, for anyone's agent.

`import meta_service.environments` registers, one by one and as vectors of many:

    meta_service/Navigation-v0
    meta_service/{HalfCheetah,Ant}{Velocity,Direction}-v0              Gymnasium's own simulation
    meta_service/{HalfCheetah,Ant}{Velocity,Direction}Finn2017-v0      the paper's

`gymnasium.make(id, goal=1.0)` fixes the goal; else every episode has another one, drawn from the seed of `reset`.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from meta_service.rl.simulation import PolicyTasks
from meta_service.tasks.locomotion import Locomotion
from meta_service.tasks.navigation import Navigation

TASKS: dict[str, PolicyTasks] = {"meta_service/Navigation-v0": Navigation()}
TASKS |= {
    f"meta_service/{name}{kind.title()}{suffix}-v0": Locomotion(robot, kind, variant)  # type: ignore[arg-type]
    for robot, name in (("cheetah", "HalfCheetah"), ("ant", "Ant"))
    for kind in ("velocity", "direction")
    for variant, suffix in (("finn2017", "Finn2017"), ("gymnasium", ""))
}


def spaces(tasks: PolicyTasks) -> tuple[Box, Box]:
    """Of one observation, float64, and of one action, which the environment clips to [-1, 1] and scales."""
    return (
        Box(-np.inf, np.inf, tasks.signature.inputs, np.float64),
        Box(-1.0, 1.0, (tasks.signature.outputs,), np.float32),
    )


class GoalVectorEnv(VectorEnv):  # type: ignore[type-arg]
    """Many environments of one kind, stepped together; each episode has a goal of its own, or all have `goal`.

    An environment that ended is reset at the next step, whose action it ignores (AutoresetMode.NEXT_STEP).
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, tasks: PolicyTasks, num_envs: int = 1, goal: Any = None) -> None:
        self.tasks, self.num_envs = tasks, num_envs
        self.single_observation_space, self.single_action_space = spaces(tasks)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._goal = None if goal is None else np.atleast_1d(np.asarray(goal, np.float64))
        self._simulation = tasks.simulation(np.zeros((num_envs, len(tasks.goal(0)))))
        self._steps, self._ended = np.zeros(num_envs, int), np.zeros(num_envs, bool)

    @property
    def goals(self) -> np.ndarray:
        """[num_envs, g]: those of the present episodes."""
        return self._simulation.goals.copy()

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed if isinstance(seed, int) or seed is None else seed[0])
        return self._restart(np.arange(self.num_envs)), {"goal": self.goals}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observations, rewards, terminated = self._simulation.step(np.asarray(actions, np.float64))
        self._steps += 1
        unstable = ~np.isfinite(observations).all(1)
        observations, rewards = np.nan_to_num(observations), np.where(unstable | self._ended, 0.0, rewards)
        terminated = (terminated | unstable) & ~self._ended
        truncated = (self._steps >= self.tasks.horizon) & ~terminated & ~self._ended
        if self._ended.any():
            observations = self._restart(np.flatnonzero(self._ended))
        self._ended = terminated | truncated
        return observations, rewards, terminated, truncated, {"goal": self.goals}

    def _restart(self, which: np.ndarray) -> np.ndarray:
        generators = [np.random.default_rng(int(self.np_random.integers(2**63))) for _ in which]
        for index in which:
            drawn = self.tasks.goal(int(self.np_random.integers(2**63)))
            self._simulation.goals[index] = drawn if self._goal is None else self._goal
        self._steps[which] = 0
        observations: np.ndarray = np.nan_to_num(self._simulation.reset(generators, which))
        return observations


class GoalEnv(gymnasium.Env):  # type: ignore[type-arg]
    """One environment."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, tasks: PolicyTasks, goal: Any = None) -> None:
        self._vector = GoalVectorEnv(tasks, 1, goal)
        self.observation_space, self.action_space = spaces(tasks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        observations, _ = self._vector.reset(seed=seed)
        return observations[0], {"goal": self._vector.goals[0]}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, _ = self._vector.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}


for _id, _tasks in TASKS.items():
    gymnasium.register(
        _id,
        entry_point="meta_service.environments:GoalEnv",
        vector_entry_point="meta_service.environments:GoalVectorEnv",
        kwargs={"tasks": _tasks},
        order_enforce=False,
    )
