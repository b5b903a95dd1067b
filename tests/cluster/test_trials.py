"""Trials on Ray Tune that go wrong: the sweep goes on, and says which and why."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.local import Surroundings
from cluster.sweep.board import Board
from cluster.sweep.executor import connect, execute
from cluster.sweep.trial import Place
from meta_service.artifacts import DirectoryStore
from meta_service.progress import Emit
from meta_service.sweep.book import Book
from meta_service.sweep.ledger import Ledger, Trial
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import Choice
from tests.cluster.hostile import Hostile
from tests.meta_service.sweep.tiny import JOB, TUNE

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]  # processes start slowly under load

DEEDS = ("kill once", "none", "bug", "nan", "kill")  # the last comes when the first is over: they share a folder


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, surroundings: Surroundings, ray_cluster: None
) -> tuple[dict[str, Trial], list[str]]:
    """The trials by what happens in them, and what was said."""
    return run_all(DEEDS, tmp_path_factory.mktemp("sweep"), surroundings)


def run_all(
    deeds: tuple[str, ...], folder: Path, surroundings: Surroundings, workers: int = 1, concurrent: int = 2
) -> tuple[dict[str, Trial], list[str]]:
    """A sweep over what happens in a trial."""
    job = replace(JOB, tasks=Hostile(folder=str(folder)), resources=replace(JOB.resources, cpus_per_worker=0.5))
    tune = replace(
        TUNE,
        search="grid",
        iterations=4,
        reduction=1,
        default=False,
        cpus_per_driver=0.25,
        workers=workers,
        concurrent=concurrent,
    )
    sweep = Sweep(job, {"tasks.deed": Choice(deeds)}, tune)
    said: list[str] = []
    emit: Emit = lambda kind, fields: None  # noqa: E731
    assert connect()
    book = Book(sweep, Ledger(DirectoryStore(folder / "a-sweep")))
    place = Place("a-sweep", str(folder), surroundings.mlflow, None)
    assert execute(sweep, book, place, Board(sweep, emit), said.append, lambda: False)
    return {trial.setting["tasks.deed"]: trial for trial in book.trials}, said


def test_every_trial_ends_whatever_happens_in_the_others(swept: tuple[dict[str, Trial], list[str]]) -> None:
    trials, _ = swept
    assert {deed: trial.state for deed, trial in trials.items()} == {
        "none": "finished",
        "bug": "failed",
        "nan": "diverged",
        "kill": "failed",
        "kill once": "finished",
    }
    assert [trial.number for trial in trials.values()] == list(range(len(DEEDS)))


@pytest.mark.parametrize(
    ("deed", "why"),
    [("bug", "a programmer's mistake"), ("nan", "is not finite"), ("kill", "killed 3 workers"), ("none", "")],
)
def test_it_says_which_trial_went_wrong_and_why(swept: tuple[dict[str, Trial], list[str]], deed: str, why: str) -> None:
    trials, said = swept
    assert why in trials[deed].why
    lines = [text for text in said if text.startswith(f"trial {trials[deed].number}: {trials[deed].state}")]
    assert bool(lines) == bool(why)
    assert all(why in line for line in lines)


def test_a_worker_that_dies_is_replaced_and_said_and_changes_no_value(
    swept: tuple[dict[str, Trial], list[str]],
) -> None:
    trials, said = swept
    assert trials["kill once"].looks == trials["none"].looks
    assert any(text.startswith(f"trial {trials['kill once'].number}: a worker died") for text in said)


def test_a_trial_whose_own_process_dies_is_started_again_and_given_up_at_last(
    tmp_path: Path, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.sweep.executor.RESTARTS", 1)
    trials, said = run_all(("kill once", "kill"), tmp_path, surroundings, workers=0, concurrent=1)
    assert trials["kill once"].state == "finished"
    assert "trial 0: its process died; it is started again from its checkpoint" in said
    assert trials["kill"].state == "failed"
    assert "trial 1: failed: its process died 2 times" in said
