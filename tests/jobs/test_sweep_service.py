"""Sweeps as a user meets them: killed, resumed, side by side, shown in MLflow, and their best setting trained."""

import json
import os
import random
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

import jobs
from cluster.local import Surroundings
from cluster.runs import Runs
from cluster.submit import Jobs
from jobs.__main__ import program
from meta_service.artifacts import open_store
from meta_service.sweep.ledger import Ledger, Trial
from meta_service.sweep.settings import sweep_of
from tests.jobs.test_service import make, mlflow_run
from tests.meta_service.sweep.tiny import FIELDS, JOB, serially

pytestmark = pytest.mark.timeout(600)  # processes start slowly on a loaded machine
PATIENCE_S = 200.0
SHORT = [*FIELDS, "tune.iterations=36", "tune.grace=4", "tune.concurrent=2"]
KILLED = [*SHORT, "tune.trials=5", "tune.workers=0"]
BESIDE = [*SHORT, "tune.trials=3", "tune.seed=1", "tune.cpus_per_driver=0.25", "resources.cpus_per_worker=0.5"]


class Seen(NamedTuple):
    """What became of two sweeps that ran side by side, the first of which was killed three times and stopped once."""

    killed: str
    beside: str
    stop: str
    """What `stop` said."""
    refusal: str
    """What `from_sweep` said while it was not finished."""
    output: str
    """Of its last driver."""


@pytest.fixture(scope="module")
def service(surroundings: Surroundings, session_environment: pytest.MonkeyPatch) -> Surroundings:
    for name, value in surroundings.env.items():
        session_environment.setenv(name, value)
    return surroundings


@pytest.fixture(scope="module")
def seen(service: Surroundings) -> Seen:
    killed = started("sweep", "sinusoid", *KILLED, "--detach")
    beside = started("sweep", "sinusoid", *BESIDE, "--detach")
    ray, ledger = Jobs(service), Ledger(open_store(service.artifacts).under(killed))
    chance, stop, refusal = random.Random(), "", ""
    for nth in range(4):
        progress = looks(ledger) + chance.randrange(4) + (nth == 1)  # a driver that only starts has nothing to save
        wait_until(lambda progress=progress: looks(ledger) >= progress and any(processes(killed)), killed)  # type: ignore[misc]
        time.sleep(2 * chance.random())
        if nth == 1:
            stop = told("stop", killed)
            refusal = told("submit", "sinusoid", f"from_sweep={killed}", "--dry-run", code=2)
        else:
            for pid in processes(killed):
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not ray.active(killed), killed)
            assert "LOST" in told("status", killed)
        told("resume", killed, "--detach")
    output = make("logs", killed)
    wait_until(lambda: not ray.active(beside), beside)
    return Seen(killed, beside, stop, refusal, output)


def told(*arguments: str, code: int = 0) -> str:
    """The output of a command; in this process, where torch is loaded already."""
    done = CliRunner().invoke(program, list(arguments))
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output, done.output
    return done.output


def started(*arguments: str) -> str:
    found = re.search(r"^(sinusoid-sweep-\d{4}-\d{6}-[0-9a-f]{4})$", told(*arguments), re.M)
    assert found
    return found[1]


