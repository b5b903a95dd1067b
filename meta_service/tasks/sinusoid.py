"""Sinusoid regression: section 5.1 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from meta_service.episode import Batch, Predict, Signature, Split
from meta_service.errors import UserError
from meta_service.losses import SquaredError


@dataclass(frozen=True)
class Sinusoid:
    """y = A sin(x - phi) with A in U[0.1, 5], phi in U[0, pi], x in U[-5, 5]; mean squared error."""

    shots: int = 10
    """K: support points of a task."""
    query_shots: int = 10
    """Query points of a task."""
    oracle: bool = False
    """Give A and phi to the network as two more inputs: the paper's upper bound."""

    metric_name = "mse"
    output_loss = SquaredError()

    def __post_init__(self) -> None:
        if self.shots < 1 or self.query_shots < 1:
            raise UserError(
                f"tasks: shots >= 1 and query_shots >= 1 are expected, {self.shots} and {self.query_shots} came"
            )

    @property
    def signature(self) -> Signature:
        return Signature((3,) if self.oracle else (1,), 1)

    def prepare(self) -> str:
        """Nothing is stored: every task follows from its seed."""
        return ""

    def curve(self, seed: int) -> tuple[float, float]:
        """(A, phi) of the task that `seed` names."""
        amplitude, phase = _curve(np.random.default_rng(seed).random(2))
        return float(amplitude), float(phase)

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        """Support points [shots, inputs], query points [query_shots, inputs]; the same task in every split."""
        support, query = self.sample_all([seed], split)
        return Batch((support.inputs[0][0],), support.targets[0]), Batch((query.inputs[0][0],), query.targets[0])

    def sample_all(self, seeds: Sequence[int], split: Split) -> tuple[Batch, Batch]:
        """The same of many tasks, along a first axis."""
        count = 2 + self.shots + self.query_shots
        u = np.stack([np.random.default_rng(seed).random(count) for seed in seeds])
        amplitude, phase = _curve(u)
        points = self.points(-5.0 + 10.0 * u[:, 2:], amplitude[:, None], phase[:, None])
        parts = (slice(self.shots), slice(self.shots, None))
        support, query = (Batch((points.inputs[0][:, part],), points.targets[:, part]) for part in parts)
        return support, query

    def points(self, x: np.ndarray, amplitude: float | np.ndarray, phase: float | np.ndarray) -> Batch:
        """The curve of a task at x [..., n]: inputs [..., n, 1] ([..., n, 3] for the oracle), targets [..., n, 1]."""
        given = (x, amplitude, phase) if self.oracle else (x,)
        inputs = np.stack([np.broadcast_to(column, x.shape) for column in given], -1)
        targets = (amplitude * np.sin(x - phase))[..., None]
        return Batch((torch.from_numpy(inputs.astype(np.float32)),), torch.from_numpy(targets.astype(np.float32)))

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        """Mean squared error; scalar []."""
        return self.output_loss.value(predict(*batch.inputs), batch.targets)

    def metric(self, predict: Predict, batch: Batch) -> Tensor:
        """Mean squared error; scalar []."""
        return self.loss(predict, batch)


def _curve(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(A, phi) from uniform numbers [..., >= 2] in [0, 1)."""
    return 0.1 + (5.0 - 0.1) * u[..., 0], pi * u[..., 1]
