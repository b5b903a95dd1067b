"""A queue in a file: written by a run, read by whoever delivers it, surviving both."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meta_service import history


class Spool:
    """Entries as lines of JSON, and beside them how many bytes are delivered. One process at a time uses a spool."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._sent = self.path.with_name(self.path.name + ".sent")
        record: dict[str, Any] = json.loads(self._sent.read_bytes()) if self._sent.exists() else {}
        self.facts: dict[str, str] = record.get("facts", {})
        """What the deliverer has to remember, such as the id of the run it created."""
        self._lock = threading.Lock()
        self._file = self.path.open("ab")
        size = self._file.truncate(self._end_of_lines())  # a writer may have died within a line
        offset = int(record.get("offset", 0))
        self._offset = offset if offset <= size else 0  # the queue was deleted, but not what lies beside it

    def append(self, entry: dict[str, Any]) -> None:
        """Takes microseconds; survives the death of this process."""
        line = json.dumps(entry).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def unsent(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The entries not yet delivered, each with the offset to acknowledge it by."""
        with self.path.open("rb") as file:
            offset = file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # being written
                offset += len(line)
                yield json.loads(line), offset

    def acknowledge(self, offset: int, **facts: str) -> None:
        """All up to `offset` is delivered: it will not be read again."""
        first, self._offset, self.facts = self._offset, offset, self.facts | facts
        temporary = self._sent.with_name(self._sent.name + ".tmp")
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
        self._file.close()

    def _end_of_lines(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1
