"""From a spool to an MLflow server; delivering twice changes nothing there."""

import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from meta_service.errors import UserError
from meta_service.spool import Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")
Entry = dict[str, Any]

# Limits of the server
METRICS_BATCH = 1_000
PARAMS_BATCH = 100
KIND = {"mlflow.experimentKind": "custom_model_development"}
PARAM_LENGTH, TAG_LENGTH = 6_000, 5_000

ARTIFACT_ATTEMPTS = 3

# A request fails fast: what waits and tries again is the spool's thread. By itself a dead server blocks for minutes.
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Delivery:
    """Delivers the entries of a spool in their order."""

    def __init__(self, uri: str, spool: Spool, say: Callable[[str], None]) -> None:
        self._uri, self._spool, self._say = uri, spool, say

    def attempt(self) -> str | None:
        """Delivers all that is waiting; where the server fails, why, in a line: the rest is for the next attempt."""
        for name, value in CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException  # takes seconds: not at this module's import

        try:
            self._deliver()
        except (MlflowException, OSError) as error:  # the errors of its HTTP library are OSErrors
            return _line(error).split(" with exception")[0]  # what follows is the HTTP library's own, long
        return None

    @cached_property
    def _client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient(self._uri)

    @property
    def _run_id(self) -> str:
        return self._spool.facts["run_id"]

    def _deliver(self) -> None:
        points: list[Metric] = []
        position = 0
        for entry, after in self._spool.unsent():
            if entry["kind"] == "metrics":
                points, position = points + _points(entry), after
            if points and (entry["kind"] != "metrics" or len(points) >= METRICS_BATCH):
                self._metrics(points, position)
                points = []
            if entry["kind"] != "metrics":
                handler: Callable[[Entry], None] = getattr(self, f"_{entry['kind']}")
                handler(entry)
                self._spool.acknowledge(after)
        if points:
            self._metrics(points, position)

    def _metrics(self, points: "list[Metric]", position: int) -> None:
        for batch in _batches(points, METRICS_BATCH):
            self._unless_refused("metrics", partial(self._client.log_batch, self._run_id, metrics=batch))
        self._spool.acknowledge(position)

    def _start(self, entry: Entry) -> None:
        run = self._existing(entry["run_id"] or self._spool.facts.get("run_id")) or self._created(entry)
        self._spool.facts |= {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}

    def _existing(self, run_id: str | None) -> "Run | None":
        """The run to be continued; None where there is none, or this server does not know it."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            self._client.update_run(run_id, status="RUNNING")
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            self._say(f"MLflow at {self._uri} has no run {run_id} to go on with; a new one is made")
            return None

    def _created(self, entry: Entry) -> "Run":
        """A new run, or the one made before if only the server's answer got lost."""
        experiment_id = self._experiment(entry["experiment"])
        found = self._client.search_runs([experiment_id], f"tags.`meta.key` = '{entry['key']}'", max_results=1)
        if found:
            return found[0]
        tags = {"meta.key": entry["key"]}
        return self._client.create_run(experiment_id, entry["time"], tags, entry["run_name"])

    def _experiment(self, name: str) -> str:
        """The id of the experiment of this name, made or taken out of the bin where necessary."""
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                # else the UI takes it for traces of a language model and hides the curves
                return str(self._client.create_experiment(name, tags=KIND))
            except MlflowException as error:
                experiment = self._client.get_experiment_by_name(name)
                if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                    raise  # else another run was faster
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _params(self, entry: Entry) -> None:
        """New parameters; one that was logged before with another value cannot be changed and becomes a tag."""
        from mlflow.entities import Param, RunTag

        known = self._client.get_run(self._run_id).data.params
        values = {name: value[:PARAM_LENGTH] for name, value in entry["values"].items()}
        new = [Param(name, value) for name, value in values.items() if name not in known]
        for batch in _batches(new, PARAMS_BATCH):
            self._unless_refused("params", partial(self._client.log_batch, self._run_id, params=batch))
        changed = {name: value for name, value in values.items() if known.get(name, value) != value}
        if changed:
            tags = [RunTag(f"changed.{name}", value[:TAG_LENGTH]) for name, value in changed.items()]
            self._client.log_batch(self._run_id, tags=tags)

    def _tags(self, entry: Entry) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(name, value[:TAG_LENGTH]) for name, value in entry["values"].items()]
        for batch in _batches(tags, PARAMS_BATCH):
            self._unless_refused("tags", partial(self._client.log_batch, self._run_id, tags=batch))

    def _artifact(self, entry: Entry) -> None:
        """A file; where the server lives but its store does not take the file, it stays in the spool."""
        path = Path(entry["file"])
        for attempt in range(ARTIFACT_ATTEMPTS):
            if not path.exists():
                return  # delivered, but not acknowledged
            try:
                self._client.log_artifact(self._run_id, str(path), entry["name"].rpartition("/")[0] or None)
                path.unlink()
            except Exception as error:  # the store decides of which class: S3's, the file system's ...
                self._client.get_run(self._run_id)  # raises where the server itself is away
                reason = f"{type(error).__name__}: {_line(error)}"
                if attempt == ARTIFACT_ATTEMPTS - 1:
                    self._say(f"MLflow at {self._uri} cannot keep {entry['name']}; it stays in {path}: {reason}")

    def _end(self, entry: Entry) -> None:
        self._client.set_terminated(self._run_id, entry["state"], entry["time"])

    def _unless_refused(self, what: str, request: Callable[[], object]) -> None:
        """Makes the request; one that is wrong in itself is said and given up, or all after it would wait for ever."""
        from mlflow.exceptions import MlflowException

        try:
            request()
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self._say(f"MLflow at {self._uri} refuses {what}, which stay in {self._spool.path}: {_line(error)}")


def _points(entry: Entry) -> "list[Metric]":
    from mlflow.entities import Metric

    return [Metric(name, value, entry["time"], entry["step"]) for name, value in entry["values"].items()]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _batches(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def run_tags(uri: str, run_id: str) -> dict[str, str]:
    """The tags of a run. Raises UserError where the server is away or does not know it."""
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return dict(MlflowClient(uri).get_run(run_id).data.tags)
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow at {uri} gives no run {run_id}: {_line(error).split(' with exception')[0]}") from error
