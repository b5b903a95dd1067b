"""What a run leaves behind while it trains: metrics, checkpoints, its history and its progress line."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from meta_service.artifacts import ArtifactStore, MissingArtifact, StorageError
from meta_service.background import Background
from meta_service.checkpoint import Checkpoints
from meta_service.evaluation import AdaptationCurve, best_of
from meta_service.job import JobSpec
from meta_service.objective import MetaGradient
from meta_service.params import norm
from meta_service.progress import Emit, Throttle
from meta_service.state import MetaState
from meta_service.status import NAME, status_of
from meta_service.tracking import Tracker, should_log

PROGRESS_S = 0.5  # between two progress lines
STATUS_S = 5.0  # between two status files, which `make status` reads


class Journal:
    """Observes `meta_train`, and never makes it wait for the network: stores are written from threads of their own."""

    def __init__(
        self,
        job: JobSpec,
        store: ArtifactStore,
        tracker: Tracker,
        checkpoints: Checkpoints,
        emit: Emit,
        rescue: ArtifactStore | None = None,
    ) -> None:
        """`rescue`: where on this machine the same is kept, for the time in which `store` takes nothing."""
        self.job, self.tracker, self.checkpoints, self.emit = job, tracker, checkpoints, emit
        self._files = [_Files(place) for place in (store, rescue) if place]
        self.history, self.losses = _read_history(store, rescue)
        self.state: MetaState | None = None
        """After the last outer step; None before the first."""
        self._window: list[float] = []
        self._speed = _Speed(job)
        self._progress, self._status = Throttle(PROGRESS_S), Throttle(STATUS_S)

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        self.checkpoints.check()
        if self.state is None:  # a resumed run makes these steps again
            self.losses = [point for point in self.losses if point[0] < state.iteration]
        self.state = state
        self._window.append(mean.loss)
        self._speed.count()
        if should_log(state.iteration, self.job.iterations):
            loss = sum(self._window) / len(self._window)
            self._window.clear()
            self.losses.append((state.iteration, loss))
            self.tracker.metrics(
                {
                    "train/loss": loss,
                    "train/gradient_norm": norm(mean.grads),
                    "train/tasks_per_second": self._speed.tasks_per_second,
                }
                | {f"train/{name}": value for name, value in mean.facts.items()},
                state.iteration,
            )
        if mean.facts.get("unstable", 0) > 0:
            lost = round(mean.facts["unstable"] * self.job.meta_batch_size)
            self.emit("say", {"text": f"iteration {state.iteration:,}: {lost} simulations became unstable, left out"})
        if state.iteration % self.job.checkpoint_every == 0:
            self.checkpoints.save_async(state, {"train/loss": mean.loss})
        if self._progress.due():
            self.emit("progress", self._line(state, mean.loss))
        if self._status.due():
            self.status("RUNNING", state.iteration)

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None:
        # a resumed run looks at the same tasks with the same theta again
        self.history = [point for point in self.history if point[0] < state.iteration] + [(state.iteration, curve)]
        shown = [k for k in range(len(curve.mean)) if k in (0, 1, curve.headline)]
        points = {f"validation/step{k}/{curve.metric}": curve.mean[k] for k in shown}
        points[f"validation/ci95/{curve.metric}"] = curve.ci95[curve.headline]
        every = self.job.validate_every
        if should_log(state.iteration // every, self.job.iterations // every):
            self.tracker.metrics(points, state.iteration)
        best = best_of(self.history)
        if best and best[0] == state.iteration:
            self.checkpoints.save_async(state, points, best=True)
        self._write_history()
        self.status("RUNNING", state.iteration)
        self._speed.pause()

    def status(self, state: str, iteration: int) -> None:
        """Says where the run is, for `make status`."""
        last = self.history[-1][1] if self.history else None
        said = status_of(self.job, state, iteration, last, self.tracker)
        said = said._replace(durable=self.checkpoints.durable, local=self.checkpoints.local)
        self._write(NAME, said.to_bytes())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self, timeout: float | None = None) -> None:
        """Waits until what was said is written, or `timeout` is over."""
        self._write_history()
        for files in reversed(self._files):  # this machine's first
            files.wait(timeout)

    def _line(self, state: MetaState, loss: float) -> dict[str, Any]:
        last = self.history[-1][1] if self.history else None
        return {
            "iteration": state.iteration,
            "iterations": self.job.iterations,
            "loss": loss,
            "metric": self.job.tasks.metric_name,
            "before": last and last.before,
            "after": last and last.after,
        } | self._speed.line(state.iteration)

    def _write_history(self) -> None:
        self._write("history.json", json.dumps({"validation": self.history, "losses": self.losses}).encode())

    def _write(self, name: str, data: bytes) -> None:
        for files in self._files:
            files.write(name, data)


class _Files:
    """Small files of a store, written in the background; what it has not taken yet is replaced by the newer."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store, self._thread, self._lock = store, Background("journal"), Lock()
        self._unwritten: dict[str, bytes] = {}

    def write(self, name: str, data: bytes) -> None:
        with self._lock:
            waiting, self._unwritten[name] = name in self._unwritten, data
        if not waiting:
            self._thread.submit(partial(self._write_newest, name))

    def wait(self, timeout: float | None) -> None:
        with suppress(TimeoutError):
            self._thread.submit(lambda: None).result(timeout)

    def _write_newest(self, name: str) -> None:
        with self._lock:
            data = self._unwritten.pop(name)
        with suppress(StorageError):  # it is for people; what must not be lost is in the checkpoints, which do report
            self._store.write(name, data)


