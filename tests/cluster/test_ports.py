"""Which port is chosen, and who answers there."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import local, ports, process
from cluster.probe import get, is_deserted
from meta_service.errors import UserError
from tests.loopback import free_port, refuse_to_start

WANTED = (ports.Port("web", 20500, "WEB_PORT"),)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_passed_over(tmp_path: Path, listener: int) -> None:
    chosen = ports.choose(tmp_path, [ports.Port("web", listener)])["web"]
    assert listener < chosen < listener + 200


def test_the_choice_is_kept_for_the_next_time(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text(json.dumps({"web": 20577}))
    assert ports.choose(tmp_path, WANTED) == {"web": 20577}


def test_two_services_never_get_the_same_port(tmp_path: Path) -> None:
    chosen = ports.choose(tmp_path, [ports.Port("a", 20500), ports.Port("b", 20500)])
    assert chosen["a"] != chosen["b"]


def test_what_a_checkout_beside_has_chosen_is_not_free_although_it_does_not_listen_yet(tmp_path: Path) -> None:
    for name in ("state-a", "state-b", "meta-a", "meta-b"):
        (tmp_path / name).mkdir()
    first = ports.choose(tmp_path / "state-a", WANTED, tmp_path / "meta-a")
    second = ports.choose(tmp_path / "state-b", WANTED, tmp_path / "meta-b")
    assert first["web"] != second["web"]
    assert ports.choose(tmp_path / "state-a", WANTED, tmp_path / "meta-a") == first


def test_a_port_the_user_fixed_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = free_port()
    monkeypatch.setenv("WEB_PORT", str(fixed))
    assert ports.choose(tmp_path, WANTED) == {"web": fixed}


def test_a_port_the_user_fixed_that_is_in_use_is_an_error_before_anything_starts(
    nothing_configured: Path, monkeypatch: pytest.MonkeyPatch, listener: int
) -> None:
    monkeypatch.setenv("MLFLOW_PORT", str(listener))
    monkeypatch.setattr(process, "start", refuse_to_start)
    with pytest.raises(UserError, match=f"MLFLOW_PORT={listener} was expected to be a free port, but it is in use"):
        local.bring_up(print)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "web"])
def test_a_port_that_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WEB_PORT", text)
    with pytest.raises(UserError, match="WEB_PORT was expected to be a port number"):
        ports.choose(tmp_path, WANTED)


def test_a_torn_ports_file_means_choosing_anew(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"web": 2')
    assert "web" in ports.choose(tmp_path, WANTED)


def test_what_does_not_speak_http_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say_something_else() -> None:
            with server.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(b"\0\0@\n")

        speaker = threading.Thread(target=say_something_else)
        speaker.start()
        with pytest.raises(OSError, match="does not speak HTTP"):
            get(f"http://127.0.0.1:{server.getsockname()[1]}/health")
        speaker.join()


def test_a_socket_counts_as_deserted_only_where_nobody_listens(tmp_path: Path) -> None:
    """Another checkout's server may use the ports, and so the socket names, that ours used before."""
    path = tmp_path / "s"
    assert not is_deserted(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert not is_deserted(path)
    assert is_deserted(path)
