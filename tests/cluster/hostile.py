"""A task distribution that does to its worker what it is told."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from meta_service.episode import Batch, Predict, Signature, Split
from meta_service.errors import UserError
from meta_service.tasks.sinusoid import Sinusoid


@dataclass(frozen=True)
class Hostile:
    """Sinusoids; drawing a training task also kills the worker, or raises."""

    deed: str = "none"
    """`kill`: SIGKILL, always; `kill once`: until the folder holds a file; `mistake`: UserError; `bug`: ValueError.
    `uncompiled`: a worker that finds another's file in the folder does without compiled loops; `nan`: the tasks have
    no numbers."""
    folder: str = ""
    shots: int = 10
    query_shots: int = 10

    metric_name = "mse"
    output_loss = Sinusoid.output_loss

    @property
    def signature(self) -> Signature:
        return Sinusoid().signature

    def prepare(self) -> str:
        if self.deed == "uncompiled":
            Path(self.folder, str(os.getpid())).touch()
            if len(list(Path(self.folder).iterdir())) > 1:
                os.environ["META_NATIVE"] = "0"
        return ""

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        if split == "train":
            self._act()
        support, query = Sinusoid().sample(seed, split)
        if split == "train" and self.deed == "nan":
            query = Batch(query.inputs, query.targets * float("nan"))
        return support, query

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        return Sinusoid().loss(predict, batch)

    metric = loss

    def _act(self) -> None:
        if self.deed == "mistake":
            raise UserError("the images are gone")
        if self.deed == "bug":
            raise ValueError("a programmer's mistake")
        done = Path(self.folder, "done")
        if self.deed == "kill" or (self.deed == "kill once" and not done.exists()):
            if self.folder:
                done.touch()
            os.kill(os.getpid(), signal.SIGKILL)