def processes(run: str) -> Iterator[int]:
    """The processes of a run's driver."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if words[1:5] == [b"-m", b"jobs", b"drive", run.encode()]:
            yield int(folder.name)


def looks(ledger: Ledger) -> int:
    """How often validation tasks were looked at, in all trials."""
    return sum(len(trial.looks) for trial in ledger.trials())


def wait_until(condition: Callable[[], bool], run: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, make("logs", run)
        time.sleep(0.2)


def trials_of(service: Surroundings, run: str) -> list[Trial]:
    return Ledger(Runs(open_store(service.artifacts)).store(run)).trials()


def nested_runs(service: Surroundings, parent: str) -> list[dict[str, Any]]:
    """The MLflow runs below this one."""
    address = f"{service.mlflow}/api/2.0/mlflow"
    with urllib.request.urlopen(f"{address}/runs/get?run_id={parent}") as answer:
        experiment = json.load(answer)["run"]["info"]["experiment_id"]
    wanted = {"experiment_ids": [experiment], "filter": f"tags.`mlflow.parentRunId` = '{parent}'", "max_results": 100}
    request = urllib.request.Request(
        f"{address}/runs/search", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        found: list[dict[str, Any]] = json.load(answer).get("runs", [])
    return found


def assert_as_undisturbed(trials: list[Trial], assignments: list[str], folder: Path) -> None:
    """The trials are those of a loop in this process that nothing disturbed."""
    _, space, tune = jobs.find_sweep("sinusoid")
    wanted = sweep_of(jobs.find("sinusoid"), space, tune, assignments)
    undisturbed = serially(wanted, open_store(str(folder / "store")), folder)
    assert [trial._replace(tracking="") for trial in trials] == undisturbed


def test_a_sweep_killed_three_times_has_the_asked_trials_each_ended_once_and_the_same_best(
    seen: Seen, service: Surroundings, tmp_path: Path
) -> None:
    trials = trials_of(service, seen.killed)
    assert_as_undisturbed(trials, KILLED, tmp_path)
    results = json.loads(open_store(service.artifacts).under(seen.killed).read("report/results.json"))
    assert [trial["number"] for trial in results["trials"]] == list(range(5))
    assert f"best: trial {results['best']}" in seen.output


def test_stop_saves_and_says_how_many_trials_are_over(seen: Seen) -> None:
    assert re.search(r"STOPPED at \d of 5 trials; make resume RUN=", seen.stop)


def test_a_sweep_beside_it_is_not_disturbed(seen: Seen, service: Surroundings, tmp_path: Path) -> None:
    assert_as_undisturbed(trials_of(service, seen.beside), BESIDE, tmp_path)
    assert "FINISHED" in told("status", seen.beside)


def test_every_trial_is_one_mlflow_run_below_the_sweep_s(seen: Seen, service: Surroundings) -> None:
    for run, count in ((seen.killed, 5), (seen.beside, 3)):
        parent = Runs(open_store(service.artifacts)).mlflow_run_id(run)
        assert parent is not None
        below = nested_runs(service, parent)
        tags = [{tag["key"]: tag["value"] for tag in found["data"]["tags"]} for found in below]
        assert sorted(int(tag["meta.trial"]) for tag in tags) == list(range(count))
        states = {int(tag["meta.trial"]): tag["meta.state"] for tag in tags}
        assert states == {trial.number: trial.state for trial in trials_of(service, run)}
        for found in below:
            params = {item["key"]: item["value"] for item in found["data"]["params"]}
            metrics = {item["key"] for item in found["data"]["metrics"]}
            assert "algorithm.inner_lr" in params
            assert {"train/loss", "validation/step1/mse", "trial/value"} <= metrics


def test_the_sweep_s_mlflow_run_has_the_space_the_best_setting_and_the_pictures(
    seen: Seen, service: Surroundings
) -> None:
    kept = mlflow_run(service, seen.output)
    params = {item["key"]: item["value"] for item in kept["data"]["params"]}
    assert params["space.algorithm.inner_lr"] == "loguniform(0.001, 0.3)"
    assert "best.algorithm.inner_lr" in params
    assert kept["info"]["status"] == "FINISHED"
    with urllib.request.urlopen(
        f"{service.mlflow}/api/2.0/mlflow/artifacts/list?run_id={kept['info']['run_id']}&path=report"
    ) as answer:
        files = {Path(file["path"]).name for file in json.load(answer)["files"]}
    assert {"parallel.png", "heatmap.png", "trials.png", "importance.png", "report.md", "results.json"} <= files


def test_tune_s_own_state_is_in_the_bucket(seen: Seen, service: Surroundings) -> None:
    names = open_store(service.artifacts).under(f"{seen.beside}/tune").list("")
    assert any("experiment_state" in name for name in names)
    assert {f"{seen.beside}-from-0000/trial-{number:04d}/result.json" for number in range(3)} <= set(names)


def test_the_best_setting_is_trained_by_from_sweep(seen: Seen, service: Surroundings) -> None:
    results = json.loads(open_store(service.artifacts).under(seen.killed).read("report/results.json"))
    output = told("submit", "sinusoid", f"from_sweep={seen.killed}", "iterations=30", "--dry-run")
    for name, value in results["setting"].items():
        assert re.search(rf"{name} +{re.escape(str(value))}\b", output), output
    assert re.search(r"iterations +30\b", output)
    assert re.search(r"meta_batch_size +4\b", output)  # the sweep's own


def test_from_sweep_refuses_what_is_unfinished_of_another_job_no_sweep_or_unknown(
    seen: Seen, service: Surroundings
) -> None:
    assert "a finished sweep is expected" in seen.refusal
    refusals = {
        ("omniglot_mlp", seen.killed): "a sweep of omniglot_mlp is expected, this one is of sinusoid",
        ("sinusoid", "sinusoid-nowhere"): "there is no run 'sinusoid-nowhere'",
    }
    for (job, run), message in refusals.items():
        assert message in told("submit", job, f"from_sweep={run}", "--dry-run", code=2)


def test_commands_for_runs_say_what_a_finished_sweep_is(seen: Seen, service: Surroundings) -> None:
    assert "is finished; its report is in" in told("resume", seen.killed, code=2)
    assert "is a sweep" in told("evaluate", seen.killed, code=2)
    assert re.search(rf"{seen.killed} +FINISHED +5/5 trials", told("status"))


def test_a_sweep_that_can_never_be_placed_is_refused_at_once_in_one_line(service: Surroundings) -> None:
    output = make("sweep", "sinusoid", *SHORT, "tune.workers=500", code=1)
    assert "a trial needs 1 x (0.5 CPU) + 500 x (1 CPU)" in output
    assert JOB.name in output
