"""Where a run is: a small file in its store, for people to ask."""

import json
import time
from typing import NamedTuple

from meta_service.evaluation import AdaptationCurve
from meta_service.job import JobSpec
from meta_service.tracking import Tracker

NAME = "status.json"


class RunStatus(NamedTuple):
    """What a run last said of itself; a driver that was killed could not say so."""

    job: str
    state: str
    """QUEUED, RUNNING, STOPPED, FINISHED or FAILED."""
    iteration: int
    iterations: int
    metric: str
    before: float | None
    """The metric on validation tasks before adaptation."""
    after: float | None
    """And after."""
    tracking: str
    """The address of the MLflow run; "" until it has one."""
    mlflow_run_id: str | None
    workers: int
    time: float
    """When this was said, in seconds since 1970."""
    durable: int | None = None
    """The iteration of the newest checkpoint in the run's store."""
    local: int | None = None
    """Of the newest one on the driver's machine; None where the store has had all of it."""
    unit: str = "iterations"
    """What is counted: `trials` in a sweep, whose metrics are the default setting's and the best one's."""

    def to_bytes(self) -> bytes:
        return json.dumps(self._asdict(), indent=1).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "RunStatus":
        kept = json.loads(data)
        return RunStatus(**{name: kept[name] for name in RunStatus._fields if name in kept})


def status_of(
    job: JobSpec, state: str, iteration: int, curve: AdaptationCurve | None, tracker: Tracker | None
) -> RunStatus:
    """The status of a run now."""
    return RunStatus(
        job.name,
        state,
        iteration,
        job.iterations,
        job.tasks.metric_name,
        curve and curve.before,
        curve and curve.after,
        tracker.address if tracker else "",
        tracker.run_id if tracker else None,
        job.resources.workers,
        time.time(),
    )
