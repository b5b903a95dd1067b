"""What is asked of whoever trains one policy over all tasks, without adaptation; RLlib does it, in `cluster/`."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from meta_service.job import JobSpec
from meta_service.params import Params


class Trained(NamedTuple):
    """A policy in training."""

    iteration: int
    params: Params
    mean_return: float
    """Of the trajectories that ended in this iteration, undiscounted; NaN where none did."""


PPO = Callable[[JobSpec, Params], Iterator[Trained]]
"""(job, theta) -> the policy after each of `job.iterations` iterations, from theta on; every episode another task."""
