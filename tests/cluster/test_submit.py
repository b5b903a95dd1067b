"""What is said where Ray does not answer."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from rich.console import Console

from cluster.commands import _follow
from cluster.submit import Jobs, NotReached
from cluster.surroundings import Surroundings
from meta_service.errors import UserError
from tests.loopback import free_port


class OnlyItsVersion(BaseHTTPRequestHandler):
    """What a client of Ray's Jobs API asks first, and nothing else."""

    def do_GET(self) -> None:
        body = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def at(port: int) -> Surroundings:
    return Surroundings(f"http://127.0.0.1:{port}", "", "", {}, frozenset())


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_ray_that_is_not_there_is_named_in_one_line() -> None:
    surroundings = at(free_port())
    with pytest.raises(NotReached) as caught:
        Jobs(surroundings)
    assert str(caught.value) == f"Ray at {surroundings.ray} is not reached; try `make doctor`"


def test_who_follows_a_run_when_ray_is_ended_is_told_how_to_go_on() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), OnlyItsVersion) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        ray = Jobs(at(server.server_port))
        server.shutdown()
    with pytest.raises(UserError, match="`make resume RUN=some-run` goes on from its latest checkpoint"):
        _follow(Console(quiet=True), ray, "some-run", "some-run.1234")
