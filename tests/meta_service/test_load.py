"""Using a result: any sensible array goes in, what the job's own adaptation gives comes out, mistakes are one line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from cluster.surroundings import Surroundings
from meta_service.adapt import MetaModel
from meta_service.algorithms.maml import MAML
from meta_service.artifacts import DirectoryStore, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import to_json
from meta_service.episode import Batch
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.learner import loss_of
from meta_service.load import load, start_of
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.tasks.omniglot import Omniglot
from meta_service.tracking import MLflowTracker

SINUSOID = jobs.find("sinusoid")
OMNIGLOT = dataclasses.replace(
    jobs.find("omniglot"), tasks=Omniglot(ways=3, shots=1), model=Conv4(filters=4), algorithm=MAML(inner_lr=0.4)
)
COLOUR = dataclasses.replace(jobs.find("miniimagenet"), model=Conv4(filters=4, downsample="max_pool"))
RNG = np.random.default_rng(0)
LETTERS = RNG.integers(0, 256, (3, 28, 28), np.uint8)
QUERIES = RNG.integers(0, 256, (4, 28, 28), np.uint8)
X = np.linspace(-5, 5, 10)


def model(job: JobSpec) -> MetaModel:
    return MetaModel(job, job.init().params)


def save(root: Path | str, job: JobSpec = SINUSOID) -> None:
    """A run of two checkpoints, the first of them the best; their thetas are those of seeds 1 and 2."""
    store = open_store(str(root))
    store.write("job.json", to_json(job).encode())
    checkpoints = Checkpoints(store)
    for seed in (1, 2):
        state = dataclasses.replace(job, seed=seed).init()._replace(iteration=seed)
        checkpoints.save(state, best=seed == 1)


def is_of_seed(found: MetaModel, seed: int) -> bool:
    theta = dataclasses.replace(SINUSOID, seed=seed).init().params
    return all(torch.equal(found.params[name], theta[name]) for name in theta)


def test_adaptation_is_the_jobs_own() -> None:
    adapted = model(SINUSOID).adapt(X, np.sin(X), steps=3)
    x, y = torch.from_numpy(X).float()[:, None], torch.from_numpy(np.sin(X)).float()[:, None]
    loss = loss_of(SINUSOID, SINUSOID.tasks)
    expected = SINUSOID.algorithm.adapt(loss, SINUSOID.init().params, (Batch((x,), y),) * 3)
    assert np.array_equal(adapted.predict(X), SINUSOID.model.apply(expected, x).numpy()[:, 0])


def test_steps_are_those_of_the_first_evaluation() -> None:
    adapted = model(SINUSOID).adapt(X, np.sin(X))
    assert SINUSOID.evaluations[0].steps == 10
    assert np.array_equal(adapted.predict(X), model(SINUSOID).adapt(X, np.sin(X), steps=10).predict(X))


def test_steps_are_by_default_those_the_first_result_is_stated_for() -> None:
    assert model(SINUSOID).default_steps == 10
    assert model(jobs.find("omniglot")).default_steps == 3


def test_no_steps_leave_theta() -> None:
    adapted = model(SINUSOID).adapt(X, np.sin(X), steps=0)
    assert torch.equal(adapted.params["linear0.weight"], SINUSOID.init().params["linear0.weight"])


def test_adapting_leaves_the_model_as_it_was() -> None:
    meta = model(SINUSOID)
    meta.adapt(X, np.sin(X))
    assert torch.equal(meta.params["linear0.weight"], SINUSOID.init().params["linear0.weight"])


def test_another_step_size_goes_another_way() -> None:
    one, other = (model(SINUSOID).adapt(X, np.sin(X), steps=1, inner_lr=lr).predict(X) for lr in (0.01, 0.1))
    assert not np.array_equal(one, other)


def test_regression_answers_in_the_form_it_was_asked_in() -> None:
    flat = model(SINUSOID).adapt(X, np.sin(X)).predict(X)
    column = model(SINUSOID).adapt(X[:, None], np.sin(X)[:, None]).predict(X[:, None])
    assert (flat.shape, column.shape) == ((10,), (10, 1))
    assert flat.dtype == column.dtype == np.float32
    assert np.array_equal(flat, column[:, 0])


def test_tensors_and_lists_are_as_good_as_arrays() -> None:
    expected = model(SINUSOID).adapt(X, np.sin(X)).predict(X)
    tensors = model(SINUSOID).adapt(torch.from_numpy(X), torch.from_numpy(np.sin(X))).predict(torch.from_numpy(X))
    lists = model(SINUSOID).adapt(X.tolist(), np.sin(X).tolist()).predict(X.tolist())
    assert np.array_equal(expected, tensors)
    assert np.array_equal(expected, lists)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8 [n, H, W]": lambda x: x,
    "uint8 [n, H, W, C]": lambda x: x[..., None],
    "uint8 [n, C, H, W]": lambda x: x[:, None],
    "float [n, H, W]": lambda x: x.astype(np.float32) / 255,
    "float [n, C, H, W]": lambda x: x[:, None].astype(np.float32) / 255,
    "tensor": lambda x: torch.from_numpy(x)[:, None].float() / 255,
}


@pytest.mark.parametrize("form", FORMS)
def test_images_may_come_in_any_usual_form(form: str) -> None:
    expected = model(OMNIGLOT).adapt(LETTERS, [0, 1, 2]).predict_proba(QUERIES)
    adapted = model(OMNIGLOT).adapt(FORMS[form](LETTERS), [0, 1, 2])
    assert np.allclose(adapted.predict_proba(FORMS[form](QUERIES)), expected, atol=1e-6)


def test_colours_may_be_last_or_first() -> None:
    x = RNG.integers(0, 256, (5, 84, 84, 3), np.uint8)
    last = model(COLOUR).adapt(x, range(5), steps=1).predict_proba(x)
    first = model(COLOUR).adapt(x.transpose(0, 3, 1, 2), range(5), steps=1).predict_proba(x)
    assert np.allclose(last, first, atol=1e-6)


@pytest.mark.parametrize("labels", [["c", "a", "b"], [("x", 1), None, 2.5], (7, 3, 5)])
def test_labels_may_be_anything_and_come_back(labels: Any) -> None:
    adapted = model(OMNIGLOT).adapt(LETTERS, labels, steps=20)
    assert adapted.classes == list(labels)
    assert adapted.predict(LETTERS) == list(labels)


def test_labels_from_an_array_come_back_as_an_array() -> None:
    predicted = model(OMNIGLOT).adapt(LETTERS, np.array(["c", "a", "b"]), steps=20).predict(LETTERS)
    assert np.array_equal(predicted, np.array(["c", "a", "b"]))


def test_the_order_of_the_examples_does_not_name_the_classes() -> None:
    doubled = np.concatenate((LETTERS, LETTERS[::-1]))
    adapted = model(OMNIGLOT).adapt(doubled, ["a", "b", "c", "c", "b", "a"], steps=20)
    assert adapted.predict(LETTERS) == ["a", "b", "c"]


def test_probabilities_add_up_to_one() -> None:
    probabilities = model(OMNIGLOT).adapt(LETTERS, "abc").predict_proba(QUERIES)
    assert probabilities.shape == (4, 3)
    assert np.allclose(probabilities.sum(1), 1)


def test_alpha_means_the_same_for_any_number_of_shots() -> None:
    once = model(OMNIGLOT).adapt(LETTERS, "abc", steps=2)
    twice = model(OMNIGLOT).adapt(np.repeat(LETTERS, 2, 0), "aabbcc", steps=2)
    assert np.allclose(once.predict_proba(QUERIES), twice.predict_proba(QUERIES), atol=1e-5)


@pytest.mark.parametrize("transductive", [True, False])
def test_only_the_transductive_mode_looks_at_the_queries_together(transductive: bool) -> None:
    job = dataclasses.replace(OMNIGLOT, tasks=dataclasses.replace(OMNIGLOT.tasks, transductive=transductive))  # type: ignore[type-var]
    adapted = model(job).adapt(LETTERS, "abc")
    together = adapted.predict_proba(QUERIES)
    alone = np.concatenate([adapted.predict_proba(query[None]) for query in QUERIES])
    assert np.allclose(together, alone, atol=1e-5) != transductive


BAD_IMAGES = {
    "one image alone": (LETTERS[0], "abc", r"support_x: \[n, 1, 28, 28\].*\[28, 28\] came"),
    "another size": (LETTERS[:, :20], "abc", r"\[3, 20, 28\] came; resize"),
    "colours": (np.zeros((3, 28, 28, 3), np.uint8), "abc", r"\[3, 28, 28, 3\] came"),
    "none": (LETTERS[:0], "", "at least one image"),
    "integers": (LETTERS.astype(np.int64), "abc", "uint8 or floating-point images are expected, torch.int64 came"),
    "floats up to 255": (LETTERS.astype(np.float32), "abc", r"0 \.\.\. 1 are expected.*divide by 255"),
    "no number": (np.full((3, 28, 28), np.nan), "abc", "NaN or infinity"),
    "a text": ("letters", "abc", "an array of numbers is expected, str came"),
    "ragged": ([[1, 2], [3]], "abc", "an array of numbers is expected, list came"),
    "too few labels": (LETTERS, "ab", "3 labels are expected, one a support example, 2 came"),
    "too few classes": (LETTERS, "aab", "3 classes are expected, as the model was trained, 2 came"),
    "one-hot": (LETTERS, np.eye(3), "argmax of one-hot"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_examples_of_classes_are_told(case: str) -> None:
    x, y, message = BAD_IMAGES[case]
    with pytest.raises(UserError, match=message) as raised:
        model(OMNIGLOT).adapt(x, y)
    assert "\n" not in str(raised.value)


BAD_POINTS = {
    "two features": (np.zeros((10, 2)), X, r"support_x: \[n, 1\] or \[n\] is expected, \[10, 2\] came"),
    "nothing": (X[:0], X[:0], r"\[0, 1\] came"),
    "fewer values": (X, X[:9], r"support_y: \[10, 1\] is expected, \[9\] came"),
    "infinity": (X, np.full(10, np.inf), "support_y: finite numbers"),
}


@pytest.mark.parametrize("case", BAD_POINTS)
def test_bad_points_are_told(case: str) -> None:
    x, y, message = BAD_POINTS[case]
    with pytest.raises(UserError, match=message):
        model(SINUSOID).adapt(x, y)


def test_bad_queries_are_told() -> None:
    with pytest.raises(UserError, match=r"query_x: \[n, 1, 28, 28\]"):
        model(OMNIGLOT).adapt(LETTERS, "abc").predict(LETTERS[0])


def test_negative_steps_are_told() -> None:
    with pytest.raises(UserError, match="steps: at least 0 is expected, -1 came"):
        model(SINUSOID).adapt(X, X, steps=-1)


def test_regression_has_no_probabilities() -> None:
    with pytest.raises(UserError, match="a classification run is expected"):
        model(SINUSOID).adapt(X, X).predict_proba(X)


def test_a_run_is_loaded_from_its_folder(tmp_path: Path) -> None:
    save(tmp_path)
    assert is_of_seed(load(str(tmp_path)), 1)
    assert load(str(tmp_path)).job == SINUSOID


def test_the_latest_may_be_asked_for(tmp_path: Path) -> None:
    save(tmp_path)
    assert is_of_seed(load(str(tmp_path), "latest"), 2)


def test_where_none_is_best_the_latest_is_taken(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "BEST").unlink()
    for manifest in (tmp_path / "manifests").glob("000000001-*"):
        manifest.unlink()
    assert is_of_seed(load(str(tmp_path)), 2)


def test_a_run_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "sinusoid-1")
    monkeypatch.setenv("ARTIFACT_ROOT", str(tmp_path))
    assert is_of_seed(load("sinusoid-1"), 1)


def test_a_job_starts_from_the_best_theta_of_another_run_with_an_optimiser_of_its_own(tmp_path: Path) -> None:
    save(tmp_path)
    start = start_of(dataclasses.replace(SINUSOID, start_from=str(tmp_path), seed=5))
    assert start.sha256() == dataclasses.replace(SINUSOID, seed=1).init().sha256()


def test_a_job_cannot_start_from_the_theta_of_another_network(tmp_path: Path) -> None:
    save(tmp_path)
    job = dataclasses.replace(SINUSOID, start_from=str(tmp_path), model=MLP(hidden=(40, 41)))
    with pytest.raises(UserError, match=r"start_from=.*: its theta is of another shape than this job's"):
        start_of(job)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is no run"):
        load(str(tmp_path))


def test_a_run_before_its_first_checkpoint_is_told(tmp_path: Path) -> None:
    DirectoryStore(tmp_path).write("job.json", to_json(SINUSOID).encode())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load(str(tmp_path))


def test_a_name_without_a_place_is_told(nothing_configured: Path) -> None:
    with pytest.raises(UserError, match="set ARTIFACT_ROOT"):
        load("sinusoid-1")


def test_an_id_without_a_server_is_told(nothing_configured: Path) -> None:
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI"):
        load("0123456789abcdef" * 2)


def test_a_dead_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_ROOT", "s3://runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"MLflow at http://127\.0\.0\.1:1 gives no run"):
        load("0123456789abcdef" * 2)


@pytest.fixture
def address(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A run in S3."""
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    address = f"{surroundings.artifacts}/{tmp_path.name}"
    save(address)
    return address


def test_a_run_is_loaded_from_s3(address: str) -> None:
    assert is_of_seed(load(address), 1)


def test_a_run_is_loaded_by_its_mlflow_id(surroundings: Surroundings, address: str, tmp_path: Path) -> None:
    tags = {"meta.artifacts": address}
    tracker = MLflowTracker.start(surroundings.mlflow, "load", "r", None, tmp_path / "spool", tags)
    tracker.end("FINISHED")
    assert tracker.run_id
    assert is_of_seed(load(tracker.run_id), 1)


def test_services_of_this_machine_are_found(
    surroundings: Surroundings, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in surroundings.env:
        monkeypatch.delenv(name)
    monkeypatch.setenv("META_STATE", str(tmp_path))
    (tmp_path / "env.json").write_text(json.dumps(surroundings.env))
    assert is_of_seed(load(address.rpartition("/")[2]), 1)
