"""What the user's environment says of services, without any."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import local, process, services
from cluster.services import Place
from cluster.surroundings import Configured, compose, configured
from meta_service.errors import UserError
from tests.loopback import refuse_to_start


@pytest.mark.parametrize("address", ["ray://host:10001", "host:6379", "host", "auto"])
def test_a_ray_address_that_is_not_the_jobs_api_is_refused_with_the_likely_one(address: str) -> None:
    with pytest.raises(UserError, match=r"RAY_ADDRESS was expected to be the Jobs API.*http://(host|HOST):8265"):
        configured({"RAY_ADDRESS": address})


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "mlruns", "databricks"])
def test_a_tracking_uri_that_is_no_server_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI was expected to be a server"):
        configured({"MLFLOW_TRACKING_URI": uri})


@pytest.mark.parametrize("root", ["/data", "s3://", "bucket/prefix"])
def test_an_artifact_root_that_is_no_bucket_is_refused(root: str) -> None:
    with pytest.raises(UserError, match="ARTIFACT_ROOT was expected to be s3://bucket"):
        configured({"ARTIFACT_ROOT": root})


def test_a_cluster_elsewhere_cannot_be_mixed_with_services_of_this_machine() -> None:
    with pytest.raises(UserError, match=r"cannot reach .* set MLFLOW_TRACKING_URI and ARTIFACT_ROOT too"):
        configured({"RAY_ADDRESS": "http://10.0.0.1:8265"})


def test_everything_configured_starts_nothing_and_passes_the_account_on(
    nothing_configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example/")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    monkeypatch.setenv("ARTIFACT_ROOT", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setattr(process, "start", refuse_to_start)
    found = local.bring_up(print)
    assert found.embedded == frozenset()
    assert found.ray == "https://ray.example"
    wanted = {"MLFLOW_TRACKING_TOKEN": "secret", "AWS_ACCESS_KEY_ID": "key", "ARTIFACT_ROOT": "s3://bucket/prefix"}
    assert found.env.items() >= wanted.items()
    assert not nothing_configured.exists()


def test_the_auth_mode_is_always_set(nothing_configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://ray.example")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    monkeypatch.setenv("ARTIFACT_ROOT", "s3://bucket")
    assert local.bring_up(print).env["RAY_AUTH_MODE"] == "disabled"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    assert local.bring_up(print).env["RAY_AUTH_MODE"] == "token"


def test_an_external_bucket_also_takes_the_artifacts_of_the_embedded_mlflow(
    nothing_configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACT_ROOT", "s3://bucket/prefix")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example")
    service = local._service("mlflow", Place(nothing_configured), configured(), {"mlflow": 5000})
    assert service.command[-2:] == ("--artifacts-destination", "s3://bucket/prefix/mlflow")
    assert service.env["MLFLOW_S3_ENDPOINT_URL"] == "http://s3.example"


def test_services_do_not_inherit_the_users_accounts(nothing_configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("RAY_ADDRESS", "http://ray.example")
    env = services.ray(Place(nothing_configured), dict.fromkeys((p.name for p in services.RAY_PORTS), 1)).env
    assert "AWS_PROFILE" not in env
    assert "RAY_ADDRESS" not in env


def test_an_address_of_the_user_s_beside_embedded_ones_counts() -> None:
    inherited = {"META_EMBEDDED": "http://127.0.0.1:5000 s3://runs", "ARTIFACT_ROOT": "s3://runs"}
    given = configured(inherited | {"MLFLOW_TRACKING_URI": "http://mlflow.example"})
    assert given == (None, "http://mlflow.example", None)


def test_where_the_files_are_comes_with_each_job_and_not_from_the_start_of_the_services(
    nothing_configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in services.FOLDERS:
        monkeypatch.setenv(name, "/somewhere")
    place = Place(nothing_configured)
    known = {port.name: 1 for ports in services.PORTS.values() for port in ports}
    assert not services.ray(place, known).env.keys() & {*services.FOLDERS}
    nothing_configured.mkdir()
    assert compose(place, configured(), known).env.items() >= dict.fromkeys(services.FOLDERS, "/somewhere").items()
    cluster = Configured("http://ray.example", "http://mlflow.example", "s3://bucket")
    assert compose(place, cluster, {}).env.keys() & {*services.FOLDERS} == {"DATA_ROOT", "DATA_CACHE"}
    for name in services.FOLDERS:
        monkeypatch.delenv(name)
    assert not compose(place, configured(), known).env.keys() & {*services.FOLDERS}


@pytest.mark.parametrize("command", [lambda: local.bring_up(print), local.find, local.ui])
def test_a_state_folder_that_cannot_be_used_is_one_line(
    nothing_configured: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[], object]
) -> None:
    file = nothing_configured.with_name("file")
    file.touch()
    monkeypatch.setenv("META_STATE", str(file / "state"))
    with pytest.raises(UserError, match=r"cannot be used .*set META_STATE to a folder of your own") as caught:
        command()
    assert "\n" not in str(caught.value)


def test_nothing_runs_in_an_empty_state_folder(nothing_configured: Path) -> None:
    assert local.find() is None
    said: list[str] = []
    local.take_down(said.append)
    assert said == ["Nothing was running"]
    assert {address for _, address, _ in local.ui()} == {"-"}
