"""Policy-gradient losses of one task, as functions of how much more likely its actions have become.

Each takes log_ratio [K, H] = log pi_theta(a_t | o_t) - log pi(a_t | o_t) of the policy that acted, advantages [K, H]
(0 where masked) and the number of steps that count; and gives a scalar to be minimised. All have the policy gradient
as their first derivative where the two policies are equal. They differ in what a second derivative sees of the fact
that other parameters would have led to other trajectories.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad

Estimator = Literal["loglik", "lvc", "dice"]
"""Of the adaptation's loss:

loglik  -mean(A log pi): the paper's code, and the default. Its second derivative leaves out that another theta would
        have gathered other trajectories. Biased, and the least noisy: on 2D navigation its direction is the best.
lvc     -mean(A pi / pi_old): Rothfuss et al. (2019), the low-variance curvature of ProMP. The robots' jobs take it:
        with lambda = 0.9 HalfCheetah learned a little more by it, in one run of each. At first order, which is their
        default, only the line search sees the difference (docs/results.md).
dice    the loaded DiCE of Farquhar et al. (2019): unbiased, and the noisiest.
"""

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log_ratio [K, H], advantages [K, H], count []) -> []"""


def loglik(log_ratio: Tensor, advantages: Tensor, count: Tensor) -> Tensor:
    return -(advantages * log_ratio).sum() / count


def lvc(log_ratio: Tensor, advantages: Tensor, count: Tensor) -> Tensor:
    return -(advantages * log_ratio.exp()).sum() / count


def dice(log_ratio: Tensor, advantages: Tensor, count: Tensor) -> Tensor:
    """A step's weight is the probability ratio of all of its trajectory so far, less that without the step itself."""
    so_far = log_ratio.cumsum(-1)
    return -(advantages * (so_far.exp() - (so_far - log_ratio).exp())).sum() / count


def clipped(clip: float) -> Loss:
    """PPO's: the ratio counts within [1 - clip, 1 + clip] where going further would seem an improvement."""

    def loss(log_ratio: Tensor, advantages: Tensor, count: Tensor) -> Tensor:
        ratio = log_ratio.exp()
        limited = ratio.clamp(1 - clip, 1 + clip)
        return -torch.minimum(ratio * advantages, limited * advantages).sum() / count

    return loss


INNER: dict[Estimator, Loss] = {"loglik": loglik, "lvc": lvc, "dice": dice}


def weights(loss: Loss, log_ratio: Tensor, advantages: Tensor, count: Tensor) -> Tensor:
    """d loss / d log_ratio: [K, H]."""
    gradient: Tensor = grad(loss)(log_ratio, advantages, count)
    return gradient


def weights_along(loss: Loss, log_ratio: Tensor, change: Tensor, advantages: Tensor, count: Tensor) -> Tensor:
    """How `weights` change when log_ratio changes along `change`: [K, H]."""
    if loss is loglik:  # it is linear
        return torch.zeros_like(change)

    def slope(r: Tensor) -> Tensor:
        return (weights(loss, r, advantages, count) * change).sum()

    derivative: Tensor = grad(slope)(log_ratio)  # a second derivative is symmetric
    return derivative
