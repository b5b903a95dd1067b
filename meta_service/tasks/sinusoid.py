"""Sinusoid regression: section 5.1 of the paper."""

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
        amplitude, phase = np.random.default_rng(seed).uniform((0.1, 0.0), (5.0, pi))
        return float(amplitude), float(phase)

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        """Support points [shots, inputs], query points [query_shots, inputs]; the same task in every split."""
        generator = np.random.default_rng(seed)
        amplitude, phase = generator.uniform((0.1, 0.0), (5.0, pi))
        x = generator.uniform(-5.0, 5.0, self.shots + self.query_shots)
        points = self.points(x, float(amplitude), float(phase))
        return (
            Batch((points.inputs[0][: self.shots],), points.targets[: self.shots]),
            Batch((points.inputs[0][self.shots :],), points.targets[self.shots :]),
        )

    def points(self, x: np.ndarray, amplitude: float, phase: float) -> Batch:
        """The curve of a task at x [n]: inputs [n, 1] (or [n, 3] for the oracle), targets [n, 1]."""
        columns = [x, np.full_like(x, amplitude), np.full_like(x, phase)] if self.oracle else [x]
        inputs = torch.from_numpy(np.stack(columns, 1).astype(np.float32))
        targets = torch.from_numpy((amplitude * np.sin(x - phase)).astype(np.float32)[:, None])
        return Batch((inputs,), targets)

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        """Mean squared error; scalar []."""
        return self.output_loss.value(predict(*batch.inputs), batch.targets)

    def metric(self, predict: Predict, batch: Batch) -> Tensor:
        """Mean squared error; scalar []."""
        return self.loss(predict, batch)
