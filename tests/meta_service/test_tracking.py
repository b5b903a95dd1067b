"""Tracking: training never waits for MLflow, and MLflow gets every point once, with the time it was measured."""

import json
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.surroundings import Surroundings
from meta_service import tracking
from meta_service.delivery import Delivery
from meta_service.spool import Spool
from meta_service.tracking import MemoryTracker, MLflowTracker, Point, Tracker, should_log
from tests.loopback import free_port
from tests.meta_service.full import full_disk


class Relay(socketserver.ThreadingTCPServer):
    """An address behind which the server can be away for a while."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, target: int) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", target)) as server:
                    back = threading.Thread(target=_copy, args=(server, self.request))
                    back.start()
                    _copy(self.request, server)
                    back.join()

        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def closed_port() -> int:
    return free_port()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and an end that gives up soon."""
    monkeypatch.setattr(tracking, "INTERVAL_S", 0.1)
    monkeypatch.setattr(tracking, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(tracking, "END_S", 30.0)
    monkeypatch.setattr(tracking, "END_KILLED_S", 0.5)


class Server:
    """Questions to the real server."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.uri, self.client = uri, MlflowClient(uri)

    def run(self, run_id: str | None) -> Any:
        assert run_id
        return self.client.get_run(run_id)

    def history(self, run_id: str | None, key: str) -> list[tuple[int, float, int]]:
        """[(step, value, time in ms)]."""
        assert run_id
        return [(p.step, p.value, p.timestamp) for p in self.client.get_metric_history(run_id, key)]


@pytest.fixture
def server(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    return Server(surroundings.mlflow)


Start = Callable[..., MLflowTracker]


@pytest.fixture
def start(tmp_path: Path, quick: None) -> Start:
    """Begins a run; what it says is in `said`."""

    def begin(
        uri: str, experiment: str = "tracking", run_id: str | None = None, said: list[str] | None = None
    ) -> MLflowTracker:
        words: list[str] = [] if said is None else said
        return MLflowTracker.start(
            uri, experiment, "a run", run_id, tmp_path / "spool", {"meta.kind": "test"}, words.append
        )

    return begin


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("iterations", [1, 10, 999, 1000, 1001, 1999, 60_000, 70_000, 1_234_567])
def test_a_key_never_has_more_than_2000_points(iterations: int) -> None:
    points = sum(should_log(iteration, iterations) for iteration in range(1, iterations + 1))
    assert min(iterations, 500) <= points <= 1001


def test_the_last_step_is_always_logged() -> None:
    assert all(should_log(iterations, iterations) for iterations in range(1, 5000))


def test_every_step_of_a_short_run_is_logged() -> None:
    assert all(should_log(iteration, 1000) for iteration in range(1, 1001))


def test_tracking_is_imported_without_mlflow() -> None:
    code = "import meta_service.tracking, sys; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_keeps_what_it_is_told() -> None:
    tracker: Tracker = MemoryTracker()
    tracker.params({"algorithm.inner_lr": 0.4})
    tracker.metrics({"train/loss": 2.0, "train/speed": 3.0}, step=7)
    tracker.artifact("plots/curve.png", b"png")
    tracker.end("FINISHED")
    assert isinstance(tracker, MemoryTracker)
    assert tracker.kept_params == {"algorithm.inner_lr": 0.4}
    assert tracker.points == [Point("train/loss", 2.0, 7), Point("train/speed", 3.0, 7)]
    assert tracker.artifacts == {"plots/curve.png": b"png"}
    assert tracker.state == "FINISHED"


def test_a_run_arrives_whole(server: Server, start: Start) -> None:
    tracker = start(server.uri)
    tracker.params({f"group.p{i}": i for i in range(150)} | {"long": "x" * 10_000})
    tracker.tags({"meta.revision": "abc"})
    for step in range(1300):
        tracker.metrics({"train/loss": 1 / (step + 1)}, step)
    tracker.artifact("plots/curve.png", b"png")
    tracker.artifact("results.json", b"{}")
    tracker.end("FINISHED")
    run = server.run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a run"
    assert run.data.params["group.p149"] == "149"
    assert len(run.data.params) == 151
    assert {"meta.kind": "test", "meta.revision": "abc"}.items() <= run.data.tags.items()
    points = server.history(tracker.run_id, "train/loss")
    assert [(step, value) for step, value, _ in sorted(points)] == [(step, 1 / (step + 1)) for step in range(1300)]
    assert f"/runs/{tracker.run_id}?" in tracker.address
    assert {file.path for file in server.client.list_artifacts(run.info.run_id)} == {"plots", "results.json"}
    assert [file.path for file in server.client.list_artifacts(run.info.run_id, "plots")] == ["plots/curve.png"]


def test_numbers_that_are_none_arrive_too(server: Server, start: Start) -> None:
    tracker = start(server.uri)
    tracker.metrics({"train/loss": float("nan")}, 1)
    tracker.metrics({"after": 1.0}, 2)
    tracker.end("FINISHED")
    assert len(server.history(tracker.run_id, "train/loss")) == 1
    assert len(server.history(tracker.run_id, "after")) == 1


def test_a_dead_server_costs_the_caller_nothing(closed_port: int, start: Start) -> None:
    tracker = start(f"http://127.0.0.1:{closed_port}")
    elapsed = []
    for step in range(300):
        begin = time.perf_counter()
        tracker.metrics({"train/loss": 1.0, "train/speed": 2.0}, step)
        elapsed.append(time.perf_counter() - begin)
        time.sleep(0.001)
    tracking.END_S = 0.1  # put back by `quick`
    tracker.end("FINISHED")
    assert sorted(elapsed)[int(0.95 * len(elapsed))] < 0.005  # the rest is the machine's other work


def test_a_dead_server_is_said_once_and_what_is_left_at_the_end(closed_port: int, start: Start, tmp_path: Path) -> None:
    said: list[str] = []
    tracker = start(f"http://127.0.0.1:{closed_port}", said=said)
    tracker.metrics({"a": 1.0, "b": 2.0}, 1)
    wait_for(lambda: said)
    assert tracker.run_id is None
    assert tracker.address == ""
    tracking.END_S = 0.5
    begin = time.monotonic()
    tracker.end("FINISHED")
    assert time.monotonic() - begin < 5
    assert len(said) == 2
    assert f"127.0.0.1:{closed_port}" in said[0]
    assert "2 points are not delivered" in said[1]
    assert str(tmp_path / "spool") in said[1]
    assert not any("\n" in text for text in said)


def test_a_server_that_comes_later_gets_each_point_once_with_its_own_time(
    server: Server, closed_port: int, start: Start
) -> None:
    said: list[str] = []
    tracker = start(f"http://127.0.0.1:{closed_port}", said=said)
    measured = []
    for step in range(20):
        before = int(time.time() * 1000)
        tracker.metrics({"train/loss": float(step)}, step)
        measured.append((before, int(time.time() * 1000)))
        time.sleep(0.01)
    wait_for(lambda: said)
    relay = Relay(closed_port, int(server.uri.rpartition(":")[2]))
    try:
        tracker.end("FINISHED")
    finally:
        relay.stop()
    points = sorted(server.history(tracker.run_id, "train/loss"))
    assert [step for step, _, _ in points] == list(range(20))
    assert all(begin <= at <= end for (begin, end), (_, _, at) in zip(measured, points, strict=True))
    assert "takes points again" in said[1]


def test_the_next_tracker_delivers_what_a_dead_server_did_not_take(
    server: Server, closed_port: int, start: Start
) -> None:
    dead = start(f"http://127.0.0.1:{closed_port}")
    dead.metrics({"train/loss": 1.0}, 1)
    dead.end("KILLED")
    resumed = start(server.uri)
    resumed.metrics({"train/loss": 2.0}, 2)
    resumed.end("FINISHED")
    assert [step for step, _, _ in server.history(resumed.run_id, "train/loss")] == [1, 2]
    assert server.run(resumed.run_id).info.status == "FINISHED"


def test_delivering_twice_changes_nothing(server: Server, start: Start, tmp_path: Path) -> None:
    tracker = start(server.uri)
    tracker.params({"p": 1})
    tracker.metrics({"train/loss": 1.0}, 1)
    tracker.end("FINISHED")
    once = server.history(tracker.run_id, "train/loss")
    sent = tmp_path / "spool.sent"
    sent.write_text(json.dumps({"offset": 0}))  # as if it had died before it wrote that anything was sent
    spool = Spool(tmp_path / "spool")
    assert Delivery(server.uri, spool, print).attempt() is None
    spool.close()
    assert spool.facts["run_id"] == tracker.run_id
    assert server.history(tracker.run_id, "train/loss") == once


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(server: Server, tmp_path: Path, quick: None) -> None:
    first = MLflowTracker.start(server.uri, "tracking", "r", None, tmp_path / "one", {})
    first.params({"seed": 1, "resources.workers": 2})
    first.metrics({"train/loss": 1.0}, 1)
    first.end("FAILED")
    second = MLflowTracker.start(server.uri, "tracking", "r", first.run_id, tmp_path / "another", {})
    second.params({"seed": 1, "resources.workers": 3})
    second.metrics({"train/loss": 2.0}, 2)
    second.end("FINISHED")
    assert second.run_id == first.run_id
    assert [step for step, _, _ in server.history(first.run_id, "train/loss")] == [1, 2]
    run = server.run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "1", "resources.workers": "2"}
    assert run.data.tags["changed.resources.workers"] == "3"


def test_a_run_that_goes_on_keeps_its_id_where_the_server_is_away(closed_port: int, start: Start) -> None:
    given = uuid.uuid4().hex
    tracker = start(f"http://127.0.0.1:{closed_port}", run_id=given)
    assert tracker.run_id == given
    assert tracker.address == ""
    tracker.end("KILLED")
    assert tracker.run_id == given


def test_a_run_the_server_does_not_know_is_begun_anew(server: Server, start: Start) -> None:
    said: list[str] = []
    tracker = start(server.uri, run_id=uuid.uuid4().hex, said=said)
    tracker.metrics({"train/loss": 1.0}, 1)
    tracker.end("FINISHED")
    assert len(server.history(tracker.run_id, "train/loss")) == 1
    assert f"/runs/{tracker.run_id}?" in tracker.address
    assert "a new one is made" in said[0]


def test_an_experiment_in_the_bin_is_taken_out_again(server: Server, start: Start) -> None:
    experiment = server.client.create_experiment(f"binned-{uuid.uuid4().hex}")
    name = server.client.get_experiment(experiment).name
    server.client.delete_experiment(experiment)
    tracker = start(server.uri, experiment=name)
    tracker.end("FINISHED")
    assert server.run(tracker.run_id).info.experiment_id == experiment


def test_a_file_the_artifact_store_does_not_take_stays_and_holds_up_nothing(
    server: Server, start: Start, tmp_path: Path
) -> None:
    name = f"foreign-{uuid.uuid4().hex}"
    server.client.create_experiment(name, artifact_location="unknown-scheme://elsewhere")
    said: list[str] = []
    tracker = start(server.uri, experiment=name, said=said)
    tracker.artifact("curve.png", b"png")
    tracker.metrics({"train/loss": 1.0}, 1)
    tracker.end("FINISHED")
    assert len(server.history(tracker.run_id, "train/loss")) == 1
    (kept,) = (tmp_path / "spool.files").rglob("curve.png")
    assert kept.read_bytes() == b"png"
    assert "cannot keep curve.png" in said[0]
    assert str(kept) in said[0]


def test_points_the_server_refuses_hold_up_nothing(server: Server, start: Start) -> None:
    said: list[str] = []
    tracker = start(server.uri, said=said)
    tracker.metrics({"train/loss?": 1.0}, 1)  # a name MLflow does not allow
    tracker.tags({"between": "them"})
    tracker.metrics({"train/loss": 1.0}, 2)
    tracker.end("FINISHED")
    assert len(server.history(tracker.run_id, "train/loss")) == 1
    assert "refuses metrics" in said[0]


def test_an_outer_step_that_is_made_again_is_told_once(server: Server, closed_port: int, start: Start) -> None:
    killed = start(f"http://127.0.0.1:{closed_port}")
    for step in (1, 2, 3):
        killed.metrics({"train/loss": 1 / step, "validation/step1/mse": 2.0}, step)
    killed.leave()
    resumed = start(server.uri)
    for step in (2, 3, 4):
        resumed.metrics({"train/loss": 1 / step, "train/kl": 3.0, "test/5-shot/mse": 1.0}, step)
    resumed.end("FINISHED")
    assert [step for step, _, _ in server.history(resumed.run_id, "train/loss")] == [1, 2, 3, 4]
    assert [step for step, _, _ in server.history(resumed.run_id, "train/kl")] == [2, 3, 4]


def test_who_leaves_a_run_to_another_driver_says_nothing_of_its_end(server: Server, start: Start) -> None:
    tracker = start(server.uri)
    wait_for(lambda: tracker.run_id)
    tracker.leave()
    tracker.end("FAILED")
    assert server.run(tracker.run_id).info.status == "RUNNING"


def test_a_full_disk_costs_no_point_once_there_is_room(server: Server, start: Start) -> None:
    said: list[str] = []
    tracker = start(server.uri, said=said)
    wait_for(lambda: tracker.run_id)
    tracker.metrics({"train/loss": 1.0}, 1)
    with full_disk(tracker._spool.path.stat().st_size + 10):
        tracker.metrics({"train/loss": 2.0}, 2)
        tracker.metrics({"train/loss": 3.0}, 3)
        tracker.artifact("curve.png", b"png" * 10_000)
    tracker.metrics({"train/loss": 4.0}, 4)
    tracker.end("FINISHED")
    assert [step for step, _, _ in server.history(tracker.run_id, "train/loss")] == [1, 2, 3, 4]
    assert len(said) == 2
    assert "takes nothing (No space left on device), training goes on" in said[0]
    assert "curve.png does not go to MLflow" in said[1]
