"""A run's result, wherever it is kept."""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from meta_service.adapt import MetaModel
from meta_service.artifacts import ArtifactStore, MissingArtifact, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.delivery import run_tags
from meta_service.dotted import from_json
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.params import Params, shapes
from meta_service.policies import Policy
from meta_service.state import MetaState


def load(run: str, which: Literal["best", "latest"] = "best") -> Any:
    """The `MetaModel` of a run, or its `Policy`; by its name, its address (s3://..., a folder) or its MLflow run id.

    Names are looked up in ARTIFACT_ROOT, ids at MLFLOW_TRACKING_URI; where neither these nor AWS_* are set, in the
    services `make submit` started on this machine. `best`: on validation tasks. Raises UserError.

        adapted = load("omniglot-1123-101500-ab12").adapt(images, ["a", "b", "c", "d", "e"])
        adapted.predict(others)  # ["c", "a", ...]

        policy = load("cheetah_direction-1123-101500-ab12").adapt(gymnasium_environment)
        policy.act(observation)
    """
    store = _store(run)
    try:
        job = from_json(store.read("job.json").decode())
    except MissingArtifact as error:
        raise UserError(f"{store.address()} is no run: it has no job.json; `make status` lists the runs") from error
    checkpoints = Checkpoints(store)
    state = (checkpoints.best() if which == "best" else None) or checkpoints.latest()
    if state is None:
        raise UserError(f"{store.address()} has no checkpoint yet; wait for the first one")
    return Policy(job, state.params) if job.explores else MetaModel(job, state.params)


def start_of(job: JobSpec) -> MetaState:
    """The state before the first outer step, with the theta of `job.start_from` where it is given. Raises UserError."""
    state = job.init()
    if not job.start_from:
        return state
    params: Params = load(job.start_from).params
    if shapes(params) != shapes(state.params):
        raise UserError(f"start_from={job.start_from}: its theta is of another shape than this job's; keep its model")
    return job.outer.init(params)


def _store(run: str) -> ArtifactStore:
    """The folder of a run."""
    _use_local_services()
    if "://" in run or Path(run).expanduser().is_dir():
        return open_store(run)
    if re.fullmatch("[0-9a-f]{32}", run):
        return open_store(_address(run))
    root = os.environ.get("ARTIFACT_ROOT")
    if not root:
        raise UserError(f"'{run}': set ARTIFACT_ROOT to the place of the runs, or give s3://bucket/run or a folder")
    return open_store(root).under(run)


def _address(run_id: str) -> str:
    """Where an MLflow run says its artifacts are."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise UserError(f"'{run_id}' looks like an MLflow run id: set MLFLOW_TRACKING_URI to its server")
    tags = run_tags(uri, run_id)
    if "meta.artifacts" not in tags:
        raise UserError(f"MLflow run {run_id} at {uri} is none of this service: it has no tag meta.artifacts")
    return tags["meta.artifacts"]


def _use_local_services() -> None:
    """Takes the addresses of the services started on this machine, where the environment has none."""
    if any(name in os.environ for name in ("ARTIFACT_ROOT", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")):
        return
    state = Path(os.environ.get("META_STATE") or Path(__file__).resolve().parents[1] / ".state").expanduser()
    written = state / "env.json"
    if written.exists():
        for name, value in json.loads(written.read_bytes()).items():
            os.environ.setdefault(name, value)
