"""The proxy that misbehaves on command does what its modes say."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos.proxy import SLOW_S, Proxy


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found = Proxy(server.server_port)
    yield found
    found.close()
    server.shutdown()
    server.server_close()
    thread.join()


def get(proxy: Proxy, timeout: float = 10) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def read_all(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def test_what_is_fine_passes_before_and_after_every_fault(proxy: Proxy) -> None:
    for mode in ("down", "reset", "slow", "silent", "error"):
        proxy.set(mode)
        proxy.set("fine")
        assert get(proxy) == (200, b"hello")


def test_down_refuses_connections(proxy: Proxy) -> None:
    proxy.set("down")
    with pytest.raises(ConnectionRefusedError):
        get(proxy)


def test_reset_breaks_an_answer_off(proxy: Proxy) -> None:
    proxy.set("reset")
    with pytest.raises((ConnectionResetError, http.client.HTTPException)):
        get(proxy)


def test_an_error_is_answered_without_the_service(proxy: Proxy) -> None:
    proxy.set("error")
    assert get(proxy) == (503, b"")


def test_slow_takes_its_time_in_both_directions(proxy: Proxy) -> None:
    proxy.set("slow")
    since = time.monotonic()
    assert get(proxy) == (200, b"hello")
    assert time.monotonic() - since >= 2 * SLOW_S


def test_silent_says_nothing(proxy: Proxy) -> None:
    proxy.set("silent")
    with pytest.raises(socket.timeout):
        get(proxy, timeout=0.3)


def test_a_connection_that_is_open_breaks_when_the_service_goes_down(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1)
        proxy.set("down")
        with pytest.raises(ConnectionResetError):
            read_all(connection)
