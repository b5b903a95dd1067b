"""What the service costs beside the computation: outer steps of about 100 ms with two workers, tracked and not.

A step's overhead is its time from one update of theta to the next, less what its busiest worker computed.
"""

import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks import workloads
from benchmarks.process import ADDRESSES
from cluster import local, ports
from cluster.services import INLINE
from cluster.surroundings import state_folder
from meta_service.artifacts import open_store
from meta_service.checkpoint import Checkpoints
from meta_service.driver import Observer, meta_train
from meta_service.evaluation import AdaptationCurve
from meta_service.job import JobSpec
from meta_service.journal import Journal
from meta_service.objective import MetaGradient
from meta_service.pool import WorkerPool
from meta_service.state import MetaState
from meta_service.tracking import MLflowTracker

WORKLOAD = "W2-1"
CHECKPOINT_EVERY = 20  # outer steps: far more often than any job


class Span(NamedTuple):
    """When a worker computed a block, in seconds of the machine's clock."""

    worker: int
    start: float
    end: float


class Stamps:
    """The moments at which outer steps were done, passed on to another observer."""

    def __init__(self, inner: Observer | None = None) -> None:
        self.inner, self.moments = inner, [time.monotonic()]

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        if self.inner:
            self.inner.stepped(state, mean)
        self.moments.append(time.monotonic())

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None: ...


@contextmanager
def embedded(say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Ray, MLflow and S3 in a state of their own, as what a process finds them by in its environment; gone at the end.

    Not for that process itself: Ray ends a driver whose head it takes down.
    """
    folder = Path(tempfile.mkdtemp(prefix="meta-bench-"))  # short: Unix sockets lie in it
    outer = {name: os.environ.pop(name, None) for name in ("META_STATE", *ADDRESSES)}
    os.environ["META_STATE"] = str(folder)
    try:
        surroundings = local.bring_up(say)
        gcs = ports.remembered(state_folder())["ray.gcs"]
        token = Path(surroundings.env["RAY_AUTH_TOKEN_PATH"]).read_text()
        yield surroundings.env | INLINE | {"RAY_ADDRESS": f"127.0.0.2:{gcs}", "RAY_AUTH_TOKEN": token}
    finally:
        local.take_down(say)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("META_STATE")
        os.environ.update({name: value for name, value in outer.items() if value is not None})


def measure(steps: int, into: str) -> dict[str, Any]:
    """Medians in ms of `steps` outer steps, in two turns each, without and with tracking and checkpoints."""
    from cluster.pool import RayPool  # Ray reads how to authenticate when it is imported
    from cluster.worker import TaskWorker

    folder = Path(into)

    class TimedWorker(TaskWorker):
        """Writes down when it computed."""

        def meta_gradient(self, theta: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, float]:
            with self._timed():
                return super().meta_gradient(theta, seeds)

        def prepare(self, seeds: Sequence[int]) -> None:
            with self._timed():
                super().prepare(seeds)

        @contextmanager
        def _timed(self) -> Iterator[None]:
            start = time.monotonic()
            yield
            with (folder / f"{os.getpid()}.spans").open("a") as out:
                print(json.dumps(Span(os.getpid(), start, time.monotonic())), file=out)

    class TimedPool(RayPool):
        worker = TimedWorker

    job = dataclasses.replace(workloads.find(WORKLOAD), validate_every=10**9, checkpoint_every=CHECKPOINT_EVERY)
    state = job.init()._replace(iteration=1)
    pool = TimedPool(job, state.params, _say)
    found: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
    try:
        state = _train(job, pool, state, Stamps(), 5)
        for turn in range(2):
            for tracking in ("off", "on"):
                stamps = Stamps(None)
                if tracking == "off":
                    state = _train(job, pool, state, stamps, steps // 2)
                else:
                    state = _tracked(job, pool, state, stamps, steps // 2, folder / f"spool{turn}")
                found[tracking] += steps_of(stamps.moments, _spans(folder))
    finally:
        pool.close()
    return {tracking: medians(pairs) for tracking, pairs in found.items()} | {"steps": steps}


def _train(job: JobSpec, pool: WorkerPool, state: MetaState, observer: Observer, steps: int) -> MetaState:
    """So many more outer steps, of a job that would have more."""
    left = iter(range(steps))
    return meta_train(job, pool, state, observer, lambda: next(left, None) is None)


def _tracked(job: JobSpec, pool: WorkerPool, state: MetaState, stamps: Stamps, steps: int, spool: Path) -> MetaState:
    store = open_store(os.environ["ARTIFACT_ROOT"]).under(spool.name)
    tracker = MLflowTracker.start(
        os.environ["MLFLOW_TRACKING_URI"], "benchmark", spool.name, run_id=None, spool=spool, tags={}, say=_say
    )
    with Journal(job, store, tracker, Checkpoints(store), lambda kind, fields: None) as journal:
        stamps.inner = journal
        stamps.moments = [time.monotonic()]
        state = _train(job, pool, state, stamps, steps)
    tracker.end("FINISHED")
    return state


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _spans(folder: Path) -> list[Span]:
    return [Span(*json.loads(line)) for file in folder.glob("*.spans") for line in file.read_text().splitlines()]


def steps_of(moments: Sequence[float], spans: Sequence[Span]) -> list[tuple[float, float]]:
    """(wall, computed by the busiest worker) of each step, in ms; the first step of a turn is left out."""
    found = []
    for start, end in list(pairwise(moments))[1:]:
        busy: dict[int, float] = {}
        for span in spans:
            if start <= span.start < end:
                busy[span.worker] = busy.get(span.worker, 0.0) + span.end - span.start
        found.append((1000 * (end - start), 1000 * max(busy.values())))
    return found


def medians(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    return {
        "step_ms": median(wall for wall, _ in pairs),
        "computing_ms": median(computing for _, computing in pairs),
        "overhead": median((wall - computing) / wall for wall, computing in pairs),
    }
