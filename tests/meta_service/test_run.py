"""A run from start to report in this process: what it keeps, and what it keeps when its store does not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import jobs
from meta_service.artifacts import ArtifactStore, DirectoryStore, StorageError
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import override
from meta_service.job import JobSpec
from meta_service.pool import LocalPool
from meta_service.run import run
from meta_service.tracking import MemoryTracker

FEW = [f"evaluations.{k}-shot.num_tasks=10" for k in (5, 10, 20)] + ["validation.num_tasks=10"]
JOB = override(jobs.find("sinusoid"), ["iterations=40", "validate_every=20", "checkpoint_every=10", *FEW])


Outcome = tuple[str, MemoryTracker, "Events"]


class Refusing(DirectoryStore):
    """A store that takes no checkpoint."""

    def write(self, name: str, data: bytes) -> None:
        if name.startswith("parts/"):
            raise StorageError("the store is away")
        super().write(name, data)


class Events:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        self.told.append((kind, fields))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.told if name == kind]


def go(job: JobSpec, store: ArtifactStore, folder: Path, stop_at: int | None = None) -> Outcome:
    tracker, events = MemoryTracker(), Events()

    def should_stop() -> bool:
        steps = [p.step for p in tracker.points if p.key == "train/loss"]
        return stop_at is not None and bool(steps) and steps[-1] >= stop_at

    rescue = DirectoryStore(str(folder / "rescued"))
    end = run(job, store, tracker, LocalPool.of(job), events, should_stop, rescue)
    return end, tracker, events


def test_a_run_keeps_its_report_its_results_and_its_metrics(tmp_path: Path) -> None:
    job = replace(JOB, baselines=())
    store = DirectoryStore(str(tmp_path / "run"))
    end, tracker, events = go(job, store, tmp_path)
    assert end == "FINISHED"
    results = json.loads(store.read("report/results.json"))
    assert set(results) == {"5-shot", "10-shot", "20-shot"}
    logged = [p.value for p in tracker.points if p.key == "test/5-shot/mse"]
    assert logged == results["5-shot"]["mean"]
    assert len({p.key for p in tracker.points}) <= 40
    assert set(tracker.artifacts) >= {"report/adaptation.png", "report/training.png", "report/sinusoid.png"}
    assert events.of("summary")[0]["results"]["5-shot"]["mean"] == tuple(results["5-shot"]["mean"])


def test_a_store_that_takes_no_checkpoint_loses_none_and_the_run_goes_on_from_it(tmp_path: Path) -> None:
    job = replace(JOB, baselines=())
    with pytest.raises(StorageError):
        go(job, Refusing(str(tmp_path / "run")), tmp_path, stop_at=25)
    rescued = Checkpoints(DirectoryStore(str(tmp_path / "rescued"))).latest()
    assert rescued is not None
    assert rescued.iteration == 25

    store = DirectoryStore(str(tmp_path / "run"))
    _, _, events = go(job, store, tmp_path)
    assert "resumed at iteration 25 of 40" in events.of("say")[0]["text"]
    last, undisturbed = Checkpoints(store).latest(), DirectoryStore(str(tmp_path / "other"))
    go(job, undisturbed, tmp_path / "elsewhere")
    expected = Checkpoints(undisturbed).latest()
    assert last is not None
    assert expected is not None
    assert last.sha256() == expected.sha256()


def test_a_stop_during_the_tests_ends_them(tmp_path: Path) -> None:
    end, tracker, _ = go(replace(JOB, baselines=()), DirectoryStore(str(tmp_path / "run")), tmp_path, stop_at=40)
    assert end == "KILLED"
    assert not [p for p in tracker.points if p.key.startswith("test/")]


def test_a_baseline_that_diverges_leaves_the_run_s_own_results(tmp_path: Path) -> None:
    wild = replace(JOB.baselines[0], overrides=("algorithm.inner_lr=1e30",), inner_lrs=())
    end, tracker, events = go(replace(JOB, baselines=(wild,)), DirectoryStore(str(tmp_path / "run")), tmp_path)
    assert end == "FINISHED"
    assert any("baseline pretrained is left out" in event["text"] for event in events.of("say"))
    assert [p for p in tracker.points if p.key == "test/5-shot/mse"]


POLICIES = override(
    jobs.find("navigation"),
    [
        "iterations=2",
        "meta_batch_size=3",
        "tasks.shots=3",
        "tasks.horizon=10",
        "validation.num_tasks=3",
        "evaluations.paper.num_tasks=3",
        "evaluations.paper.shots=3",
        "evaluations.drawn.num_tasks=3",
        "evaluations.drawn.shots=3",
        "baselines.random.inner_lrs=(0.1,0.5)",
    ],
)


def test_a_run_of_policies_keeps_its_curves_facts_and_paths_and_says_what_needs_ray(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "run"))
    end, tracker, events = go(POLICIES, store, tmp_path)
    assert end == "FINISHED"
    results = json.loads(store.read("report/results.json"))
    assert set(results) == {"paper", "drawn", "paper/random", "drawn/random"}
    assert len(results["paper"]["mean"]) == 4
    assert results["paper/random"]["conditions"]["inner_lr"] in (0.1, 0.5)
    metrics = {p.key for p in tracker.points}
    assert {"train/kl", "train/return_before", "train/return_after", "train/unstable", "test/paper/return"} <= metrics
    assert set(tracker.artifacts) >= {"report/adaptation.png", "report/training.png", "report/paths.png"}
    left_out = [event["text"] for event in events.of("say") if "is left out" in event["text"]]
    assert [text.split()[1] for text in left_out] == ["pretrained", "oracle"]
    assert all("make resources.workers at least 1" in text for text in left_out)
