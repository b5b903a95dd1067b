"""Many faults in few runs: which, when and in which run follows from a seed."""

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.chaos.disturbed import Disturbed
from tests.chaos.faults import FAULTS
from tests.chaos.kinds import job_of
from tests.chaos.scene import Scene

GAP = {"sinusoid": 16, "images": 5, "omniglot": 5, "navigation": 6}
"""Outer steps between two faults: half a second to a second."""
WRITES = ("/parts/", "/manifests/", "/LATEST")
PHASES = ("step", "checkpoint", "evaluation", "start")


class Planned(NamedTuple):
    """A fault that is to come."""

    fault: str
    step: int
    """The outer step after which it comes,"""
    phase: str
    """and when then: in a `step`, while a `checkpoint` is written, in an `evaluation`, or at the `start` of the next
    driver, before its first step."""
    delay_s: float


class Outcome(NamedTuple):
    """A fault that has come."""

    kind: str
    fault: str
    phase: str
    step: int
    stall_s: float
    """How much later than usual the next step was made."""
    resumed: bool
    """Whether another driver had to go on."""


def plan(kind: str, faults: Sequence[str], rng: random.Random) -> list[Planned]:
    """One after the other."""
    return [
        Planned(
            fault,
            GAP[kind] * (number + 1),
            rng.choice(PHASES) if fault == "driver SIGKILL" else "step",
            rng.uniform(0.0, 0.2),
        )
        for number, fault in enumerate(faults)
    ]


def carry_out(
    scene: Scene,
    kind: str,
    faults: Sequence[str],
    rng: random.Random,
    tell: Callable[[Outcome], None] = lambda outcome: None,
    bug: str = "",
) -> list[Outcome]:
    """A run of that kind with those faults, checked at its end; Failure if it did not keep the promise."""
    job = job_of(kind, GAP[kind] * (len(faults) + 1), scene.folder / "images")
    run = Disturbed(scene, job, rng, bug)
    outcomes = []
    try:
        for planned in plan(kind, faults, rng):
            if not run.until_step(planned.step) or not _wait(run, planned):
                break
            fault, step, since, drivers = FAULTS[planned.fault], run.step, time.time(), len(run.launches)
            run.output.append(f"-- {planned.fault} ({planned.phase}) after step {step}")
            fault.act(run, rng)
            if fault.ends:
                run.until(lambda drivers=drivers: len(run.launches) > drivers)
            made = len(run.steps)
            run.until(lambda made=made: len(run.steps) > made)
            resumed = len(run.launches) > drivers
            if resumed and not (fault.ends or fault.may_end):
                raise run.failure(f"{planned.fault} ended the driver")
            outcomes.append(Outcome(kind, planned.fault, planned.phase, step, run.stall_s(since), resumed))
            tell(outcomes[-1])
        run.until_end()
        run.check()
    finally:
        run.close()
    return outcomes


def _wait(run: Disturbed, planned: Planned) -> bool:
    """Until the moment has come; False where the run was at its end before."""
    if planned.phase == "checkpoint":
        seen = run.scene.s3.puts
        return run.until(lambda: run.scene.s3.puts > seen)
    if planned.phase == "evaluation":
        seen = len(run.events)
        return run.until(lambda: any(e["kind"] == "issued" and e["step"] is None for e in run.events[seen:]))
    if planned.phase == "start":
        FAULTS["driver SIGKILL"].act(run, run.rng)
        drivers = len(run.launches)
        if not run.until(lambda: len(run.launches) > drivers):
            return False
        time.sleep(20 * planned.delay_s)
        return run.until(run.alive)
    time.sleep(planned.delay_s)
    return run.until(run.alive)
