"""What trajectories are gathered from: many simulations of one kind, stepped together, each with a goal of its own."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from meta_service.episode import Signature


class Step(NamedTuple):
    """What one step of n simulations led to."""

    observations: np.ndarray
    """[n, observations] float64, of the new state; not finite where the simulation has become unstable."""
    rewards: np.ndarray
    """[n] float64."""
    terminated: np.ndarray
    """[n] bool: the task has ended there. A time limit is none of a simulation's business."""


class Simulation(Protocol):
    """n simulations. None is ever reset by itself: whoever steps them keeps a mask of those that ended."""

    goals: np.ndarray
    """[n, g]: may be written to, from step to step."""

    def reset(self, generators: Sequence[np.random.Generator], which: np.ndarray | None = None) -> np.ndarray:
        """Starts `which` simulations (all, if none are named) anew, each from its generator: observations [n, o]."""

    def step(self, actions: np.ndarray) -> Step:
        """One step of all; actions [n, a] are clipped to [-1, 1] and scaled to the actuators' ranges."""


class PolicyTasks(Protocol):
    """p(T) of reinforcement learning: tasks that share their simulation and differ by their goal alone."""

    @property
    def shots(self) -> int:
        """K: trajectories of one adaptation step."""

    @property
    def horizon(self) -> int:
        """H: steps after which a trajectory is cut off; a truncation, not a terminal state."""

    @property
    def by_steps(self) -> bool:
        """Whether K is counted in steps: whole trajectories are gathered until they have K * H."""

    @property
    def signature(self) -> Signature:
        """The sizes of an observation and of an action."""

    @property
    def metric_name(self) -> str: ...

    def prepare(self) -> str: ...

    def goal(self, seed: int) -> np.ndarray:
        """The goal [g] of the task that `seed` names."""

    def simulation(self, goals: np.ndarray) -> Simulation:
        """One simulation for each of the goals [n, g]."""
