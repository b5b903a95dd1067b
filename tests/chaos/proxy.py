"""A network that misbehaves on command: a TCP proxy in front of a service, with faults that are switched as it runs."""

import asyncio
import re
import socket
import struct
import threading
from contextlib import suppress
from typing import Literal

Mode = Literal["fine", "down", "reset", "slow", "silent", "error"]
"""`down`: connections are refused; `reset`: they break in the middle of an answer; `slow`: every piece of data takes
`SLOW_S`; `silent`: nothing ever comes; `error`: every request is answered by HTTP's 503."""

SLOW_S = 0.15
ERROR = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
PIECE = 1 << 16
_CHECKPOINT = re.compile(rb"PUT /\S*/(parts/|manifests/|LATEST|BEST)")


class Proxy:
    """Listens on a loopback port of its own, from its making until `close`."""

    def __init__(self, port: int) -> None:
        """port: where the service listens."""
        self.target = port
        self.mode: Mode = "fine"
        self.puts = 0
        """How many requests to write an object of a checkpoint have passed."""
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self.port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._listen())

    def set(self, mode: Mode) -> None:
        """From now on; what is connected feels it, too."""
        self._do(self._set(mode))

    def close(self) -> None:
        self._do(self._set("down"))
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _set(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "down" and self._server:
            self._server.close()
            self._server = None
        elif mode != "down" and not self._server:
            await self._listen()
        if mode in ("down", "reset", "error"):
            for writer in list(self._connections):
                _reset(writer)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            if self.mode == "error":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ERROR)
                await writer.drain()
                return
            behind, ahead = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(self._carry(reader, ahead, writer), self._carry(behind, writer, writer))
            finally:
                ahead.close()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(writer)
            with suppress(OSError):
                writer.close()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        answers = sink is client
        while data := await source.read(PIECE):
            self.puts += not answers and bool(_CHECKPOINT.match(data))
            while self.mode == "silent":
                await asyncio.sleep(0.05)
            if self.mode == "slow":
                await asyncio.sleep(SLOW_S)
            if self.mode == "reset" and answers:
                sink.write(data[: len(data) // 2])
                with suppress(OSError):
                    await asyncio.wait_for(sink.drain(), 1)
                _reset(client)
                return
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            with suppress(OSError):
                sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Breaks the connection without a farewell."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
