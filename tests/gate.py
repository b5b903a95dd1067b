"""An address behind which a server can be away, or silent, for a while."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class Gate:
    """Passes everything on to a server; from `silent` on nothing: connections are accepted, and no answer comes."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname
        self._target = (parts.hostname, parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = True
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def silent(self) -> None:
        self._open = False

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._sockets.append(client)
            if self._open:
                server = socket.create_connection(self._target)
                self._sockets.append(server)
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._open:
                    return  # and leave the other side waiting
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
