"""Small task distributions in float64, for comparing gradients with their definition."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from meta_service.episode import Batch, Predict, Signature, Split
from meta_service.losses import CrossEntropy


@dataclass(frozen=True)
class TinyImages:
    """Random images with random labels; every task other ones."""

    ways: int = 3
    shots: int = 2
    query_shots: int = 2
    size: int = 16
    channels: int = 1
    transductive: bool = True
    double: bool = True

    metric_name = "accuracy"
    output_loss = CrossEntropy()

    @property
    def signature(self) -> Signature:
        return Signature((self.channels, self.size, self.size), self.ways)

    def prepare(self) -> str:
        return ""

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        rng = np.random.default_rng(seed)
        support, query = (
            torch.from_numpy(rng.normal(size=(self.ways * n, *self.signature.inputs))).to(
                torch.float64 if self.double else torch.float32
            )
            for n in (self.shots, self.query_shots)
        )
        labels = [torch.arange(self.ways).repeat_interleave(n) for n in (self.shots, self.query_shots)]
        inputs = (query,) if self.transductive else (query, support)
        return Batch((support,), labels[0]), Batch(inputs, labels[1])

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        return self.output_loss.value(predict(*batch.inputs), batch.targets)

    def metric(self, predict: Predict, batch: Batch) -> Tensor:
        logits = predict(*batch.inputs)
        return (logits.argmax(-1) == batch.targets).to(logits.dtype).mean()
