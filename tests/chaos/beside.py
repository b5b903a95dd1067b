"""A soak beside everything else: a process of its own with its own services, which waits for most of its minutes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
TIMES = 3
"""How often each kind of fault comes."""


class Soak:
    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.chaos.soak", f"--faults={TIMES * len(FAULTS)}", "--outage=0"]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which end it
        )

    def end(self) -> tuple[int, str]:
        """Its exit code and all it said, when it is over."""
        said, _ = self._process.communicate()
        return self._process.returncode, said

    def close(self) -> None:
        """Ends it, if it is not over, with all that it started."""
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()