class _Speed:
    """Outer steps a second, over the last few seconds; pauses do not count."""

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self._steps_per_second = 0.0
        self._since, self._steps = time.monotonic(), 0

    @property
    def tasks_per_second(self) -> float:
        return self._steps_per_second * self.job.meta_batch_size

    def count(self) -> None:
        self._steps += 1
        elapsed = time.monotonic() - self._since
        if elapsed > 2.0 or not self._steps_per_second:
            now = self._steps / max(elapsed, 1e-9)
            self._steps_per_second = 0.7 * self._steps_per_second + 0.3 * now if self._steps_per_second else now
            self._since, self._steps = time.monotonic(), 0

    def pause(self) -> None:
        self._since, self._steps = time.monotonic(), 0

    def line(self, iteration: int) -> dict[str, float]:
        left = self.job.iterations - iteration
        return {
            "tasks_per_second": self.tasks_per_second,
            "eta_s": left / self._steps_per_second if self._steps_per_second else 0.0,
        }


def deliver_history(store: ArtifactStore, rescue: ArtifactStore) -> None:
    """Puts into a run's store what only this machine knows of its curves."""
    if _read_history(store, rescue) != _read_history(store):
        store.write("history.json", rescue.read("history.json"))


def _read_history(*stores: ArtifactStore | None) -> tuple[list[tuple[int, AdaptationCurve]], list[tuple[int, float]]]:
    """What an earlier part of the run has seen: [(iteration, validation curve)], [(iteration, mean loss)].

    Of the store that knows of the latest: the run's own may have been away.
    """
    found = [_histories(kept) for kept in _read_all(stores)]
    return max(found, key=lambda history: max((i for i, _ in (*history[0], *history[1])), default=0), default=([], []))


def _read_all(stores: Sequence[ArtifactStore | None]) -> Iterator[dict[str, Any]]:
    for store in filter(None, stores):
        with suppress(MissingArtifact):
            yield json.loads(store.read("history.json"))


def _histories(kept: dict[str, Any]) -> tuple[list[tuple[int, AdaptationCurve]], list[tuple[int, float]]]:
    curves = [
        (int(iteration), AdaptationCurve(metric, tuple(mean), tuple(ci95), conditions, int(headline)))
        for iteration, (metric, mean, ci95, conditions, headline) in kept["validation"]
    ]
    return curves, [(int(iteration), float(loss)) for iteration, loss in kept["losses"]]
