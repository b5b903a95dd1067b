"""One trial in its own process on the cluster: what `driving` is for a run."""

from collections.abc import Callable
from typing import Any, NamedTuple

from filelock import FileLock

from cluster.workplace import SPOOL, pool_of
from meta_service.artifacts import StorageError, open_store
from meta_service.progress import Throttle
from meta_service.status import RunStatus
from meta_service.sweep.ledger import Ledger
from meta_service.sweep.settings import Sweep
from meta_service.tracking import MLflowTracker
from meta_service.trial import Means, run_trial, stop_asked

REPORT_S = 2.0  # between two reports of progress
LOCK_S = 60.0  # how long a predecessor, killed with its sweep, may take to be gone


class Place(NamedTuple):
    """Where a sweep's trials find what they need."""

    sweep: str
    """Its name."""
    root: str
    """The artifact store of all runs."""
    mlflow: str
    parent: str | None
    """The sweep's MLflow run, below which its trials' runs are shown; none where MLflow did not answer."""


def trainable(config: dict[str, Any], sweep: Sweep, place: Place) -> None:
    """A trial as Tune calls it; not beside the executor, whose imports a trial need not wait for."""
    from ray import tune

    perform(sweep, config["trial"], place, tune.report)


def perform(sweep: Sweep, index: int, place: Place, report: Callable[[dict[str, Any]], None]) -> None:
    """Trains trial `index` from where it is. Tells `report` of its progress; its result is in the ledger."""
    ledger = Ledger(open_store(place.root).under(place.sweep))
    trial = ledger.trial(index)
    assert trial is not None
    if trial.over:
        return  # only the word of it got lost
    name = f"{place.sweep}.{index}"
    said: list[str] = []
    throttle = Throttle(REPORT_S)
    told = {"trial": index, "iteration": trial.iteration, "value": trial.value}

    def emit(kind: str, fields: dict[str, Any]) -> None:
        if kind == "say":
            said.append(fields["text"])
        if kind == "progress":
            told["iteration"] = fields["iteration"]
            told["value"] = fields["after"] if fields["after"] is not None else told["value"]
            if throttle.due() or said:
                report(told | {"said": _drained(said)})

    SPOOL.mkdir(parents=True, exist_ok=True)
    report(told | {"said": []})
    with FileLock(SPOOL / f"{name}.lock", timeout=LOCK_S):
        tracker = MLflowTracker.start(
            place.mlflow,
            experiment=sweep.job.name,
            run_name=f"trial {index:02d} of {place.sweep}",
            run_id=_mlflow_run_id(ledger, index),
            spool=SPOOL / name,
            tags={
                "mlflow.parentRunId": place.parent or "",
                "meta.sweep": place.sweep,
                "meta.trial": index,
                "meta.state": "running",
                "meta.artifacts": ledger.folder(index).address(),
            },
            say=said.append,
        )
        rescue = open_store(str(SPOOL / f"{name}.rescued"))
        means = Means(tracker, lambda job: pool_of(job, said.append), emit, stop_asked(ledger), rescue)
        try:
            ended = run_trial(sweep, trial, ledger, means)
            report(told | {"iteration": ended.iteration, "value": ended.value, "said": _drained(said)})
        except StorageError as error:  # not the trial's fault: it goes on with the sweep's resumption
            report(told | {"said": _drained(said), "fault": str(error)})
        finally:
            tracker.end("KILLED")  # unless it has ended well


def _drained(said: list[str]) -> list[str]:
    texts = said[:]
    del said[: len(texts)]
    return texts


def _mlflow_run_id(ledger: Ledger, index: int) -> str | None:
    """The MLflow run that an earlier process of this trial reported to."""
    store = ledger.folder(index)
    return RunStatus.from_bytes(store.read("status.json")).mlflow_run_id if store.exists("status.json") else None
