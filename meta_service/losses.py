"""Losses as functions of a network's outputs, with first and second derivatives, of any number of tasks at once."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class OutputLoss(Protocol):
    """l(outputs, targets) of each task, outputs [..., N, O] -> [...], and its derivatives by the outputs."""

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """[...]"""

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """[..., N, O]"""

    def curvature(self, outputs: Tensor, targets: Tensor, direction: Tensor) -> Tensor:
        """The Hessian times `direction` [..., N, O]: [..., N, O]."""


@dataclass(frozen=True)
class SquaredError:
    """The mean of (outputs - targets)^2 over examples and outputs; targets [..., N, O]."""

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean((-2, -1))

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets) * (2 / _entries(outputs))

    def curvature(self, outputs: Tensor, targets: Tensor, direction: Tensor) -> Tensor:
        return direction * (2 / _entries(outputs))


@dataclass(frozen=True)
class CrossEntropy:
    """The sum over examples of -log softmax(outputs)[target], divided; targets [..., N] int64."""

    divisor: int | None = None
    """None: the number of examples, which makes it the mean."""

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        chosen = outputs.log_softmax(-1).gather(-1, targets[..., None])
        return -chosen.sum((-2, -1)) / self._divisor(outputs)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        one_hot = torch.zeros_like(outputs).scatter_(-1, targets[..., None], 1)
        return (outputs.softmax(-1) - one_hot) / self._divisor(outputs)

    def curvature(self, outputs: Tensor, targets: Tensor, direction: Tensor) -> Tensor:
        p = outputs.softmax(-1)
        return p * (direction - (p * direction).sum(-1, keepdim=True)) / self._divisor(outputs)

    def _divisor(self, outputs: Tensor) -> int:
        return outputs.shape[-2] if self.divisor is None else self.divisor


def _entries(outputs: Tensor) -> int:
    return outputs.shape[-2] * outputs.shape[-1]
