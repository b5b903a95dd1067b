"""A run's theta as an MLflow model that any MLflow client can load and serve."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from meta_service.adapt import MetaModel
from meta_service.dotted import from_json, to_json
from meta_service.job import JobSpec
from meta_service.progress import Emit
from meta_service.served import JOB, PARAMS
from meta_service.state import MetaState
from meta_service.tracking import MLflowTracker, Tracker

NAME = "model"
TIMEOUT_S = 180.0
PACKAGE = Path(__file__).resolve().parent
REQUIREMENTS = ("mlflow", "torch", "numpy", "safetensors", "mujoco-core", "pydantic", "pillow", "filelock", "rich")
"""What `served` needs, with what it imports."""


def log_model(tracker: Tracker, job: JobSpec, state: MetaState, emit: Emit) -> None:
    """Logs theta as the run's model `runs:/<id>/model`. Takes TIMEOUT_S at most; a failure is said and nothing more."""
    if not isinstance(tracker, MLflowTracker):
        return
    run_id = tracker.run_id
    if run_id is None:
        emit("say", {"text": "the model is not kept in MLflow, which has not answered yet; its checkpoint is"})
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / JOB).write_text(to_json(job))
        params = {name: value.detach().cpu().clone().contiguous() for name, value in state.params.items()}
        save_file(params, Path(folder) / PARAMS)
        # a process of its own: MLflow keeps a run and a model's code per process, and can be given up after a while
        command = [sys.executable, "-m", "meta_service.serving", tracker.uri, run_id, folder]
        settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
        paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        env = os.environ | settings | {"PYTHONPATH": paths}
        with tempfile.TemporaryFile("w+") as errors:
            with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=errors) as logging:
                code = _wait(logging, emit)
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
        if code == 0:
            return
        reason = f"not done after {TIMEOUT_S:g} s" if code is None else last
    emit("say", {"text": f"the model is not kept in MLflow, its checkpoint is: {reason[:300]}"})


def _wait(process: "subprocess.Popen[bytes]", emit: Emit) -> int | None:
    """Its exit code; None where it took too long. Where `emit` raises, for the run is to end, it is ended, too."""
    begin = time.monotonic()
    try:
        while (passed := time.monotonic() - begin) < TIMEOUT_S:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(0.5)
            title = "keeping the model in MLflow, seconds"
            emit("stage", {"title": title, "done": int(passed), "total": int(TIMEOUT_S)})
        return None
    finally:
        process.kill()


def _log(uri: str, run_id: str, folder: str) -> None:
    """The process `log_model` starts, with the job and theta in `folder`."""
    import mlflow
    from mlflow.models import ModelSignature

    job: JobSpec = from_json((Path(folder) / JOB).read_text())
    mlflow.set_tracking_uri(uri)
    mlflow.start_run(run_id=run_id)  # never ended here: the tracker does that
    mlflow.pyfunc.log_model(
        name=NAME,
        loader_module="meta_service.served",  # source code, not a pickle of an object
        data_path=folder,
        code_paths=[str(PACKAGE), *_job_packages(job)],
        signature=ModelSignature(*_schemas(job)),
        input_example=_example(job),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
    )
    os._exit(0)  # without MLflow's exit hook, which would end the run


def _job_packages(job: JobSpec) -> list[str]:
    """The folders of other packages the job's classes are from."""
    return [str(PACKAGE.parent / "jobs")] if '"jobs.' in to_json(job) else []


def _schemas(job: JobSpec) -> tuple[Any, Any, Any]:
    """Inputs, outputs and parameters of the model, as MLflow describes them."""
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    signature, images = job.tasks.signature, job.tasks.metric_name == "accuracy"
    x, y = np.dtype(np.float32), np.dtype(np.int64 if images else np.float32)
    shape = (-1, *signature.inputs)
    target = (-1,) if images else (-1, signature.outputs)
    inputs: list[Any] = [
        TensorSpec(x, shape, "support_x"),
        TensorSpec(y, target, "support_y"),
        TensorSpec(x, shape, "query_x"),
    ]
    params = [
        ParamSpec("steps", "integer", MetaModel(job, {}).default_steps),
        ParamSpec("inner_lr", "double", job.algorithm.inner_lr),
    ]
    return Schema(inputs), Schema([TensorSpec(y, target)]), ParamSchema(params)


def _example(job: JobSpec) -> dict[str, np.ndarray]:
    """A task of the right form: one example a class, or ten points; its content means nothing."""
    signature, images = job.tasks.signature, job.tasks.metric_name == "accuracy"
    examples = signature.outputs if images else 10
    x = np.random.default_rng(0).random((examples + 2, *signature.inputs), np.float32).round(1)
    y = np.arange(examples) if images else np.zeros((examples, signature.outputs), np.float32)
    return {"support_x": x[:examples], "support_y": y, "query_x": x[examples:]}


if __name__ == "__main__":
    _log(*sys.argv[1:])
