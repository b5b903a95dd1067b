"""The process of a sweep: puts its parts together, has the trials run, and reports what they came to."""

import math
import os
import time
from contextlib import suppress
from dataclasses import replace

from cluster.driving import as_driver, provenance
from cluster.runs import Runs
from cluster.stopping import impatient, stopping
from cluster.sweep.board import Board
from cluster.sweep.executor import connect, execute
from cluster.sweep.placement import at_once
from cluster.sweep.trial import Place
from cluster.workplace import SPOOL, pool_of, say
from meta_service.artifacts import StorageError, open_store
from meta_service.dotted import flatten
from meta_service.driver import Stopped
from meta_service.ownership import Owner
from meta_service.progress import print_event
from meta_service.run import interruptible
from meta_service.status import NAME, RunStatus
from meta_service.sweep.book import Book
from meta_service.sweep.ledger import Ledger, Trial
from meta_service.sweep.ranking import best_of
from meta_service.sweep.settings import Sweep
from meta_service.sweep_report import conclude, default_of
from meta_service.tracking import MLflowTracker, State

MLFLOW_S = 30.0  # how long to wait for the run below which the trials' are to be shown


def drive_sweep(run: str) -> int:
    """Runs what is left of the sweep; returns the exit code."""
    return as_driver(run, lambda owner: _drive(run, owner))


def _drive(run: str, owner: Owner) -> State:
    root = os.environ["ARTIFACT_ROOT"]
    runs = Runs(open_store(root))
    sweep, store = runs.sweep(run), runs.store(run)
    data = sweep.job.prepare()
    runs.check_data(run, data)
    nodes = connect()
    concurrent = at_once(sweep, nodes)
    if sweep.tune.concurrent is None:
        sweep = runs.settle(run, concurrent)
    tracker = MLflowTracker.start(
        os.environ["MLFLOW_TRACKING_URI"],
        experiment=sweep.job.name,
        run_name=run,
        run_id=runs.mlflow_run_id(run),
        spool=SPOOL / run,
        tags=provenance(sweep.job, data) | {"meta.run": run, "meta.kind": "sweep", "meta.artifacts": store.address()},
        say=say,
    )
    state: State = "FAILED"
    ledger = Ledger(store)
    book = Book(sweep, ledger)
    teller = _Teller(runs, run, sweep, tracker, book)
    try:
        with stopping() as should_stop:
            tracker.params(_params(sweep))
            place = Place(run, root, os.environ["MLFLOW_TRACKING_URI"], _parent(tracker))
            teller.tell("RUNNING")
            board = Board(sweep, print_event)
            if not execute(sweep, book, place, board, say, lambda: should_stop() or bool(owner.lost), teller.ended):
                owner.check()
                state = "KILLED"
                say(f"stopped with {book.over} of {sweep.size} trials over; the others go on with `make resume`")
            else:
                job = replace(sweep.job, resources=replace(sweep.job.resources, workers=_workers(sweep)))
                with pool_of(job) as pool:
                    emit = interruptible(print_event, should_stop)
                    conclude(sweep, book.trials, ledger, store, tracker, impatient(pool, should_stop), emit)
                state = "FINISHED"
    except Stopped:
        state = "KILLED"
        say("stopped while the best trial was tested; `make resume` tests it again")
    finally:
        if owner.lost:
            tracker.leave()
        else:
            teller.tell("STOPPED" if state == "KILLED" else state)
        tracker.end(state)
    return state


class _Teller:
    """Keeps the sweep's status, and its curve in MLflow, as trials end."""

    def __init__(self, runs: Runs, run: str, sweep: Sweep, tracker: MLflowTracker, book: Book) -> None:
        self.runs, self.run, self.sweep, self.tracker, self.book = runs, run, sweep, tracker, book

    def ended(self, trial: Trial) -> None:
        best = best_of(self.book.trials, self.sweep.metric)
        if best:
            self.tracker.metrics({f"sweep/best/{self.sweep.metric}": best.value}, self.book.over)
        if math.isfinite(trial.value):
            self.tracker.metrics({f"sweep/trial/{self.sweep.metric}": trial.value}, trial.number)
        self.tell("RUNNING")

    def tell(self, state: str) -> None:
        """For `make status`: how many trials are over, the default setting's metric and the best one's."""
        best, default = best_of(self.book.trials, self.sweep.metric), default_of(self.sweep, self.book.trials)
        said = RunStatus(
            job=self.sweep.job.name,
            state=state,
            iteration=self.book.over,
            iterations=self.sweep.size,
            metric=self.sweep.metric,
            before=default.value if default else None,
            after=best.value if best else None,
            tracking=self.tracker.address,
            mlflow_run_id=self.tracker.run_id,
            workers=1,
            time=time.time(),
            unit="trials",
        )
        with suppress(StorageError):  # it is for people; what must not be lost is in the ledger
            self.runs.store(self.run).write(NAME, said.to_bytes())


def _parent(tracker: MLflowTracker) -> str | None:
    """The sweep's own MLflow run; waits for it, but not for ever."""
    deadline = time.monotonic() + MLFLOW_S
    while tracker.run_id is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if tracker.run_id is None:
        say("MLflow does not answer: the trials' runs will not be shown below the sweep's")
    return tracker.run_id


def _params(sweep: Sweep) -> dict[str, object]:
    """What the sweep is: the job without the fields that are searched, their ranges, and how they are searched."""
    job = {name: value for name, value in flatten(sweep.job).items() if not name.startswith("resources.")}
    kept = {name: value for name, value in job.items() if name not in sweep.space}
    ranges = {f"space.{name}": str(range_) for name, range_ in sweep.space.items()}
    return ranges | {f"tune.{name}": value for name, value in flatten(sweep.tune).items()} | kept


def _workers(sweep: Sweep) -> int:
    """For the tests at the end: as many as the trials had."""
    return sweep.tune.workers * (sweep.tune.concurrent or 1)
