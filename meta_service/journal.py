"""What a run leaves behind while it trains: metrics, checkpoints, its history and its progress line."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from meta_service.artifacts import ArtifactStore, MissingArtifact, StorageError
from meta_service.checkpoint import Checkpoints
from meta_service.evaluation import AdaptationCurve
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
    """Observes `meta_train`, and never makes it wait for the network: stores are written from a thread of its own."""

    def __init__(
        self, job: JobSpec, store: ArtifactStore, tracker: Tracker, checkpoints: Checkpoints, emit: Emit
    ) -> None:
        self.job, self.store, self.tracker, self.checkpoints, self.emit = job, store, tracker, checkpoints, emit
        self.history, self.losses = _read_history(store)
        self.state: MetaState | None = None
        """After the last outer step; None before the first."""
        self._window: list[float] = []
        self._speed = _Speed(job)
        self._progress, self._status = Throttle(PROGRESS_S), Throttle(STATUS_S)
        self._writer = ThreadPoolExecutor(1, "journal")

    @property
    def best(self) -> AdaptationCurve | None:
        """The best look at the validation tasks so far."""
        best = None
        for _, curve in self.history:
            if best is None or curve.better_than(best.after):
                best = curve
        return best

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
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
                },
                state.iteration,
            )
        if state.iteration % self.job.checkpoint_every == 0:
            self.checkpoints.save_async(state, {"train/loss": mean.loss})
        if self._progress.due():
            self.emit("progress", self._line(state, mean.loss))
        if self._status.due():
            self.status("RUNNING", state.iteration)

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None:
        best = self.best
        # a resumed run looks at the same tasks with the same theta again
        self.history = [point for point in self.history if point[0] < state.iteration] + [(state.iteration, curve)]
        points = {f"validation/step{k}/{curve.metric}": value for k, value in enumerate(curve.mean)}
        self.tracker.metrics(points | {f"validation/ci95/{curve.metric}": curve.ci95[-1]}, state.iteration)
        if best is None or curve.better_than(best.after):
            self.checkpoints.save_async(state, points, best=True)
        self._write("history.json", json.dumps({"validation": self.history, "losses": self.losses}).encode())
        self.status("RUNNING", state.iteration)
        self._speed.pause()

    def status(self, state: str, iteration: int) -> None:
        """Says where the run is, for `make status`."""
        last = self.history[-1][1] if self.history else None
        self._write(NAME, status_of(self.job, state, iteration, last, self.tracker).to_bytes())

    def close(self) -> None:
        """Waits until what was said is written."""
        self._writer.shutdown(wait=True)

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

    def _write(self, name: str, data: bytes) -> None:
        self._writer.submit(_quietly, lambda: self.store.write(name, data))


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


def _read_history(
    store: ArtifactStore,
) -> tuple[list[tuple[int, AdaptationCurve]], list[tuple[int, float]]]:
    """What an earlier part of the run has seen: [(iteration, validation curve)], [(iteration, mean loss)]."""
    try:
        kept = json.loads(store.read("history.json"))
    except MissingArtifact:
        return [], []
    curves = [(int(i), AdaptationCurve(m, tuple(mean), tuple(ci95), c)) for i, (m, mean, ci95, c) in kept["validation"]]
    return curves, [(int(iteration), float(loss)) for iteration, loss in kept["losses"]]


def _quietly(write: Callable[[], None]) -> None:
    with suppress(StorageError):  # it is for people; what must not be lost is in the checkpoints, which do report
        write()
