"""The embedded services: real ones, started once, found again, and gone without a trace."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from cluster import local, ports, process, services
from cluster.local import Surroundings
from cluster.probe import bearer, get
from cluster.services import Place
from cluster.surroundings import configured
from meta_service.errors import UserError
from tests.loopback import free_port, listening, refuse_to_start


@pytest.fixture
def place(surroundings: Surroundings) -> Place:
    return Place(Path(os.environ["META_STATE"]).resolve())


class TestRunning:
    """With all services up; the tests that disturb one leave it up again."""

    def test_all_three_are_embedded_and_pass_the_preflight(self, surroundings: Surroundings) -> None:
        assert surroundings.embedded == {"ray", "mlflow", "s3"}
        local.check(surroundings)

    def test_a_second_bring_up_starts_nothing_and_takes_less_than_two_seconds(
        self, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "start", refuse_to_start)
        since = time.monotonic()
        assert local.bring_up(print) == surroundings
        assert time.monotonic() - since < 2

    def test_find_gives_the_same_without_starting(self, surroundings: Surroundings) -> None:
        assert local.find() == surroundings

    def test_a_job_in_another_folder_finds_the_data_of_a_relative_data_root(
        self, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("DATA_ROOT", "data")
        assert local.bring_up(print).env["DATA_ROOT"] == str(tmp_path / "data")

    def test_what_was_brought_into_the_environment_is_still_embedded(
        self, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in surroundings.env.items():
            monkeypatch.setenv(name, value)
        assert local.bring_up(print) == surroundings
        assert configured().embedded == {"ray", "mlflow", "s3"}

    def test_runs_can_be_asked_about_while_mlflow_is_silent(self, surroundings: Surroundings, place: Place) -> None:
        record = process.read(place.logs, "mlflow")
        assert record is not None
        members = process.members(record)
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        try:
            since = time.monotonic()
            assert local.find() == surroundings
            assert time.monotonic() - since < 2
        finally:
            for pid in members:
                os.kill(pid, signal.SIGCONT)

    def test_a_silent_ray_is_given_all_the_same(
        self, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(local, "BUSY", 0.5)
        real = services.ray
        monkeypatch.setattr(services, "ray", lambda *given: real(*given)._replace(ready=lambda: False))
        assert local.find() == surroundings

    def test_secrets_are_for_the_owner_only(self, place: Place) -> None:
        for path in (place.state, place.credentials, place.token, place.temp, place.logs):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_what_mlflow_s3_and_the_dashboard_listen_on_is_loopback(
        self, surroundings: Surroundings, place: Place
    ) -> None:
        known = ports.remembered(place.state)
        outer = {number for address, number in listening() if address not in ("127.0.0.1", "127.0.0.2")}
        assert (
            not {known["mlflow"], known["ray.dashboard"], *(n for name, n in known.items() if name[:2] == "s3")} & outer
        )

    def test_ray_answers_only_to_its_token(self, surroundings: Surroundings, place: Place) -> None:
        address = f"{surroundings.ray}/api/jobs/"
        assert get(address, bearer(services.token(place))).status == 200
        assert get(address).status == 401
        assert get(address, bearer("0" * 64)).status == 403

    def test_a_wrong_token_is_one_line_that_names_the_setting(self, surroundings: Surroundings, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("0" * 64)
        wrong = surroundings._replace(env=surroundings.env | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
        with pytest.raises(UserError, match=r"refused the token \(HTTP 403\).*RAY_AUTH_TOKEN_PATH"):
            local.check(wrong)

    def test_wrong_s3_credentials_are_one_line_within_ten_seconds(self, surroundings: Surroundings) -> None:
        since = time.monotonic()
        with pytest.raises(UserError) as caught:
            local.check(surroundings._replace(env=surroundings.env | {"AWS_SECRET_ACCESS_KEY": "wrong"}))
        assert "\n" not in str(caught.value)
        assert time.monotonic() - since < 10

    def test_an_s3_endpoint_that_refuses_is_one_line_within_ten_seconds(self, surroundings: Surroundings) -> None:
        since = time.monotonic()
        with pytest.raises(UserError) as caught:
            local.check(
                surroundings._replace(env=surroundings.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"})
            )
        assert "\n" not in str(caught.value)
        assert time.monotonic() - since < 10

    def test_a_dead_mlflow_is_one_line_that_says_how_to_go_on(self, surroundings: Surroundings) -> None:
        dead = surroundings._replace(mlflow=f"http://127.0.0.1:{free_port()}", embedded=frozenset({"ray", "s3"}))
        with pytest.raises(UserError, match="connection was refused; start it, correct MLFLOW_TRACKING_URI"):
            local.check(dead)

    def test_a_port_fixed_by_the_user_while_the_service_runs_elsewhere_is_an_error(
        self, surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("S3_PORT", str(free_port()))
        with pytest.raises(UserError, match=r"S3 was expected on S3_PORT=.*already runs on .*make down"):
            local.bring_up(print)

    def test_ui_names_where_each_part_is(self, surroundings: Surroundings) -> None:
        rows = {name: address for name, address, _ in local.ui()}
        assert rows["Ray"] == surroundings.ray
        assert rows["MLflow"] == surroundings.mlflow
        assert rows["S3"] == surroundings.env["AWS_ENDPOINT_URL"]

    def test_a_killed_service_is_started_again_on_its_port_with_its_data(
        self, surroundings: Surroundings, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from meta_service.artifacts import open_store

        for name, value in surroundings.env.items():
            monkeypatch.setenv(name, value)
        open_store("s3://runs/kept").write("a", b"1")
        record = process.read(place.logs, "s3")
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        while process.alive(record):
            time.sleep(0.05)
        assert local.find() is None
        assert local.bring_up(print) == surroundings
        assert open_store("s3://runs/kept").read("a") == b"1"

    def test_a_command_beside_another_waits_for_its_turn(self, surroundings: Surroundings, place: Place) -> None:
        hold = f"""
