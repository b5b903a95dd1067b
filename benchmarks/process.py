"""A contender's process from outside: start it, ask it, and be sure that it ends."""

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".peers"  # where `make bench` installs them, apart from the environment that is tested

ADDRESSES = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "ARTIFACT_ROOT")  # nobody's cluster is measured by accident


class Skipped(Exception):
    """A contender that cannot take part, and why, in one line."""


class Process:
    """A module of this package in a process of its own; see `worker`."""

    def __init__(self, module: str, allocator: str, folder: Path, env: Iterable[tuple[str, str]] = ()) -> None:
        self.log = folder / f"{module}-{allocator}.log"
        inherited = {name: value for name, value in os.environ.items() if name not in ADDRESSES}
        own = {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(PEERS))),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker", module, allocator],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=inherited | own | dict(env),
                cwd=ROOT,
                start_new_session=True,  # Ctrl-C is for us, who end it
            )
        self._rest = b""

    def ready(self, seconds: float = 120.0) -> None:
        """Waits until its libraries are imported. Raises Skipped."""
        self._answer(seconds)

    def ask(self, do: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """Has something done. Raises Skipped where it fails or takes longer than so many seconds; then it is ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps({"do": do} | arguments).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(seconds)

    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Ends it and what it has started: when it has nothing more to read, else by signals."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        for number, patience in ((None, 3.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            if number and self.running():
                self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        self._process.stdout.close()

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                self.end()
                raise Skipped(f"it took longer than {seconds:.0f} s (--patience)")
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                self.end()
                raise Skipped(f"its process ended with {self._process.returncode}: {self._last_words()}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Skipped(str(reply["error"]))
        return reply

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "without a word"
