"""The doctor names what is wrong, and what to do about it."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from cluster import doctor
from cluster.doctor import Finding
from cluster.local import Surroundings


def printed() -> tuple[int, str]:
    text = io.StringIO()
    code = doctor.doctor(Console(file=text, width=200))
    return code, text.getvalue()


@pytest.fixture
def well(nothing_configured: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine on which all that does not depend on the test is in order."""
    monkeypatch.setattr(doctor, "memory", lambda: Finding("memory", "enough"))
    monkeypatch.setattr(doctor, "disk", lambda: Finding("state folder", "enough"))
    monkeypatch.setattr(doctor, "packages", lambda: iter([Finding("packages", "as locked")]))
    return monkeypatch


def test_a_fresh_machine_is_ready_although_nothing_runs_yet(well: pytest.MonkeyPatch) -> None:
    code, text = printed()
    assert code == 0
    assert text.count("embedded, not running") == 3
    assert "Ready: make submit JOB=sinusoid" in text


def test_running_services_are_asked_for_their_versions(surroundings: Surroundings) -> None:
    found = {finding.what: finding for finding in doctor.parts()}
    assert found["Ray"].found == f"embedded, {surroundings.ray}, version 2.60.0"
    assert found["MLflow"].found == f"embedded, {surroundings.mlflow}, version 3.17.2"
    assert found["S3"].found == f"embedded, {surroundings.env['AWS_ENDPOINT_URL']}"
    assert not any(finding.fix for finding in found.values())


def test_the_doctor_leaves_the_environment_as_it_was(surroundings: Surroundings) -> None:
    before = dict(os.environ)
    list(doctor.parts())
    assert dict(os.environ) == before


def test_a_configured_mlflow_that_is_dead_is_wrong_and_has_a_fix(well: pytest.MonkeyPatch) -> None:
    well.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    code, text = printed()
    assert code == 1
    assert "configured, http://127.0.0.1:1: not usable" in text
    assert "correct MLFLOW_TRACKING_URI, or unset" in text


def test_an_address_of_the_wrong_kind_is_wrong_and_has_a_fix(well: pytest.MonkeyPatch) -> None:
    well.setenv("RAY_ADDRESS", "ray://head:10001")
    code, text = printed()
    assert code == 1
    assert "http://head:8265" in text


def test_a_version_other_than_the_locked_one_is_wrong(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "ray==0.1 \\\n    --hash=sha256:0\nno-such-package==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:0\n"
    )
    _, ray, missing = doctor.packages(lock)
    assert ray.found == "2.60.0, locked is 0.1"
    assert missing.found == "missing, locked is 1.0"
    assert "make install" in ray.fix


def test_the_cpu_build_of_torch_counts_as_the_locked_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").write_text("torch==2.13.0 \\\n    --hash=sha256:0\n")
    monkeypatch.setattr(doctor, "installed", lambda name: "2.13.0+cpu")
    assert len(list(doctor.packages(tmp_path / "lock"))) == 1


def test_a_data_root_that_is_not_there_is_wrong(nothing_configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(nothing_configured / "data"))
    assert "DATA_ROOT" in doctor.data().found
    assert "unset" in doctor.data().fix


def test_data_sets_in_the_data_root_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "images_background.zip").touch()
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    assert doctor.data().found.startswith("omniglot in ")
    assert not doctor.data().fix


def test_too_little_memory_or_disk_is_pointed_out_but_does_not_forbid(nothing_configured: Path) -> None:
    for finding in (doctor.memory(needed=1e6), doctor.disk(needed=1e6)):
        assert finding.fix
        assert not finding.grave
