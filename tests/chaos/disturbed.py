"""A run that faults are done to, with its drivers, what it says and what it leaves."""

import json
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch

from meta_service.checkpoint import Checkpoints
from meta_service.job import JobSpec
from meta_service.pool import LocalPool
from meta_service.tracking import OF_OUTER_STEPS
from tests.chaos.checker import violations
from tests.chaos.lines import Lines
from tests.chaos.planted import BUG, FAULTS
from tests.chaos.scene import Scene, environment

WORKERS = (1, 2, 3, 5, 8)
FRUITLESS = 5  # so many drivers in a row that make no step are too many
PATIENCE_S = 240.0  # for one step, whatever was done to the run


class Failure(AssertionError):
    """A run did not keep the promise; with what is needed to see why."""


class Disturbed:
    """One run with its drivers, one after the other, until it has reached its end."""

    def __init__(
        self, scene: Scene, job: JobSpec, rng: random.Random, bug: str = "", workers: Sequence[int] = WORKERS
    ) -> None:
        """rng: draws the numbers of workers, from `workers`. bug: planted in every driver."""
        self.scene, self.job, self.rng, self.workers = scene, job, rng, workers
        self.name = f"{job.name}-{os.urandom(4).hex()}"
        self.folder = scene.folder / self.name
        (self.folder / "faults").mkdir(parents=True)
        self.events: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        """Those of the events that are outer steps made."""
        self.output: list[str] = []
        self.launches: list[int] = []
        """The number of workers of each driver so far."""
        self.finished = False
        self.pid = 0
        self.next_env: dict[str, str] = {}
        """More environment, for the next driver only."""
        self._env = {FAULTS: str(self.folder / "faults")} | ({BUG: bug} if bug else {})
        self._fruitless = 0
        self._timers: list[threading.Timer] = []
        self._history = Lines(self.folder / "history", self._take)
        self._output = Lines(self.folder / "output", self.output.append)
        scene.runs().create(self.name, job)

    # driving

    def launch(self) -> None:
        """Starts a driver, with another number of workers than the one before it."""
        workers = self.rng.choice([n for n in self.workers if [n] != self.launches[-1:]] or self.workers)
        self.launches.append(workers)
        self.steps_at_launch = len(self.steps)
        self.output.append(f"-- driver {len(self.launches)}, {workers} workers")
        env = self._env | {"META_HISTORY": str(self._history.path)} | self.next_env
        self.next_env = {}
        arguments = ["drive", self.name, f"resources.workers={workers}"]
        self.pid = self.scene.zygote.start(arguments, env, self._output.path)

    def alive(self) -> bool:
        """Whether there is a driver at work; notes how the last one ended."""
        if not self.pid:
            return False
        code = self.scene.zygote.code(self.pid)
        if code is None:
            return True
        self.output.append(f"-- driver {len(self.launches)} ended: {code}")
        self.finished, self.pid = self.finished or code == 0, 0
        self._fruitless = 0 if len(self.steps) > self.steps_at_launch else self._fruitless + 1
        return False

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits, starting a driver whenever there is none; False where the run came to its end first."""
        deadline, steps = time.monotonic() + PATIENCE_S, len(self.steps)
        while not condition():
            if not self.alive():
                if self.finished:
                    return condition()
                if self._fruitless >= FRUITLESS:
                    raise self.failure(f"{FRUITLESS} drivers in a row made no step")
                self.launch()
            if steps != (steps := len(self.steps)):
                deadline = time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                raise self.failure(f"nothing happened for {PATIENCE_S:g} s")
            time.sleep(0.004)
        return True

    def until_step(self, step: int) -> bool:
        return self.until(lambda: self.step >= step)

    def until_end(self) -> None:
        self.until(lambda: False)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Does something in a while, however the run goes."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def close(self) -> None:
        """Ends what still runs."""
        for timer in self._timers:
            timer.join()
        if self.alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._history.close()
        self._output.close()

    # what is seen

    @property
    def step(self) -> int:
        """The last outer step that was made."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    def stall_s(self, since: float) -> float:
        """How much longer than a step usually takes it is since then."""
        times = [event["time"] for event in self.steps]
        usual = statistics.median([later - first for first, later in pairwise(times)] or [0.0])
        return max(0.0, time.time() - since - usual)

    # afterwards

    def check(self, stopped: bool = False) -> None:
        """Raises Failure unless the run, at its end or `stopped`, kept the promise."""
        wrong = violations(self.events)
        expected = self.step if stopped else self.job.iterations
        final = Checkpoints(self.scene.runs().store(self.name)).latest()
        if final is None or final.iteration != expected:
            wrong.append(f"the last checkpoint is of step {final and final.iteration}, the run came to {expected}")
        elif final.sha256() != (digest := undisturbed(self.job, expected, self.scene.folder)):
            wrong.append(f"the run came to {final.sha256()[:12]} at step {expected}, undisturbed to {digest[:12]}")
        wrong += self.wrong_points()
        if wrong:
            raise self.failure("; ".join(wrong[:10]))

    def wrong_points(self) -> list[str]:
        """What is not in MLflow as the spool has it: each point once, with its own time, and no step twice."""
        spool = self.scene.spool(self.name)
        written: dict[str, list[tuple[int, int, float]]] = {}
        for line in spool.read_text().splitlines():
            entry = json.loads(line)
            for key, value in entry["values"].items() if entry["kind"] == "metrics" else ():
                written.setdefault(key, []).append((entry["step"], entry["time"], value))
        status = self.scene.runs().status(self.name)
        wrong = []
        for key, points in written.items():
            kept = sorted(self._kept(str(status.mlflow_run_id), key))
            if kept != sorted(points):
                wrong.append(f"MLflow has {len(kept)} points of {key}, the run made {len(points)}")
            if key.startswith(OF_OUTER_STEPS) and len({step for step, *_ in kept}) != len(kept):
                wrong.append(f"MLflow has {key} of a step twice")
        return wrong if written else ["the run wrote no metrics"]

    def _kept(self, run_id: str, key: str) -> Iterator[tuple[int, int, float]]:
        uri = self.scene.surroundings.mlflow
        with urlopen(f"{uri}/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key={key}") as answer:
            for metric in json.load(answer).get("metrics", []):
                yield int(metric["step"]), int(metric["timestamp"]), float(metric["value"])

    def failure(self, what: str) -> Failure:
        """With the last of the output; the whole history is kept in a file."""
        kept = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        (kept / "history").write_text("".join(json.dumps(event) + "\n" for event in self.events))
        (kept / "output").write_text("\n".join(self.output))
        said = "\n".join(line[:300] for line in self.output[-40:])
        return Failure(f"{self.name}, workers {self.launches}: {what}; history and output are in {kept}\n{said}")

    def _take(self, line: str) -> None:
        event = json.loads(line)
        self.events.append(event)
        if event["kind"] == "updated":
            self.steps.append(event)


def undisturbed(job: JobSpec, step: int, folder: Path) -> str:
    """The digest after that step, computed in this process, where nothing happens."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with environment({"DATA_CACHE": str(folder / "cache")}):
            job.prepare()
            pool, state = LocalPool.of(job), job.init()
            while state.iteration < step:  # without looks at validation tasks, which must not matter
                blocks = job.blocks("train", state.iteration, job.meta_batch_size)
                state, _ = job.outer.step(state, pool.objective(blocks))
            return state.sha256()
    finally:
        torch.set_num_threads(threads)
