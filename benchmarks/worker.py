"""A contender's process: does what it is asked over a pipe, one JSON object a line, and sleeps in between.

    python -m benchmarks.worker MODULE shipped|kept

It ends when its input does, or with the process that started it.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import device, memory
from benchmarks.problem import Step, load
from meta_service.allocator import keep_freed_memory

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Worker:
    """One contender, and the step it is to measure."""

    def __init__(self, module: str) -> None:
        self.module = importlib.import_module(f"benchmarks.{module}")
        self.step: Step | None = None
        self.cold = False
        """Whether its memory was given back since the last step."""

    def check(self, problem: str, answer: str, threads: int) -> dict[str, Any]:
        """Writes the meta-gradient of a problem."""
        self._use_threads(threads)
        found = self.module.prepare(load(Path(problem)))()
        arrays: dict[str, Any] = {
            name: np.asarray(value.cpu() if device.on_gpu() else value) for name, value in found.items()
        }
        with Path(answer).open("wb") as out:
            np.savez(out, **arrays)
        return {}

    def prepare(self, problem: str, threads: int) -> dict[str, Any]:
        """Takes up a problem; returns the seconds until its first gradient is there, compilation included."""
        self.step = None
        gc.collect()
        memory.give_back()
        memory.reset_peak()
        device.reset_peak()
        self._use_threads(threads)
        start = time.perf_counter()
        self.step = self.module.prepare(load(Path(problem)))
        self.step()
        device.settle()
        self.cold = False
        return {"seconds": time.perf_counter() - start}

    def run(self, steps: int, threads: int) -> dict[str, Any]:
        """Times so many steps: wall and CPU milliseconds each; and the peak memory since `prepare`, in MB."""
        assert self.step is not None
        self._use_threads(threads)
        if self.cold:
            self.step()
            device.settle()
        wall, cpu = [], []
        for _ in range(steps):
            start, busy = time.perf_counter(), time.process_time()
            self.step()
            device.settle()
            wall.append(1000 * (time.perf_counter() - start))
            cpu.append(1000 * (time.process_time() - busy))
        self.cold = memory.give_back_if_scarce()
        return {"wall": wall, "cpu": cpu, "peak_mb": device.peak_mb() if device.on_gpu() else memory.peak_mb()}

    def measure(self, **arguments: Any) -> dict[str, Any]:
        """Whatever the module has to measure in its own way."""
        return self.module.measure(**arguments)  # type: ignore[no-any-return]

    def _use_threads(self, threads: int) -> None:
        if hasattr(self.module, "use_threads"):
            self.module.use_threads(threads)
        elif "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        else:  # XLA's threads are as many as the cores were when it started
            for thread in Path("/proc/self/task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(thread.name), memory.CORES[:threads])


def main(module: str, allocator: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no reply
    if allocator == "kept":
        keep_freed_memory()
    try:
        worker = Worker(module)
        device.exactly()
    except Exception as error:  # a library that is not there, or does not like this Python
        print(json.dumps({"error": _one_line(error)}), file=replies)
        return
    print(json.dumps({"ready": os.getpid()}), file=replies)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # its contender is left out, the others go on
            reply = {"error": _one_line(error)}
        print(json.dumps(reply), file=replies)


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
