"""A queue in a file: written by a run, read by whoever delivers it, surviving both.

An entry is in the file when `append` returns, so that the death of the process loses none. On the disk it is a few
milliseconds later: a thread synchronises the file after every append, or once after several. So a machine that loses
its power loses the metrics of an outer step or two, which a resumed run makes again.

Where the file takes nothing, for the disk is full, entries wait in memory for the next append that finds room.
"""

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from meta_service import history
from meta_service.background import Background


class Spool:
    """Entries as lines of JSON, and beside them how many bytes are delivered. One process at a time uses a spool."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._sent = self.path.with_name(self.path.name + ".sent")
        record = (_parsed(self._sent.read_bytes()) if self._sent.exists() else None) or {}  # else all is sent again
        self.facts: dict[str, str] = record.get("facts", {})
        """What the deliverer has to remember, such as the id of the run it created."""
        self._lock, self._disk = threading.Lock(), Background("spool")
        self._unsynced = False
        self._late: list[bytes] = []  # what the file did not take yet
        self.trouble: OSError | None = None
        """Why the file takes nothing; None while it does."""
        self._file = self.path.open("ab", buffering=0)
        self._size = self._file.truncate(self._end_of_lines())  # a writer may have died within a line
        offset = int(record.get("offset", 0))
        self._offset = offset if offset <= self._size else 0  # the queue was deleted, but not what lies beside it

    def append(self, entry: dict[str, Any]) -> None:
        """Takes microseconds; survives the death of this process."""
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            self._late.append(line)
            data = b"".join(self._late)
            try:
                if self._file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                self.trouble = error
                self._file.truncate(self._size)  # no half of a line
                return
            self._size, self.trouble = self._size + len(data), None
            self._late.clear()
            unsynced, self._unsynced = self._unsynced, True
        if not unsynced:
            self._disk.submit(self._sync)

    def _sync(self) -> None:
        self._unsynced = False  # what comes from here on is for the next one
        with suppress(OSError):  # a disk that loses what it took: there is nothing to be done about it here
            os.fdatasync(self._file.fileno())

    def entries(self) -> Iterator[dict[str, Any]]:
        """All that was ever put in, delivered or not."""
        yield from filter(None, map(_parsed, self.path.read_bytes().splitlines()))

    def unsent(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The entries not yet delivered, each with the offset to acknowledge it by."""
        with self.path.open("rb") as file:
            offset = file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written
                offset += len(line)
                if entry := _parsed(line):
                    yield entry, offset

    def acknowledge(self, offset: int, **facts: str) -> None:
        """All up to `offset` is delivered: it will not be read again."""
        first, self._offset, self.facts = self._offset, offset, self.facts | facts
        temporary = self._sent.with_name(self._sent.name + ".tmp")
        with suppress(OSError):  # a full disk: it is delivered again some day, which changes nothing there
            temporary.write_text(json.dumps({"offset": offset, "facts": self.facts}))
            temporary.replace(self._sent)
        history.record("delivered", first=first, last=offset)

    def keep_file(self, name: str, data: bytes) -> Path:
        """Stores `data` beside the queue, as a file of this name in a folder of its own."""
        path = self.path.with_name(self.path.name + ".files") / os.urandom(6).hex() / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    def close(self) -> None:
        self._disk.submit(self._file.close).result()

    def _end_of_lines(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1


def peek(path: Path) -> list[dict[str, Any]]:
    """The entries of a spool that are not delivered; another process may be using it."""
    if not path.exists():
        return []
    sent, data = path.with_name(path.name + ".sent"), path.read_bytes()
    offset = int(((_parsed(sent.read_bytes()) if sent.exists() else None) or {}).get("offset", 0))
    lines = data[offset if offset <= len(data) else 0 :].split(b"\n")[:-1]  # the last one may be being written
    return [entry for line in lines if (entry := _parsed(line))]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """What was written; None where a machine that lost its power left something else."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
