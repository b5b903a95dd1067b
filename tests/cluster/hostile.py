"""A task distribution that does to its worker what it is told, and a worker that is in no need of that."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cluster.question import Ticket
from cluster.worker import TaskWorker
from meta_service.episode import Batch, Predict, Signature, Split
from meta_service.errors import UserError
from meta_service.learner import Learner
from meta_service.tasks.sinusoid import Sinusoid


@dataclass(frozen=True)
class Hostile:
    """Sinusoids; drawing a training task also kills the worker, or raises."""

    deed: str = "none"
    """`kill`: SIGKILL, always; `kill once`: until the folder holds a file; `hang once`: the same with SIGSTOP; `hang
    at start`: the same before any task; `slow`: one worker takes 0.5 s a task, the others a tenth of that; `mistake`:
    UserError; `bug`: ValueError; `bug once`: until the folder holds a file; `uncompiled`: a worker that finds another's
    file in the folder does without compiled loops; `nan`: the tasks have no numbers; `nan once`: the first one has
    none."""
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
        if self.deed == "hang at start" and self._claim():
            os.kill(os.getpid(), signal.SIGSTOP)
        return ""

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        if split == "train":
            self._act()
        support, query = Sinusoid().sample(seed, split)
        if split == "train" and (self.deed == "nan" or (self.deed == "nan once" and self._claim())):
            query = Batch(query.inputs, query.targets * float("nan"))
        return support, query

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        return Sinusoid().loss(predict, batch)

    metric = loss

    def _act(self) -> None:
        if self.deed == "mistake":
            raise UserError("the images are gone")
        if self.deed == "bug" or (self.deed == "bug once" and self._claim()):
            raise ValueError("a programmer's mistake")
        if self.deed == "slow":
            time.sleep(0.5 if self._first() else 0.05)
        if self.deed == "hang once" and self._first() and not Path(self.folder, "hung").exists():
            Path(self.folder, "hung").touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.deed == "kill" or (self.deed == "kill once" and self._first()):
            os.kill(os.getpid(), signal.SIGKILL)

    def _claim(self) -> bool:
        """Whether nobody came here before."""
        with suppress(FileExistsError), Path(self.folder, "done").open("x"):
            return True
        return False

    def _first(self) -> bool:
        """Whether no other worker came here before this one."""
        mine = str(os.getpid())
        with suppress(FileExistsError), Path(self.folder, "done").open("x") as file:
            file.write(mine)
        return Path(self.folder, "done").read_text() == mine


class Confused(TaskWorker):
    """Its first answer is about another theta."""

    confused = True

    def ask(
        self, ticket: Ticket, method: str, theta: np.ndarray, seeds: Sequence[int], *more: Any
    ) -> tuple[Ticket, Any]:
        if self.confused:
            self.confused = False
            return super().ask(ticket._replace(theta="another"), method, theta + 1, seeds, *more)
        return super().ask(ticket, method, theta, seeds, *more)


class Counting(TaskWorker):
    """Counts the blocks whose tasks it had drawn before it was asked."""

    ahead = 0

    def meta_gradient(self, theta: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, float]:
        assert isinstance(self.learner, Learner)
        self.ahead += tuple(seeds) in self.learner.drawn
        return super().meta_gradient(theta, seeds)


class Holder:
    """An actor of somebody else, that takes room."""

    def here(self) -> bool:
        return True
