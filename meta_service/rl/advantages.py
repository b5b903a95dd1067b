"""How much better than expected each action was: a linear baseline, and advantages after Schulman et al. (2016).

The baseline is Duan et al. (2016), section 5, as in the paper's code: least squares on functions of observation and
time, fitted to the very trajectories it is subtracted from, for each task and each adaptation step by itself.
"""

import torch
from torch import Tensor

from meta_service.rl.trajectories import Trajectories, reward_to_go

RIDGE = 1e-5
CLIP = 10.0  # observations are cut off there before they become features


def features(observations: Tensor) -> Tensor:
    """[o, o^2, t, t^2, t^3, 1] with t in units of 100 steps: [..., H, o] -> float64 [..., H, 2 o + 4]."""
    o = observations.double().clamp(-CLIP, CLIP)
    t = (torch.arange(o.shape[-2], dtype=torch.float64) / 100).unsqueeze(-1).expand(*o.shape[:-1], 1)
    return torch.cat((o, o.square(), t, t.square(), t**3, torch.ones_like(t)), -1)


def fit(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """Ridge regression of y on x over the steps that count: float64 [n, f], [n], [n] -> [n], the fitted values."""
    x_counted = x * mask.unsqueeze(-1)
    gram, moment = x_counted.T @ x, x_counted.T @ y
    eye = torch.eye(x.shape[-1], dtype=x.dtype)
    weights: Tensor = torch.linalg.solve(gram + RIDGE * eye, moment)
    return x @ weights


def advantages(task: Trajectories, discount: float, gae_lambda: float) -> Tensor:
    """A_t = sum_k (discount lambda)^k delta_{t+k}, standardised over the steps that count: [K, H], of one task.

    delta_t = r_t + discount V(o_{t+1}) - V(o_t). V is 0 after the last step of a trajectory, terminal or cut off: the
    horizon is part of these tasks and time one of the baseline's features. Masked steps have A = 0.
    """
    mask = task.mask.double()
    rewards = task.rewards * mask
    x = features(task.observations)
    value = fit(x.flatten(0, 1), reward_to_go(rewards, discount).flatten(), mask.flatten()).view_as(rewards) * mask
    following = torch.cat((value[:, 1:], torch.zeros_like(value[:, :1])), 1)
    delta = (rewards + discount * following - value) * mask
    raw = reward_to_go(delta, discount * gae_lambda)
    count = mask.sum().clamp(min=1)
    mean = (raw * mask).sum() / count
    std = (((raw - mean) * mask).square().sum() / count).sqrt()
    return ((raw - mean) / (std + 1e-8) * mask).to(task.observations.dtype)
