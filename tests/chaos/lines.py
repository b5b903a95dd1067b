"""A pipe with a name, read line by line as it is written: unlike a file it is never full."""

import os
import threading
from collections.abc import Callable
from pathlib import Path


class Lines:
    """Whoever writes to `path` may die at any moment, and others come after."""

    def __init__(self, path: Path, take: Callable[[str], None]) -> None:
        os.mkfifo(path)
        self.path, self._take = path, take
        self._descriptor = os.open(path, os.O_RDWR)  # for writing, too: so it has no end
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes what was written, and ends."""
        os.write(self._descriptor, b"\0\n")
        self._thread.join(10)
        os.close(self._descriptor)

    def _read(self) -> None:
        rest = b""
        while True:
            *lines, rest = (rest + os.read(self._descriptor, 1 << 16)).split(b"\n")
            for line in lines:
                if line.endswith(b"\0"):
                    return
                self._take(line.decode(errors="replace"))
