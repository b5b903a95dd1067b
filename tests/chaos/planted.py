"""What is done to a driver from inside: a worker that can be told to fail, and bugs that the harness has to find."""

import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cluster.pool
from cluster.pool import RayPool
from cluster.question import Question
from meta_service.commits import Commits
from meta_service.delivery import Delivery
from meta_service.pool import Blocks

FAULTS = "CHAOS_FAULTS"
"""The folder in which a file named `exception`, `memory` or `nan` makes one block fail that way, and is gone then."""
SPARE_BYTES = 64 << 20  # a worker that is to run out of memory gets so many more, and takes eight times that
BUG = "CHAOS_BUG"
"""The name of a bug below."""


def plant(env: Mapping[str, str]) -> None:
    """Prepares the driver of this process, as the environment says."""
    if FAULTS in env:
        RayPool.worker = unreliable(RayPool.worker, Path(env[FAULTS]))
    if BUG in env:
        BUGS[env[BUG]]()


def unreliable(worker: type, folder: Path) -> type:
    """The worker, but of each file in the folder one call is a victim."""

    def claim(name: str) -> bool:
        try:
            os.unlink(folder / name)
        except FileNotFoundError:
            return False
        return True

    def fail() -> None:
        if claim("exception"):
            raise RuntimeError("a fault on purpose")
        if claim("memory"):
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + SPARE_BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))  # and it stays so
            np.ones(SPARE_BYTES)

    class UnreliableWorker(worker):  # type: ignore[misc]
        def meta_gradient(self, *arguments: Any) -> Any:
            fail()
            vector, loss = super().meta_gradient(*arguments)
            return (vector * np.float32("nan") if claim("nan") else vector), loss

        def answer(self, *arguments: Any) -> Any:
            fail()
            found = super().answer(*arguments)
            if found.vector is not None and claim("nan"):
                found = found._replace(vector=found.vector * np.float32("nan"))
            return found

    UnreliableWorker.__name__ = UnreliableWorker.__qualname__ = "TaskWorker"  # as it is listed by the system
    return UnreliableWorker


def counts_a_block_twice() -> None:
    """In one step the first block is computed again, and added again."""

    class Twice(RayPool):
        def ask(self, question: Question, blocks: Blocks, *more: Any) -> list[Any]:
            answers = super().ask(question, blocks, *more)
            if question.step == WRONG_STEP and question.method == "meta_gradient":
                (again,) = super().ask(question, blocks[:1], *more)
                answers[0] = (answers[0][0] + again[0], answers[0][1] + again[1])
            return answers

    cluster.pool.RayPool = Twice  # type: ignore[misc]


def takes_answers_of_an_older_theta() -> None:
    """One step is made of what the blocks say of the theta before."""

    class Stale(RayPool):
        before: Question | None = None

        def ask(self, question: Question, blocks: Blocks, *more: Any) -> list[Any]:
            asked = question
            if question.step == WRONG_STEP and self.before:
                asked = question._replace(params=self.before.params)
            if question.step:
                self.before = question
            return super().ask(asked, blocks, *more)

    cluster.pool.RayPool = Stale  # type: ignore[misc]


def resumes_from_an_older_checkpoint() -> None:
    """The newest checkpoint is not seen."""
    real = Commits._candidates

    def candidates(self: Commits, pointer: str) -> list[str]:
        return real(self, pointer)[1:]

    Commits._candidates = candidates  # type: ignore[method-assign]


def acknowledges_before_it_delivers() -> None:
    """Metrics that the server does not take are lost."""
    real = Delivery._metrics

    def metrics(self: Delivery, points: Any, position: int) -> None:
        self._spool.acknowledge(position)
        real(self, points, position)

    Delivery._metrics = metrics  # type: ignore[method-assign]


WRONG_STEP = 5
BUGS = {
    bug.__name__: bug
    for bug in (
        counts_a_block_twice,
        takes_answers_of_an_older_theta,
        resumes_from_an_older_checkpoint,
        acknowledges_before_it_delivers,
    )
}
