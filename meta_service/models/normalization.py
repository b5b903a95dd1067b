"""Batch normalisation by batch statistics, from primitives that differentiate twice under `vmap`.

torch's own `batch_norm` gives wrong second derivatives there, without a warning.
"""

import torch
from torch import Tensor

from meta_service.adjoint.primitives import EPSILON


def normalize(x: Tensor, shift: Tensor, context: int) -> Tensor:
    """(x - mean) / sqrt(var + eps) + shift, per channel; no learned scale, as in the authors' code.

    x: [context + examples, channels, ...]. The statistics are those of the first `context` rows, or, where `context`
    is 0, of all rows. shift: [channels].
    """
    reference = x[:context] if context else x
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = reference.mean(axes, keepdim=True)
    variance = (reference - mean).square().mean(axes, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + EPSILON) + shift.view(-1, *[1] * (x.dim() - 2))
