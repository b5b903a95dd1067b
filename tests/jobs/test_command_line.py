"""The command line refuses what is wrong in one line, before anything starts."""

import urllib.request
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from jobs.__main__ import program


@pytest.fixture
def user(nothing_configured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without data, services or a network; his folder."""
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):  # a port where nobody answers
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies it was first used with
    (tmp_path / "data").mkdir()
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(program, list(arguments))


def refused(result: Result) -> str:
    """The one line a refusal consists of."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith("Preparing")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def folder_of_images(root: Path, classes: int, images: int) -> Path:
    for split in ("train", "validation", "test"):
        for c in range(classes):
            folder = root / split / f"class{c}"
            folder.mkdir(parents=True)
            for i in range(images):
                Image.new("L", (20, 20), (37 * c + 11 * i) % 256).save(folder / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "omniglott"], "there is no job 'omniglott'; the nearest is 'omniglot'"),
        (["submit", "sinusoid", "tasks.shot=5"], "there is no field 'tasks.shot'; the nearest is 'tasks.shots'"),
        (["submit", "sinusoid", "tasks.shots=many"], "tasks.shots: int is expected, 'many' came"),
        (["submit", "sinusoid", "meta_batch_size=0"], "meta_batch_size: at least 1 is expected, 0 came"),
        (["sweep", "omniglott"], "there is no job 'omniglott'; the nearest is 'omniglot'"),
        (["sweep", "sinusoid", "space.algorithm.inner_rl=uniform(0, 1)"], "the nearest is 'algorithm.inner_lr'"),
        (["sweep", "sinusoid", "space.algorithm.inner_lr=0.1"], "loguniform(LOW, HIGH)"),
        (["sweep", "sinusoid", "tune.trial=3"], "there is no field 'tune.trial'; the nearest is 'tune.trials'"),
        (["sweep", "sinusoid", "start_from=a-run"], "start_from: trials begin with the theta their seed names"),
        (["logs"], "nothing is running on this machine; `make submit JOB=sinusoid` starts it"),
        (["stop", "a-run"], "nothing is running on this machine"),
    ],
)
def test_a_mistake_is_answered_in_one_line(user: Path, arguments: list[str], message: str) -> None:
    assert message in refused(run(*arguments))
    assert not (user / "state").exists()


def test_a_dry_run_shows_every_field_and_starts_nothing(user: Path) -> None:
    result = run("submit", "sinusoid", "tasks.shots=5", "--dry-run")
    assert result.exit_code == 0
    assert "algorithm.inner_lr" in result.output
    assert "Nothing was started" in result.output
    assert not (user / "state").exists()


def test_a_dry_run_of_a_sweep_shows_its_space_and_starts_nothing(user: Path) -> None:
    result = run("sweep", "sinusoid", "space.algorithm.inner_lr=loguniform(1e-3, 1)", "--dry-run")
    assert result.exit_code == 0
    assert "loguniform(0.001, 1)" in result.output
    assert "tune.trials" in result.output
    assert not (user / "state").exists()


def test_more_ways_than_classes_are_refused_with_the_number_there_is(user: Path) -> None:
    path = folder_of_images(user / "birds", classes=4, images=6)
    line = refused(run("submit", "image_folder", f"tasks.path={path}", "tasks.ways=5", "--dry-run"))
    assert "has 4 classes, 5 asked; use tasks.ways <= 4" in line


def test_more_shots_and_queries_than_images_are_refused_for_every_evaluation(user: Path) -> None:
    path = folder_of_images(user / "birds", classes=5, images=6)
    asked = [f"tasks.path={path}", "tasks.query_shots=5", "evaluations.strict.query_shots=15", "--dry-run"]
    line = refused(run("submit", "image_folder", *asked))
    assert "evaluations.strict: " in line
    assert "has 6 images, 1 shots + 15 query examples asked" in line


def test_missing_data_without_a_network_say_what_to_fetch_and_where_to_put_it(user: Path) -> None:
    line = refused(run("submit", "miniimagenet"))
    assert "DATA_ROOT" in line
    assert "mini-imagenet-cache-train.pkl" in line


def test_a_truncated_archive_is_named_and_leaves_nothing_half_written(user: Path) -> None:
    archive = user / "data" / "images_background.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images_background/Greek/character01/0001_01.png", b"x" * 10_000)
    archive.write_bytes(archive.read_bytes()[:5_000])
    (user / "data" / "images_evaluation.zip").write_bytes(archive.read_bytes())
    assert "images_background.zip" in refused(run("submit", "omniglot"))
    assert not [path for path in (user / "cache").rglob("*") if path.suffix == ".npy"]


def test_a_dead_mlflow_is_named_before_a_run_is_made(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("ARTIFACT_ROOT", "s3://bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert "http://127.0.0.1:9" in refused(run("submit", "sinusoid"))


def test_help_teaches_with_examples() -> None:
    for command in ("submit", "sweep", "status", "logs", "stop", "resume", "evaluate", "block", "ui", "down", "doctor"):
        assert command in run("--help").output
    assert "tasks.shots=5" in run("submit", "--help").output
    assert "space.algorithm.inner_lr=loguniform(1e-3,1)" in run("sweep", "--help").output
