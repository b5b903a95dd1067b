"""The harness finds bugs: each of these was put into a driver on purpose, and is seen in what a real run leaves."""

import os
import random
import re
import signal
from collections.abc import Iterator

import pytest

from tests.chaos.checker import violations
from tests.chaos.disturbed import Disturbed
from tests.chaos.faults import FAULTS
from tests.chaos.kinds import job_of
from tests.chaos.planted import WRONG_STEP
from tests.chaos.scene import Scene

ENOUGH = 16  # steps


@pytest.fixture
def run(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Disturbed]:
    job = job_of("sinusoid", 4_000, scene.folder / "images")
    found = Disturbed(scene, job, random.Random(0), bug=request.param, workers=(1,))
    yield found
    found.close()


def said(run: Disturbed) -> str:
    return "\n".join(violations(run.events))


@pytest.mark.parametrize("run", ["counts_a_block_twice"], indirect=True)
def test_a_block_that_counts_twice_is_seen(run: Disturbed) -> None:
    run.until_step(ENOUGH)
    assert re.search(rf"step {WRONG_STEP} has blocks \[0\] in round \d+, of 6", said(run)), said(run)


@pytest.mark.parametrize("run", ["takes_answers_of_an_older_theta"], indirect=True)
def test_answers_of_an_older_theta_are_seen(run: Disturbed) -> None:
    run.until_step(ENOUGH)
    assert re.search(rf"step {WRONG_STEP} takes block \d for theta \w+, the state before has \w+", said(run)), said(run)


@pytest.mark.parametrize("run", ["resumes_from_an_older_checkpoint"], indirect=True)
def test_a_driver_that_resumes_from_an_older_checkpoint_is_seen(run: Disturbed) -> None:
    run.until(lambda: sum(event["kind"] == "committed" for event in run.events) > 3)
    os.kill(run.pid, signal.SIGKILL)
    run.until(lambda: sum(event["kind"] == "resumed" for event in run.events) > 1)
    assert re.search(r"is resumed from, although there is a checkpoint of step \d+", said(run)), said(run)


@pytest.mark.parametrize("run", ["acknowledges_before_it_delivers"], indirect=True)
def test_metrics_that_are_acknowledged_before_they_are_delivered_are_seen(run: Disturbed) -> None:
    run.until_step(ENOUGH)
    FAULTS["MLflow down"].act(run, run.rng)
    step = run.step
    run.until(lambda: run.step > step + 50 and run.scene.mlflow.mode == "fine")
    os.kill(run.pid, signal.SIGTERM)
    run.until(lambda: not run.alive())
    assert any(re.search(r"MLflow has \d+ points of train/loss, the run made \d+", text) for text in run.wrong_points())
