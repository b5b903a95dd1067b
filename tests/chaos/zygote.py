"""Drivers that start at once: one process has imported everything, and forks each of them."""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies


class Zygote:
    """The process that forks, as its parent sees it. What is forked dies with it, and it with us."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """env: of the process, and of the drivers where they are not given another."""
        command = [sys.executable, "-m", "tests.chaos.zygote"]
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            command, env={**env, **single}, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._codes: dict[int, int] = {}
        self._started: list[int] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def start(self, arguments: Sequence[str], env: Mapping[str, str], output: Path) -> int:
        """The pid of a new process that is `python -m jobs` with these arguments."""
        assert self._process.stdin is not None
        request = {"arguments": [*arguments], "env": dict(env), "output": str(output)}
        with self._news:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            assert self._news.wait_for(lambda: self._started, timeout=120), "the drivers' parent is silent"
            return self._started.pop()

    def code(self, pid: int) -> int | None:
        """The exit code of a driver, minus the signal that killed it; None while it lives."""
        return self._codes.get(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._thread.join(10)
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, pid, code = line.split()
            with self._news:
                if what == "started":
                    self._started.append(int(pid))
                else:
                    self._codes[int(pid)] = int(code)
                self._news.notify_all()


def _serve() -> list[str] | None:
    """In the process itself: the arguments, in a process that was forked; None at its own end."""
    while True:
        if select.select([0], [], [], 0.02)[0]:
            line = os.read(0, 1 << 16)
            if not line:
                return None
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                return _become(request)
            print("started", pid, 0, flush=True)
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            continue
        if pid:
            print("ended", pid, os.waitstatus_to_exitcode(status), flush=True)


def _become(request: dict) -> list[str]:
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    os.setsid()
    os.environ.update(request["env"])
    output = os.open(request["output"], os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    return request["arguments"]


if __name__ == "__main__":
    import matplotlib.pyplot  # noqa: F401
    import mlflow.pyfunc  # noqa: F401
    import torch

    import cluster.pool  # noqa: F401
    import jobs.__main__
    import meta_service.run  # noqa: F401
    from tests.chaos import planted

    torch.set_num_threads(1)
    if (arguments := _serve()) is not None:
        planted.plant(os.environ)
        jobs.__main__.program(arguments, prog_name="python -m jobs")
