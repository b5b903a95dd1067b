"""A small sweep, and a loop that runs one without any Ray: what every other way must agree with."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jobs
from meta_service.artifacts import ArtifactStore, DirectoryStore
from meta_service.dotted import override
from meta_service.pool import LocalPool
from meta_service.sweep.book import Book
from meta_service.sweep.ledger import FINISHED, Ledger, Look, Trial
from meta_service.sweep.settings import Sweep, Tune, sweep_of
from meta_service.sweep.space import integers, loguniform
from meta_service.tracking import MemoryTracker
from meta_service.trial import Means, run_trial

FIELDS = ["meta_batch_size=4", "tasks_per_block=4", "validation.num_tasks=10"]
FIELDS += [f"evaluations.{k}-shot.num_tasks=10" for k in (5, 10, 20)]
JOB = override(jobs.find("sinusoid"), FIELDS)
SPACE = {
    "algorithm.inner_lr": loguniform(1e-3, 0.3),
    "outer.meta_lr": loguniform(1e-4, 2e-2),
    "algorithm.inner_steps": integers(1, 3),
}
TUNE = Tune(trials=8, iterations=18, grace=2, concurrent=2)


def sweep(*assignments: str) -> Sweep:
    return sweep_of(JOB, SPACE, TUNE, assignments)


def means(folder: Path, stop_after: int | None = None) -> Means:
    """In this process; asked to stop after so many outer steps, if it is given."""
    steps = 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return stop_after is not None and steps > stop_after

    def emit(kind: str, fields: dict[str, Any]) -> None: ...

    rescue = DirectoryStore(folder / "rescued")
    return Means(MemoryTracker(), lambda job: nullcontext(LocalPool.of(job)), emit, should_stop, rescue)


def serially(wanted: Sweep, store: ArtifactStore, folder: Path) -> list[Trial]:
    """All trials that are left, one after the other."""
    book = Book(wanted, Ledger(store))
    while trial := book.next():
        run_trial(wanted, trial, book.ledger, means(folder))
        book.refresh(trial.number)
    return book.trials


def ended(number: int, value: float, iteration: int = 18, state: str = FINISHED, **setting: Any) -> Trial:
    """A trial as it would be without computing it."""
    values = {"algorithm.inner_lr": 0.01, "outer.meta_lr": 1e-3, "algorithm.inner_steps": 1} | setting
    looks = tuple(Look(k, value, 0.0) for k in (2, 6, iteration) if k <= iteration)
    return Trial(number, values, {}, looks=looks, state=state)