import filelock, time
lock = filelock.FileLock({str(place.state / "lock")!r})
lock.acquire()
print(1, flush=True)
time.sleep(2)
"""
        other = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
        assert other.stdout is not None
        with other, other.stdout:
            other.stdout.readline()
            said: list[str] = []
            assert local.bring_up(said.append) == surroundings
        assert said == ["Waiting for another command that starts or stops the services"]


class TestBesideAnother:
    """A second state folder that embeds S3 alone, and uses the Ray and MLflow of the first as a user's own."""

    @pytest.fixture
    def second(
        self, surroundings: Surroundings, place: Place, nothing_configured: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Surroundings:
        monkeypatch.setenv("RAY_ADDRESS", surroundings.ray)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(place.token))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", surroundings.mlflow)
        return local.bring_up(print)

    def test_configured_addresses_replace_the_embedded_parts_one_by_one(
        self, surroundings: Surroundings, second: Surroundings
    ) -> None:
        assert second.embedded == {"s3"}
        assert (second.ray, second.mlflow) == (surroundings.ray, surroundings.mlflow)
        local.check(second)

    def test_each_has_its_own_port_account_and_buckets(self, surroundings: Surroundings, second: Surroundings) -> None:
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert second.env[name] != surroundings.env[name]

    def test_taking_one_down_leaves_the_other_alone(self, surroundings: Surroundings, second: Surroundings) -> None:
        said: list[str] = []
        local.take_down(said.append)
        assert said == ["Stopped S3"]
        assert local.find() is None
        local.check(surroundings)

    def test_a_token_that_is_not_there_is_one_line(
        self, second: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "nowhere"))
        with pytest.raises(UserError, match=r"token was expected in RAY_AUTH_TOKEN_PATH=.*No such file"):
            local.check(second)

    def test_a_ray_that_wants_a_token_says_so_to_one_without(
        self, second: Surroundings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
        with pytest.raises(UserError, match="asks for a token; set RAY_AUTH_MODE=token"):
            local.check(second)


@pytest.mark.last
def test_taking_down_leaves_no_process_no_port_and_no_folder(surroundings: Surroundings, place: Place) -> None:
    records = [record for name in local.ORDER if (record := process.read(place.logs, name))]
    everyone = set().union(*(process.members(record) for record in records))
    bound = {number for _, number in listening()} & set(ports.remembered(place.state).values())
    assert len(records) == 3
    assert len(everyone) > 10  # Ray alone has more helpers than that
    assert len(bound) > 10
    ray.shutdown()  # Ray ends, without a word, the process of a driver whose head is gone for some seconds
    since = time.monotonic()
    local.take_down(print)
    assert time.monotonic() - since < 60
    assert not set().union(*(process.members(record) for record in records))
    assert not bound & {number for _, number in listening()}
    assert not place.temp.exists()
    assert not [path for path in services.socket_files(ports.remembered(place.state)) if path.exists()]
    assert (place.state / "mlflow.db").exists()  # results stay
    assert local.find() is None


class TestFailing:
    """Services that do not come up."""

    @pytest.fixture
    def broken(self, nothing_configured: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        """Only S3 embedded, to be replaced by something that does not work."""
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        return monkeypatch

    def replace_s3(self, patch: pytest.MonkeyPatch, code: str, patience: float) -> None:
        command = (sys.executable, "-c", code)
        real = services.s3
        fake = lambda place, known: real(place, known)._replace(command=command, patience=patience)  # noqa: E731
        patch.setattr(services, "s3", fake)

    def test_a_service_that_ends_at_once_is_tried_again_and_then_quoted(
        self, broken: pytest.MonkeyPatch, nothing_configured: Path
    ) -> None:
        self.replace_s3(broken, "raise SystemExit('disk full')", 5)
        said: list[str] = []
        with pytest.raises(
            UserError, match=r"S3 was expected to start, but its process ended \(disk full\); see .*s3\.log"
        ):
            local.bring_up(said.append)
        assert sum("trying again" in line for line in said) == 1
        assert (nothing_configured / "services" / "s3.log").exists()

    def test_a_service_that_never_answers_is_given_up_and_ended(
        self, broken: pytest.MonkeyPatch, nothing_configured: Path
    ) -> None:
        self.replace_s3(broken, "import time; time.sleep(60)", 0.3)
        with pytest.raises(UserError, match="it did not answer within"):
            local.bring_up(print)
        assert process.read(nothing_configured / "services", "s3") is None

    def test_a_folder_of_somebody_elses_is_not_used(self, nothing_configured: Path) -> None:
        place = Place(nothing_configured)
        elsewhere = nothing_configured.parent / "elsewhere"
        elsewhere.mkdir()
        place.temp.symlink_to(elsewhere)
        try:
            with pytest.raises(UserError, match="was expected to be yours alone"):
                local.bring_up(print)
        finally:
            place.temp.unlink()
