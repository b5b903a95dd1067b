"""HalfCheetah and Ant with goal velocity and goal direction: section 5.3 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from meta_service.episode import Signature
from meta_service.errors import UserError
from meta_service.rl.physics import Ant, HalfCheetah, Variant
from meta_service.rl.simulation import Step

ROBOTS: dict[str, type[HalfCheetah] | type[Ant]] = {"cheetah": HalfCheetah, "ant": Ant}


class Costs(NamedTuple):
    """What is added to the reward for the goal at every step."""

    effort: float
    """For the sum of the squared actions in [-1, 1]."""
    contact: float
    """For the sum of the squared contact forces, cut off at 1."""
    alive: float


COSTS: dict[tuple[str, Variant], Costs] = {
    ("cheetah", "finn2017"): Costs(0.05, 0.0, 0.0),
    ("cheetah", "gymnasium"): Costs(0.1, 0.0, 0.0),
    ("ant", "finn2017"): Costs(0.005, 0.0005, 0.05),
    ("ant", "gymnasium"): Costs(0.5, 0.0005, 1.0),
}
"""finn2017: cbfinn/maml_rl at 9c8e2eb, half_cheetah_env_rand.py, ant_env_rand.py and their `_direc` twins;
gymnasium: the defaults of HalfCheetah-v5 and Ant-v5."""
FASTEST = {"cheetah": 2.0, "ant": 3.0}  # m/s: goal velocities are uniform from 0 to these


@dataclass(frozen=True)
class Locomotion:
    """Run forward or backward as the goal says, or at the goal's velocity.

    Reward of a step: direction * v, or -|v - goal| (Ant in finn2017: 1 - |v - goal|); minus costs of effort and
    contact, plus a bonus for being alive. Ant's task ends where its torso leaves heights of 0.2 to 1 m, HalfCheetah's
    never.
    """

    robot: Literal["cheetah", "ant"] = "cheetah"
    kind: Literal["direction", "velocity"] = "direction"
    """What the goal is: +1 or -1; or U[0, 2] m/s for HalfCheetah and U[0, 3] m/s for Ant."""
    variant: Variant = "finn2017"
    """The paper's simulation, or Gymnasium's; see `rl/physics.py`."""
    shots: int = 20
    """K: trajectories of one adaptation step."""
    horizon: int = 200
    """H: steps of 0.01 s (HalfCheetah), 0.02 s (Ant) or, gymnasium, 0.05 s after which a trajectory is cut off."""
    by_steps: bool = False
    """Gather whole trajectories until there are K * H steps, as the authors' code does: more than K where they end
    early, with a fall of Ant."""
    oracle: bool = False
    """Give the goal to the policy as one more observation: the paper's upper bound."""

    metric_name = "return"

    def __post_init__(self) -> None:
        if self.shots < 1 or self.horizon < 1:
            raise UserError(f"tasks: shots >= 1 and horizon >= 1 are expected, {self.shots} and {self.horizon} came")

    @property
    def signature(self) -> Signature:
        robot = ROBOTS[self.robot]
        return Signature((robot.observation_size(self.variant) + self.oracle,), robot.action_size)

    def prepare(self) -> str:
        """Nothing is stored: every task follows from its seed."""
        return ""

    def goal(self, seed: int) -> np.ndarray:
        """[1]: the direction, or the velocity in m/s, of the task that `seed` names."""
        drawn = np.random.default_rng(seed).uniform(0.0, FASTEST[self.robot], 1)
        return np.where(drawn < FASTEST[self.robot] / 2, -1.0, 1.0) if self.kind == "direction" else drawn

    def simulation(self, goals: np.ndarray) -> "Robots":
        return Robots(self, goals)


class Robots:
    """Robots in worlds of their own, each rewarded by its own goal."""

    def __init__(self, tasks: Locomotion, goals: np.ndarray) -> None:
        self.tasks, self.goals = tasks, goals  # [n, 1]
        self.robot = ROBOTS[tasks.robot](len(goals), tasks.variant)
        self.costs = COSTS[tasks.robot, tasks.variant]

    def reset(self, generators: Sequence[np.random.Generator], which: np.ndarray | None = None) -> np.ndarray:
        which = np.arange(len(self.goals)) if which is None else which
        return self._observe(self.robot.reset(generators, which))

    def step(self, actions: np.ndarray) -> Step:
        seen = self.robot.step(actions)
        goal = self.goals[:, 0]
        if self.tasks.kind == "direction":
            gain = goal * seen.velocity
        else:
            gain = (self.tasks.robot == "ant" and self.tasks.variant == "finn2017") - np.abs(seen.velocity - goal)
        costs = self.costs
        rewards = gain - costs.effort * seen.effort - costs.contact * seen.contact + costs.alive
        return Step(self._observe(seen.observations), rewards, ~seen.upright)

    def _observe(self, observations: np.ndarray) -> np.ndarray:
        return np.concatenate((observations, self.goals), 1) if self.tasks.oracle else observations
