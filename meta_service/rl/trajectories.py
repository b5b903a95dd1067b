"""What a policy met: K trajectories of up to H steps of each of some tasks."""

from typing import NamedTuple

import torch
from torch import Tensor


class Trajectories(NamedTuple):
    """Of many tasks ([B, K, H, ...]) or, after `of_task`, of one ([K, H, ...]).

    Steps after the end of a trajectory, and all of a trajectory whose simulation became unstable, are masked; their
    entries are finite and mean nothing. A task with fewer trajectories than others has rows without a step at its end.
    """

    observations: Tensor
    """[B, K, H, o], each what the action beside it answered to."""
    actions: Tensor
    """[B, K, H, a] as drawn: clipping is the simulation's business, the policy's probability is of what it drew."""
    rewards: Tensor
    """[B, K, H] float64."""
    mask: Tensor
    """[B, K, H] in the policy's type: 1 where a step counts, 0 elsewhere."""
    terminated: Tensor
    """[B, K] bool: ended by its task; the others were cut off at the horizon H."""
    unstable: Tensor
    """[B, K] bool: the simulation left the finite numbers."""

    def of_task(self, index: int) -> "Trajectories":
        """Its own trajectories alone."""
        own = int((self.mask[index].any(-1) | self.unstable[index]).sum())
        return Trajectories(*(part[index, :own] for part in self))

    def returns(self) -> Tensor:
        """[B]: the mean undiscounted return over the stable trajectories of each task, float64."""
        total = (self.rewards * self.mask).sum((-2, -1))
        return total / self.mask.any(-1).sum(-1).clamp(min=1)


def reward_to_go(rewards: Tensor, discount: float) -> Tensor:
    """R_t = r_t + discount * R_{t+1} along the last axis; 0 after the end."""
    togo = torch.empty_like(rewards)
    running = torch.zeros_like(rewards[..., 0])
    for t in range(rewards.shape[-1] - 1, -1, -1):
        running = rewards[..., t] + discount * running
        togo[..., t] = running
    return togo
