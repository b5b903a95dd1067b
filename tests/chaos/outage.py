"""MLflow is away for a while in the middle of a run: what that costs a step, and whether a point is lost."""

import os
import random
import signal
import time
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from tests.chaos.disturbed import Disturbed
from tests.chaos.kinds import job_of
from tests.chaos.scene import Scene


class Outage(NamedTuple):
    """Times in ms."""

    step_before: float
    step_without: float
    """While MLflow was away."""
    step_after: float
    steps: int
    """That were made meanwhile."""

    @property
    def cost(self) -> float:
        """How much longer a step took, as a part of the time of the steps around it."""
        return self.step_without / ((self.step_before + self.step_after) / 2) - 1


def outage(scene: Scene, seconds: float) -> Outage:
    """A run in which MLflow is away for that long, stopped some time later; Failure if it lost anything."""
    job = job_of("sinusoid", 20_000, scene.folder / "images")
    run = Disturbed(scene, job, random.Random(0), workers=(2,))
    try:
        run.until_step(100)  # all workers are there
        around = min(seconds / 2, 20.0)
        started = time.time()
        run.until(lambda: time.time() > started + around)
        scene.mlflow.set("down")
        left = time.time()
        run.until(lambda: time.time() > left + seconds)
        scene.mlflow.set("fine")
        back = time.time()
        run.until(lambda: time.time() > back + around)
        ended = time.time()
        os.kill(run.pid, signal.SIGTERM)
        while run.alive():
            time.sleep(0.1)
        run.check(stopped=True)
    finally:
        scene.mlflow.set("fine")
        run.close()
    times = [event["time"] for event in run.steps]

    def step(since: float, until: float) -> float:
        return 1000 * median(later - first for first, later in pairwise(t for t in times if since < t < until))

    made = sum(left < t < back for t in times)
    return Outage(step(started, left), step(left, back), step(back, ended), made)
