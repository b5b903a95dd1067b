"""The whole service as a user meets it: real Ray jobs, a real MLflow server, a real S3 server."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import jobs
from cluster.local import Surroundings
from jobs.__main__ import program
from meta_service.artifacts import open_store
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import override
from meta_service.driver import meta_train
from meta_service.evaluation import AdaptationCurve
from meta_service.load import load
from meta_service.objective import MetaGradient
from meta_service.params import sha256
from meta_service.pool import LocalPool
from meta_service.state import MetaState

ROOT = Path(__file__).resolve().parents[2]
SMALL_TESTS = [f"evaluations.{k}-shot.num_tasks=25" for k in (5, 10, 20)]
SHORT = ["iterations=300", "validate_every=100", "checkpoint_every=50", "validation.num_tasks=25", *SMALL_TESTS]


@pytest.fixture
def service(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    return surroundings


def make(*arguments: str, code: int = 0) -> str:
    """The output of a command, as a user would start it."""
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output, output
    return output


def run_in(output: str) -> str:
    found = re.search(r"^([a-z_]+-\d{4}-\d{6}-[0-9a-f]{4})$", output, re.M)
    assert found, output
    return found[1]


def mlflow_run(service: Surroundings, output: str) -> dict[str, Any]:
    """The MLflow run whose address a summary gives."""
    run_id = re.findall(r"/runs/([0-9a-f]{32})", output)[-1]
    with urllib.request.urlopen(f"{service.mlflow}/api/2.0/mlflow/runs/get?run_id={run_id}") as answer:
        found: dict[str, Any] = json.load(answer)["run"]
    return found


class Nobody:
    def stepped(self, state: MetaState, mean: MetaGradient) -> None: ...

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None: ...


def test_a_submitted_job_trains_tests_and_keeps_everything(service: Surroundings) -> None:
    output = make(
        "submit", "sinusoid", *SHORT, "baselines.pretrained.iterations=100", "baselines.oracle.iterations=100"
    )
    run = run_in(output)
    assert re.search(r"5-shot +\d\.\d\d ± \d\.\d\d", output)
    assert f"s3://runs/{run}" in output

    kept = mlflow_run(service, output)
    assert kept["info"]["status"] == "FINISHED"
    params = {item["key"]: item["value"] for item in kept["data"]["params"]}
    assert params["algorithm.inner_lr"] == "0.01"
    assert params["tasks.shots"] == "10"
    metrics = {item["key"] for item in kept["data"]["metrics"]}
    assert {"train/loss", "validation/step1/mse", "test/5-shot/mse"} <= metrics
    assert len(metrics) <= 40
    tags = {item["key"]: item["value"] for item in kept["data"]["tags"]}
    assert tags["meta.artifacts"] == f"s3://runs/{run}"
    assert all(tags[f"meta.{name}"] for name in ("revision", "lock_sha256", "seed"))

    store = open_store(service.artifacts).under(run)
    assert {"report/adaptation.png", "report/sinusoid.png", "report/training.png", "job.json"} <= set(store.list(""))
    state = Checkpoints(store).latest()
    assert state is not None
    assert state.iteration == 300

    x = np.linspace(-5, 5, 10, dtype=np.float32)
    predicted = load(run).adapt(x, 2 * np.sin(x), steps=5).predict(x)
    assert predicted.shape == (10,)
    before = load(run).adapt(x, 2 * np.sin(x), steps=0).predict(x)
    assert np.square(predicted - 2 * np.sin(x)).mean() < np.square(before - 2 * np.sin(x)).mean()

    listed = make("status")
    assert run in listed
    assert "FINISHED" in listed

    following = run_in(make("submit", "sinusoid", *SHORT, f"start_from={run}", "iterations=0", "resources.workers=0"))
    assert sha256(load(following).params) == sha256(load(run).params)


def test_a_run_that_was_stopped_and_resumed_ends_with_the_bits_of_an_undisturbed_one(service: Surroundings) -> None:
    settings = ["iterations=1500", "validate_every=500", "validation.num_tasks=25", *SMALL_TESTS]
    settings += ["baselines.pretrained.iterations=1", "baselines.oracle.iterations=1"]
    run = run_in(make("submit", "sinusoid", *settings, "--detach"))
    store = open_store(service.artifacts).under(run)
    deadline = time.monotonic() + 120
    while json.loads(store.read("status.json"))["iteration"] < 20:
        assert time.monotonic() < deadline, make("logs", run)
        time.sleep(0.2)
    stopped = CliRunner().invoke(program, ["stop", run])  # in this process: another would start while the run ends
    assert "STOPPED at iteration" in stopped.output, stopped.output
    followed = CliRunner().invoke(program, ["logs", run])
    assert followed.exit_code == 130, followed.output
    assert f"{run} was stopped; `make resume RUN={run}` goes on" in " ".join(followed.output.split())
    at = Checkpoints(store).latest()
    assert at is not None
    assert 0 < at.iteration < 1500

    output = make("resume", run)
    assert f"resumed at iteration {at.iteration:,} of 1,500" in output
    first, last = json.loads(store.read("status.json"))["mlflow_run_id"], mlflow_run(service, output)
    assert last["info"]["run_id"] == first

    job = override(jobs.find("sinusoid"), settings)
    undisturbed = meta_train(job, LocalPool.of(job), job.init(), Nobody())
    final = Checkpoints(store).latest()
    assert final is not None
    assert final.sha256() == undisturbed.sha256()


def test_images_of_one_s_own_are_a_job_without_ray(service: Surroundings, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for c in range(4):
            folder = tmp_path / "shapes" / split / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(6):
                image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                image[8 * c : 8 * c + 8] += 180
                Image.fromarray(image).save(folder / f"{i}.png")
    fields = [f"tasks.path={tmp_path / 'shapes'}", "tasks.size=32", "tasks.ways=3", "tasks.query_shots=3"]
    fields += ["model.filters=8", "algorithm.inner_steps=2", "algorithm.inner_lr=0.05", "validate_every=10"]
    fields += ["iterations=20", "resources.workers=0", "validation.num_tasks=8", "validation.steps=2"]
    fields += [f"evaluations.{name}.num_tasks=8" for name in ("paper", "strict")]
    fields += ["evaluations.strict.numbered=true"]
    output = make("submit", "image_folder", *fields, "evaluations.strict.query_shots=3")
    run = run_in(output)
    assert re.search(r"paper +\d+\.\d\d ± \d+\.\d\d %", output)
    assert "transductive batch norm, loss sum_over_k" in output
    assert "strict: 8 test tasks (seeds 0 to 7), 1 support + 3 query examples a class" in " ".join(output.split())
    assert open_store(service.artifacts).under(run).exists("report/episode.png")

    again = make("evaluate", run, "evaluations.paper.num_tasks=6", "evaluations.paper.transductive=false")
    assert "6 test tasks" in again
    assert "inductive batch norm" in again


def test_a_run_that_diverges_says_so_and_keeps_its_checkpoint(service: Surroundings) -> None:
    output = make("submit", "sinusoid", *SHORT, "algorithm.inner_lr=1e30", "resources.workers=0", code=1)
    assert "is not finite" in output
    assert "try a smaller algorithm.inner_lr" in output
    assert replace(jobs.find("sinusoid")).name in output
