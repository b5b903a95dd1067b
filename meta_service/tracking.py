"""What a run reports about itself: parameters, metrics and files; to MLflow behind a local spool, or to memory."""

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from meta_service.delivery import Delivery
from meta_service.spool import Spool

State = Literal["FINISHED", "FAILED", "KILLED"]
Say = Callable[[str], None]
_LOG = logging.getLogger(__name__)

POINTS_PER_KEY = 1_000
TRAINING_VIEW = "?workflowType=machine_learning"  # the pages open on traces of language models otherwise
OF_OUTER_STEPS = ("train/", "validation/")  # a resumed run makes steps again, to the same numbers
INTERVAL_S = 1.0  # between two deliveries: one request costs the server 20 to 30 ms
LONGEST_PAUSE_S = 30.0
END_S = 20.0  # how long `end` delivers
END_SLOW_S = 120.0  # how long it goes on after that, where the server takes what it is given
END_KILLED_S = 2.0  # the same where somebody waits for the process to go


def should_log(iteration: int, iterations: int) -> bool:
    """Whether metrics of outer step `iteration` (1 ... `iterations`) are kept: at most 1,001, evenly, and the last."""
    return iteration == iterations or iteration % max(1, math.ceil(iterations / POINTS_PER_KEY)) == 0


def address_of(uri: str, facts: Mapping[str, str]) -> str:
    """Where a person looks at the run of a spool with these facts; "" where it was not made yet."""
    if "run_id" not in facts:
        return ""
    return f"{uri}/#/experiments/{facts['experiment_id']}/runs/{facts['run_id']}{TRAINING_VIEW}"


class Tracker(Protocol):
    """Where a run reports to. No call waits for a network but `end`, and that for a bounded time."""

    @property
    def run_id(self) -> str | None:
        """None until the run exists."""

    @property
    def address(self) -> str:
        """Where a person looks at the run; "" until it exists."""

    def params(self, values: Mapping[str, Any]) -> None:
        """What the run is: cannot be changed later."""

    def tags(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """One point for each key, at this moment."""

    def artifact(self, name: str, data: bytes) -> None:
        """A file; `name` may contain folders."""

    def end(self, state: State) -> None: ...


class Point(NamedTuple):
    key: str
    value: float
    step: int


class MemoryTracker:
    """Keeps everything: for tests, and for runs nobody looks at."""

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.address = ""
        self.kept_params: dict[str, Any] = {}
        self.kept_tags: dict[str, Any] = {}
        self.points: list[Point] = []
        self.artifacts: dict[str, bytes] = {}
        self.state: State | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        self.kept_params |= values

    def tags(self, values: Mapping[str, Any]) -> None:
        self.kept_tags |= values

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.points += [Point(key, value, step) for key, value in values.items()]

    def artifact(self, name: str, data: bytes) -> None:
        self.artifacts[name] = data

    def end(self, state: State) -> None:
        self.state = state


class MLflowTracker:
    """Reports to an MLflow server: every call appends to a file, from which a thread delivers.

    What a dead server does not take stays in the spool. A spool belongs to one run: opened again it goes on with it.
    """

    def __init__(self, uri: str, spool: Path, say: Say = _LOG.warning, run_id: str | None = None) -> None:
        """Use `start`."""
        self._given = run_id
        self.uri, self._spool, self._say = uri.rstrip("/"), Spool(spool), say
        self._delivery = Delivery(self.uri, self._spool, say)
        self._known = {
            (key, entry["step"])
            for entry in self._spool.entries()
            if entry["kind"] == "metrics"
            for key in entry["values"]
        }
        self._full = False
        self._closing, self._stop = threading.Event(), threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._deliver, name="mlflow", daemon=True)
        self._thread.start()

    @staticmethod
    def start(
        uri: str,
        experiment: str,
        run_name: str,
        run_id: str | None,
        spool: Path,
        tags: Mapping[str, Any],
        say: Say = _LOG.warning,
    ) -> "MLflowTracker":
        """A run of this name in this experiment, or the run `run_id` continued; returns at once, server or not."""
        tracker = MLflowTracker(uri, spool, say, run_id)
        tracker._put("start", experiment=experiment, run_name=run_name, run_id=run_id, key=uuid.uuid4().hex)
        tracker.tags(tags)
        return tracker

    @property
    def run_id(self) -> str | None:
        return self._spool.facts.get("run_id") or self._given  # which may not be asked for yet: another node's spool

    @property
    def address(self) -> str:
        return address_of(self.uri, self._spool.facts)

    def params(self, values: Mapping[str, Any]) -> None:
        self._put("params", values={name: str(value) for name, value in values.items()})

    def tags(self, values: Mapping[str, Any]) -> None:
        self._put("tags", values={name: str(value) for name, value in values.items()})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """One point for each key, unless an earlier driver of the run came to this step and it is said already."""
        new = {
            name: float(value)
            for name, value in values.items()
            if not (name.startswith(OF_OUTER_STEPS) and (name, step) in self._known)
        }
        if new:
            self._put("metrics", values=new, step=step)

    def artifact(self, name: str, data: bytes) -> None:
        try:
            self._put("artifact", name=name, file=str(self._spool.keep_file(name, data)))
        except OSError as error:
            self._say(f"{name} does not go to MLflow, for it cannot be kept in {self._spool.path}: {error.strerror}")

    def end(self, state: State) -> None:
        """Delivers what is left, for a bounded time, and says what could not be delivered. Once is enough."""
        if self._closing.is_set():  # or left
            return
        self._put("end", state=state)
        self._closing.set()
        self._thread.join(END_KILLED_S if state == "KILLED" else END_S)
        deadline = time.monotonic() + END_SLOW_S
        while state != "KILLED" and self._thread.is_alive() and not self._failing and time.monotonic() < deadline:
            self._thread.join(0.1)
        self._stop.set()
        left = [entry for entry, _ in self._spool.unsent()]
        if left:
            points = sum(len(entry["values"]) for entry in left if entry["kind"] == "metrics")
            self._say(f"MLflow at {self.uri}: {points} points are not delivered; they are kept in {self._spool.path}")
        self._spool.close()

    def leave(self) -> None:
        """Reports no more, and nothing of how the run ended: another driver goes on with it."""
        self._closing.set()
        self._stop.set()
        self._thread.join(END_KILLED_S)
        self._spool.close()

    def _put(self, kind: str, **fields: Any) -> None:
        self._spool.append({"kind": kind, "time": int(time.time() * 1000)} | fields)
        trouble = self._spool.trouble
        if trouble and not self._full:
            self._say(
                f"{self._spool.path} takes nothing ({trouble.strerror}), training goes on and metrics wait in memory; "
                "make room there"
            )
        self._full = trouble is not None

    def _deliver(self) -> None:
        """The thread: delivers now and then, after failures with growing pauses, until `end` and nothing is left."""
        failures = 0
        while not self._stop.is_set():
            closing = self._closing.is_set()  # asked before delivering: nothing is appended after it is set
            error = self._delivery.attempt()
            self._failing = error is not None
            if error and not failures:
                self._say(f"MLflow at {self.uri} takes nothing; it is kept in {self._spool.path} meanwhile: {error}")
            if failures and not error:
                self._say(f"MLflow at {self.uri} takes points again")
            failures = failures + 1 if error else 0
            if closing and not error:
                return
            pause = min(INTERVAL_S * 2**failures, LONGEST_PAUSE_S)
            if closing:
                self._stop.wait(INTERVAL_S)
            else:
                self._closing.wait(pause)
