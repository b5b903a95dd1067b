"""One trial of a sweep: a training that is watched, and ended where others did better."""

import math
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from meta_service.artifacts import ArtifactStore, StorageError
from meta_service.checkpoint import Checkpoints
from meta_service.driver import Diverged, Enough
from meta_service.errors import UserError
from meta_service.evaluation import AdaptationCurve, format_metric
from meta_service.job import JobSpec
from meta_service.journal import Journal
from meta_service.objective import MetaGradient
from meta_service.pool import WorkerPool
from meta_service.progress import Emit
from meta_service.state import MetaState
from meta_service.sweep.halving import reaches
from meta_service.sweep.ledger import DIVERGED, FAILED, FINISHED, STOPPED, Ledger, Look, Trial
from meta_service.sweep.settings import Sweep
from meta_service.tracking import State, Tracker
from meta_service.training import train

STOP_LOOK_S = 1.0  # between two looks whether the sweep is to stop


class Means(NamedTuple):
    """What a trial needs from where it runs."""

    tracker: Tracker
    pool: Callable[[JobSpec], AbstractContextManager[WorkerPool]]
    """Starts the workers, and ends them; called in here, so that their failure is the trial's."""
    emit: Emit
    should_stop: Callable[[], bool]
    rescue: ArtifactStore


def run_trial(sweep: Sweep, trial: Trial, ledger: Ledger, means: Means) -> Trial:
    """The trial trained to its end, which the ledger knows then, or as far as it came when it was asked to stop.

    The tracker is ended, too. What goes wrong is the trial's result and not the sweep's end; only a StorageError is
    raised.
    """
    store, tracker = ledger.folder(trial.number), means.tracker
    watcher: Watcher | None = None
    state, why = "", ""

    def watch(journal: Journal) -> "Watcher":
        nonlocal watcher
        watcher = Watcher(sweep, trial, ledger, journal)
        return watcher

    try:
        job = sweep.trial_job(trial.setting, trial.iterations)
        start = _parent(sweep, trial, ledger)
        with means.pool(job) as pool:
            end = train(
                job,
                store,
                tracker,
                pool,
                means.emit,
                means.should_stop,
                means.rescue,
                then=lambda state, journal: None,
                watch=watch,
                start=start,
            )
        if end == "FINISHED":
            assert watcher is not None
            state, why = (STOPPED, watcher.verdict) if watcher.verdict else (FINISHED, "")
    except StorageError:
        raise
    except (Diverged, NotFinite) as error:
        state, why = DIVERGED, str(error)
    except UserError as error:
        state, why = FAILED, str(error)
    except Exception as error:  # a bug, perhaps one that only this setting meets: its traceback is kept beside it
        state, why = FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
        text = traceback.format_exc().encode()
        store.write("traceback.txt", text)
        tracker.artifact("traceback.txt", text)
    looks = watcher.looks if watcher else trial.looks
    ended = trial._replace(looks=looks, state=state, why=why, tracking=tracker.address)
    _report(tracker, ended)
    tracker.end(mlflow_state(ended))  # first: once the ledger says it is over, nobody tells MLflow any more
    if state:
        ledger.end(trial.number, state, why, tracker.address)
    return ended


def mlflow_state(trial: Trial) -> State:
    """The state of its MLflow run; what is more is told by its tags."""
    return "KILLED" if not trial.over else "FAILED" if trial.state in (DIVERGED, FAILED) else "FINISHED"


class NotFinite(Exception):
    """The metric on validation tasks is no number: there is nothing left to compare."""


class Watcher:
    """Tells the journal everything, keeps each look in the ledger before going on, and ends the training at a bar."""

    def __init__(self, sweep: Sweep, trial: Trial, ledger: Ledger, journal: Journal) -> None:
        self.sweep, self.trial, self.ledger, self.journal = sweep, trial, ledger, journal
        self.looks = trial.looks
        self.verdict = ""

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        self.journal.stepped(state, mean)

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None:
        self.journal.validated(state, curve)
        look = Look(state.iteration, curve.after, curve.ci95[curve.headline])
        self.looks = (*(known for known in self.looks if known.iteration < look.iteration), look)
        self.ledger.look(self.trial.number, self.looks)
        if not math.isfinite(look.value):
            raise NotFinite(f"the {curve.metric} on validation tasks is {look.value} at iteration {look.iteration:,}")
        bar = self.trial.bars.get(look.iteration)
        if bar is not None and not reaches(curve.metric, look.value, bar):
            needed = format_metric(curve.metric, bar)
            self.verdict = f"{needed} was needed at iteration {look.iteration:,}"
            raise Enough


def stop_asked(ledger: Ledger) -> Callable[[], bool]:
    """Whether the sweep is to stop; asks its store now and then. Once true it stays so."""
    asked, last = False, time.monotonic()

    def ask() -> bool:
        nonlocal asked, last
        if not asked and time.monotonic() - last > STOP_LOOK_S:
            asked, last = ledger.stop_asked(), time.monotonic()
        return asked

    return ask


def _parent(sweep: Sweep, trial: Trial, ledger: Ledger) -> MetaState | None:
    if trial.parent is None:
        return None
    checkpoints = Checkpoints(ledger.folder(trial.parent))
    state = checkpoints.latest()
    if state is None:
        raise UserError(f"trial {trial.parent}, from which trial {trial.number} goes on, has no checkpoint")
    return state


def _report(tracker: Tracker, trial: Trial) -> None:
    tracker.tags({"meta.state": trial.state or "interrupted", "meta.why": trial.why})
    if trial.over and trial.looks:
        tracker.metrics({"trial/value": trial.value, "trial/iteration": trial.iteration}, trial.iteration)
