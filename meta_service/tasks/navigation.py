"""2D navigation: section 5.3 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from meta_service.episode import Signature
from meta_service.errors import UserError
from meta_service.rl.simulation import Step

SPEED = 0.1  # m: how far the largest action moves the point along each axis
CLOSE = 0.01  # m: the task ends where both coordinates are this near to the goal's
FINN2017 = np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))  # m: the goals of the authors' test


@dataclass(frozen=True)
class Navigation:
    """A point in the plane, to be brought from (0, 0) to a goal in U[-0.5, 0.5]^2; the reward is minus its distance.

    The distance is Euclidean as in the authors' code; the paper's text squares it.
    """

    shots: int = 20
    """K: trajectories of one adaptation step."""
    horizon: int = 100
    """H: steps after which a trajectory is cut off."""
    by_steps: bool = False
    """Gather whole trajectories until there are K * H steps, as the authors' code does: more than K where they end
    early, at the goal."""
    oracle: bool = False
    """Give the goal to the policy as two more observations: the paper's upper bound."""

    metric_name = "return"

    def __post_init__(self) -> None:
        if self.shots < 1 or self.horizon < 1:
            raise UserError(f"tasks: shots >= 1 and horizon >= 1 are expected, {self.shots} and {self.horizon} came")

    @property
    def signature(self) -> Signature:
        return Signature((4,) if self.oracle else (2,), 2)

    def prepare(self) -> str:
        """Nothing is stored: every task follows from its seed."""
        return ""

    def goal(self, seed: int) -> np.ndarray:
        """(x, y) in m of the task that `seed` names; 0 to 39 name those of the authors' test."""
        return FINN2017[seed].copy() if seed < len(FINN2017) else np.random.default_rng(seed).uniform(-0.5, 0.5, 2)

    def simulation(self, goals: np.ndarray) -> "Points":
        return Points(goals, self.oracle)


class Points:
    """Points in the plane, moved at once."""

    def __init__(self, goals: np.ndarray, oracle: bool = False) -> None:
        self.goals, self.oracle = goals, oracle
        self.at = np.zeros_like(goals)

    def reset(self, generators: Sequence[np.random.Generator], which: np.ndarray | None = None) -> np.ndarray:
        """All start at (0, 0), whatever the generators."""
        self.at[slice(None) if which is None else which] = 0.0
        return self._observe()

    def step(self, actions: np.ndarray) -> Step:
        self.at += SPEED * np.clip(actions, -1.0, 1.0)
        way = self.at - self.goals
        return Step(self._observe(), -np.linalg.norm(way, axis=1), (np.abs(way) < CLOSE).all(1))

    def _observe(self) -> np.ndarray:
        return np.concatenate((self.at, self.goals), 1) if self.oracle else self.at.copy()
