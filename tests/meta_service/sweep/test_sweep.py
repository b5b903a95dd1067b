"""A sweep in this process: trials are computed as runs are, and neither a kill nor a stop changes what it comes to."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from torch import Tensor

from meta_service.artifacts import DirectoryStore, StorageError
from meta_service.checkpoint import Checkpoints
from meta_service.driver import meta_train
from meta_service.episode import Batch, Predict, Split
from meta_service.evaluation import AdaptationCurve
from meta_service.objective import MetaGradient
from meta_service.pool import LocalPool
from meta_service.progress import Emit
from meta_service.state import MetaState
from meta_service.sweep.book import Book
from meta_service.sweep.ledger import FINISHED, STOPPED, Ledger, Look, Trial
from meta_service.sweep.ranking import best_of
from meta_service.sweep.settings import Sweep
from meta_service.sweep_report import conclude
from meta_service.tasks.sinusoid import Sinusoid
from meta_service.tracking import MemoryTracker
from meta_service.trial import run_trial, stop_asked
from tests.meta_service.sweep.tiny import JOB, means, serially, sweep


class Nobody:
    def stepped(self, state: MetaState, mean: MetaGradient) -> None: ...

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None: ...


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return serially(sweep(), DirectoryStore(folder / "store"), folder)


def bare(trials: list[Trial]) -> list[Trial]:
    return [trial._replace(tracking="") for trial in trials]


def test_every_trial_ends_and_the_ledger_knows_how(undisturbed: list[Trial]) -> None:
    assert len(undisturbed) == 8
    assert {trial.state for trial in undisturbed} == {FINISHED, STOPPED}
    for trial in undisturbed:
        assert trial.iteration == 18 or trial.state == STOPPED
        assert [look.iteration for look in trial.looks] == list(range(0, trial.iteration + 1, 2))
    first = undisturbed[0]
    assert first.setting == sweep().default()
    assert first.state == FINISHED


def test_a_trial_is_stopped_at_the_first_rung_whose_bar_it_misses(undisturbed: list[Trial]) -> None:
    for trial in undisturbed:
        missed = [rung for rung, bar in trial.bars.items() if (value := trial.at(rung)) is not None and value > bar]
        assert missed == ([trial.iteration] if trial.state == STOPPED else [])
        assert bool(trial.why) == (trial.state == STOPPED)


def test_a_trial_s_theta_is_the_run_s_with_the_same_fields(tmp_path: Path) -> None:
    ledger = Ledger(DirectoryStore(tmp_path))
    wanted = sweep()
    trial = Trial(0, {**wanted.default(), "algorithm.inner_lr": 0.05}, {})
    ledger.give(trial)
    run_trial(wanted, trial, ledger, means(tmp_path))
    job = wanted.trial_job(trial.setting)
    expected = meta_train(job, LocalPool.of(job), job.init(), Nobody())
    kept = Checkpoints(ledger.folder(0)).latest()
    assert kept is not None
    assert kept.sha256() == expected.sha256()


def test_a_sweep_interrupted_again_and_again_comes_to_the_same(tmp_path: Path, undisturbed: list[Trial]) -> None:
    chance, wanted, store = random.Random(1), sweep(), DirectoryStore(tmp_path / "store")
    interruptions = 0
    for _ in range(100):
        book = Book(wanted, Ledger(store))  # nothing is remembered but what the store has
        trial = book.next()
        if trial is None:
            break
        run_trial(wanted, trial, book.ledger, means(tmp_path, stop_after=chance.randrange(12)))
        interruptions += not book.refresh(trial.number).over
    assert interruptions > 5
    assert bare(Ledger(store).trials()) == bare(undisturbed)


def test_trials_that_run_at_once_and_end_in_any_order_are_the_same(tmp_path: Path, undisturbed: list[Trial]) -> None:
    chance, wanted, ledger = random.Random(2), sweep(), Ledger(DirectoryStore(tmp_path / "store"))
    book = Book(wanted, ledger)
    running: list[Trial] = []
    while True:
        while len(running) < 2 and (trial := book.next()):
            running.append(trial)
        if not running:
            break
        trial = running.pop(chance.randrange(len(running)))
        run_trial(wanted, trial, ledger, means(tmp_path))
        book.refresh(trial.number)
    assert bare(book.trials) == bare(undisturbed)


def test_what_was_given_and_not_ended_is_started_first(tmp_path: Path) -> None:
    ledger = Ledger(DirectoryStore(tmp_path))
    for number in range(3):
        ledger.give(Trial(number, sweep().default(), {}))
    ledger.end(1, FINISHED)
    book = Book(sweep(), ledger)
    first, second = book.next(), book.next()
    assert first is not None
    assert second is not None
    assert (first.number, second.number) == (0, 2)
    assert book.next() is None  # trial 3 must know how trial 0 ended


def test_the_ledger_gives_back_what_was_written(tmp_path: Path) -> None:
    ledger = Ledger(DirectoryStore(tmp_path))
    given = Trial(0, {"model.hidden": (40, 40), "outer.clip": None}, {2: 0.5, 6: 0.25}, 7, 12)
    ledger.give(given)
    assert ledger.trials() == [given]
    looks = (Look(0, 4.0, 0.5), Look(2, 3.0, 0.25))
    ledger.look(0, looks)
    ledger.end(0, STOPPED, "why", "http://where")
    assert ledger.trials() == [given._replace(looks=looks, state=STOPPED, why="why", tracking="http://where")]


def test_a_stop_is_seen_by_the_trials_and_forgotten_when_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meta_service.trial.STOP_LOOK_S", 0.0)
    ledger = Ledger(DirectoryStore(tmp_path))
    assert not stop_asked(ledger)()
    ledger.ask_to_stop()
    assert stop_asked(ledger)()
    ledger.clear_stop()
    assert not stop_asked(ledger)()


@dataclass(frozen=True)
class Bad(Sinusoid):
    """Sinusoids that go wrong: `bug` raises, `nan` has no metric."""

    deed: str = "none"

    def sample_all(self, seeds: Sequence[int], split: Split) -> tuple[Batch, Batch]:
        if self.deed == "bug":
            raise ValueError("a programmer's mistake\nin two lines")
        return super().sample_all(seeds, split)

    def metric(self, predict: Predict, batch: Batch) -> Tensor:
        return super().loss(predict, batch) * (math.nan if self.deed == "nan" else 1.0)


def bad_sweep() -> Sweep:
    return replace(sweep(), job=replace(JOB, tasks=Bad()))


@pytest.mark.parametrize(
    ("setting", "state", "why"),
    [
        ({"tasks.deed": "bug"}, "failed", "ValueError: a programmer's mistake in two lines"),
        ({"tasks.deed": "nan"}, "diverged", "the mse on validation tasks is nan at iteration 0"),
        ({"outer.meta_lr": 1e30}, "diverged", ""),
        ({"model.hidden": ()}, "finished", ""),
    ],
)
def test_a_trial_that_goes_wrong_ends_with_the_reason(
    tmp_path: Path, setting: dict[str, object], state: str, why: str
) -> None:
    ledger, given = Ledger(DirectoryStore(tmp_path)), means(tmp_path)
    trial = Trial(0, setting, {})
    ledger.give(trial)
    ended = run_trial(bad_sweep(), trial, ledger, given)
    assert ended.state == state
    assert why in ended.why
    assert str(ledger.trials()) == str([ended])  # nan is not equal to itself
    assert isinstance(given.tracker, MemoryTracker)
    assert given.tracker.kept_tags["meta.state"] == state
    assert (tmp_path / "trials/0000/traceback.txt").exists() == (state == "failed")


class Full(DirectoryStore):
    """A store that does not take a file of this name."""

    def __init__(self, path: Path, refused: str) -> None:
        super().__init__(path)
        self.refused = refused

    def write(self, name: str, data: bytes) -> None:
        if name.endswith(self.refused):
            raise StorageError("the store is away")
        super().write(name, data)

    def under(self, prefix: str) -> "Full":
        return Full(self._path(prefix), self.refused)


def test_mlflow_knows_how_a_trial_ended_before_the_ledger_does(tmp_path: Path) -> None:
    ledger, given = Ledger(Full(tmp_path, "end.json")), means(tmp_path)
    trial = Trial(0, sweep().default(), {})
    ledger.give(trial)
    with pytest.raises(StorageError):
        run_trial(sweep(), trial, ledger, given)
    assert isinstance(given.tracker, MemoryTracker)
    assert (given.tracker.state, given.tracker.kept_tags["meta.state"]) == ("FINISHED", "finished")
    assert not Ledger(DirectoryStore(tmp_path)).trials()[0].over


def test_a_store_that_fails_ends_the_sweep_and_not_the_trial(tmp_path: Path) -> None:
    ledger = Ledger(Full(tmp_path, "looks.json"))
    trial = Trial(0, sweep().default(), {})
    ledger.give(trial)
    with pytest.raises(StorageError, match="the store is away"):
        run_trial(sweep(), trial, ledger, means(tmp_path))
    assert not Ledger(DirectoryStore(tmp_path)).trials()[0].over


def test_a_population_goes_on_from_its_best_theta(tmp_path: Path) -> None:
    wanted, store = sweep("tune.search=pbt", "tune.trials=8", "tune.generations=2"), DirectoryStore(tmp_path / "store")
    trials = serially(wanted, store, tmp_path)
    assert [trial.iteration for trial in trials] == [9] * 4 + [18] * 4 or all(t.state == FINISHED for t in trials)
    later = trials[4]
    assert later.parent is not None
    job = wanted.trial_job(later.setting, 18)
    start = Checkpoints(store.under(f"trials/{later.parent:04d}")).latest()
    assert start is not None
    assert start.iteration == 9
    kept = Checkpoints(store.under("trials/0004")).latest()
    assert kept is not None
    assert kept.sha256() == meta_train(job, LocalPool.of(job), start, Nobody()).sha256()


def test_the_report_tests_the_best_trial_beside_the_default_and_keeps_all_of_it(tmp_path: Path) -> None:
    wanted, store, tracker = sweep(), DirectoryStore(tmp_path / "store"), MemoryTracker()
    trials = serially(wanted, store, tmp_path)
    told: list[tuple[str, dict[str, object]]] = []
    emit: Emit = lambda kind, fields: told.append((kind, fields))  # noqa: E731
    conclude(wanted, trials, Ledger(store), store, tracker, LocalPool.of(JOB), emit)
    best = best_of(trials, "mse")
    assert best is not None
    assert best.number != 0
    kept = json.loads(store.read("report/results.json"))
    assert kept["best"] == best.number
    assert kept["setting"] == best.setting
    assert set(kept["tests"]) == {f"{k}-shot{other}" for k in (5, 10, 20) for other in ("", "/default")}
    assert math.isclose(sum(kept["importance"].values()), 1.0)
    names = {"parallel.png", "heatmap.png", "trials.png", "importance.png", "report.md", "results.json"}
    assert set(tracker.artifacts) == {f"report/{name}" for name in names} == set(store.list("report/"))
    assert tracker.kept_params == {f"best.{name}": value for name, value in best.setting.items()}
    assert f"Trial {best.number} is the best" in tracker.kept_tags["mlflow.note.content"]
    (summary,) = [fields for kind, fields in told if kind == "sweep_summary"]
    assert summary["best"] == best.number
