"""The MLflow model of a run predicts what `load` predicts, in a process that knows nothing else."""

import ast
import dataclasses
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

import jobs
from cluster.surroundings import Surroundings
from meta_service import serving
from meta_service.adapt import MetaModel
from meta_service.dotted import to_json
from meta_service.models.conv4 import Conv4
from meta_service.progress import Emit
from meta_service.served import JOB, PARAMS, _load_pyfunc
from meta_service.tasks.omniglot import Omniglot
from meta_service.tracking import MemoryTracker, MLflowTracker

OMNIGLOT = dataclasses.replace(jobs.find("omniglot"), tasks=Omniglot(ways=3, shots=1), model=Conv4(filters=4))
SINUSOID = jobs.find("sinusoid")

CLIENT = """
import sys, mlflow, numpy
request = dict(numpy.load("request.npz"))
model = mlflow.pyfunc.load_model(f"runs:/{sys.argv[1]}/model")
numpy.savez("answer.npz", usual=model.predict(request), few=model.predict(request, params={"steps": 1}))
"""


def hearing(said: list[str]) -> Emit:
    """Keeps what is said, and not how far something is."""
    return lambda kind, fields: said.extend([fields["text"]] if kind == "say" else [])


def request() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.random((9, 1, 28, 28), np.float32)
    return {"support_x": x[:3], "support_y": np.array([7, 3, 5]), "query_x": x[3:]}


def test_a_client_in_another_process_gets_what_load_gives(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    state = OMNIGLOT.init()
    tracker = MLflowTracker.start(surroundings.mlflow, "serving", "r", None, tmp_path / "spool", {})
    tracker.params({"name": OMNIGLOT.name})
    tracker.end("FINISHED")
    said: list[str] = []
    serving.log_model(tracker, OMNIGLOT, state, hearing(said))
    assert said == []
    asked = request()
    np.savez(tmp_path / "request.npz", allow_pickle=False, **asked)
    subprocess.run([sys.executable, "-c", CLIENT, str(tracker.run_id)], cwd=tmp_path, check=True)
    model = MetaModel(OMNIGLOT, state.params)
    with np.load(tmp_path / "answer.npz") as answer:
        for name, steps in (("usual", None), ("few", 1)):
            adapted = model.adapt(asked["support_x"], asked["support_y"], steps)
            assert np.array_equal(answer[name], adapted.predict(asked["query_x"]))


def test_a_folder_with_job_and_theta_is_all_it_needs(tmp_path: Path) -> None:
    state = SINUSOID.init()
    (tmp_path / JOB).write_text(to_json(SINUSOID))
    save_file(state.params, tmp_path / PARAMS)
    x = np.linspace(-5, 5, 10, dtype=np.float32)[:, None]
    answer = _load_pyfunc(str(tmp_path)).predict({"support_x": x, "support_y": np.sin(x), "query_x": x}, {"steps": 2})
    expected = MetaModel(SINUSOID, state.params).adapt(x, np.sin(x), steps=2).predict(x)
    assert np.array_equal(answer, expected)


def test_everything_a_served_model_imports_is_installed_with_it() -> None:
    package = serving.PACKAGE
    modules = ["meta_service.served"]
    modules += [f"meta_service.{f}.{m.stem}" for f in ("tasks", "models") for m in (package / f).glob("[!_]*.py")]
    code = f"import sys, {', '.join(modules)}; print(*(m for m in sys.modules if m.startswith('meta_service')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    imported = set()
    for name in done.stdout.split():
        (path,) = (
            p for end in (".py", "/__init__.py") if (p := package.parent / (name.replace(".", "/") + end)).exists()
        )
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    foreign = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"meta_service"}
    packages = packages_distributions()  # several may bring the same module
    missing = {name for name in foreign if not {p.lower() for p in packages[name]} & set(serving.REQUIREMENTS)}
    assert {"torch", "PIL"} <= foreign
    assert not missing


def test_the_example_fits_the_signature() -> None:
    from mlflow.models import ModelSignature

    for job in (OMNIGLOT, SINUSOID):
        signature = ModelSignature(*serving._schemas(job))
        example = serving._example(job)
        for spec in signature.inputs.inputs:
            assert example[spec.name].dtype == spec.type
            assert [n for n, fixed in zip(example[spec.name].shape, spec.shape, strict=True) if fixed != -1] == [
                fixed for fixed in spec.shape if fixed != -1
            ]


def what_logging_says() -> list[str]:
    """The words of `log_model` for a run that exists."""
    said: list[str] = []

    class Existing(MLflowTracker):
        run_id = "0" * 32

        def __init__(self) -> None:
            self.uri = "http://127.0.0.1:1"

    serving.log_model(Existing(), SINUSOID, SINUSOID.init(), hearing(said))
    return said


def test_a_model_that_cannot_be_logged_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho Traceback >&2\necho MlflowException: no such run >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    assert what_logging_says() == ["the model is not kept in MLflow, its checkpoint is: MlflowException: no such run"]


def test_logging_a_model_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TIMEOUT_S", 0.1)
    assert what_logging_says() == ["the model is not kept in MLflow, its checkpoint is: not done after 0.1 s"]


def test_a_run_that_is_not_in_mlflow_needs_no_model() -> None:
    serving.log_model(MemoryTracker(), SINUSOID, SINUSOID.init(), lambda kind, fields: pytest.fail("nothing to say"))
