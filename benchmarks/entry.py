"""A contender with one allocator on its way through a workload."""

import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.contenders import ALL, JAX
from benchmarks.figures import Figure
from benchmarks.problem import vector
from benchmarks.process import Process

THREADS = (1, 2)
TURN_S = 0.4  # a turn has as many steps as fit, and one at least
MAX_STEPS = 100


class Entry:
    """Its process, and what it has shown so far."""

    def __init__(self, workload: str, name: str, allocator: str, folder: Path, patience_s: float) -> None:
        self.workload, self.name, self.allocator, self.patience_s = workload, name, allocator, patience_s
        self.process = Process(f"contenders.{ALL[name].module}", allocator, folder, ALL[name].env)
        self.threads: tuple[int, ...] = THREADS
        self.error: float | None = None
        self.first_s = self.peak_mb = 0.0
        self.wall: dict[int, list[list[float]]] = {}
        self.cpu: dict[int, list[list[float]]] = {}

    def answer(self, problem: Path, answer: Path) -> np.ndarray:
        """Its meta-gradient of a problem as one vector, in the order of the names."""
        self.process.ask("check", self.patience_s, problem=str(problem), answer=str(answer), threads=self._first())
        with np.load(answer) as arrays:
            return vector(dict(arrays))

    def prepare(self, problem: Path) -> None:
        reply = self.process.ask("prepare", self.patience_s, problem=str(problem), threads=self._first())
        self.first_s = reply["seconds"]

    def turn(self, threads: int) -> None:
        """As many steps as fit into a turn."""
        known = self.wall.get(threads)
        if known:
            step_s = median(known[-1]) / 1000
        elif self.first_s < TURN_S or ALL[self.name].slow_start:  # which says little of the steps that follow
            step_s = self._run(1, threads)["wall"][0] / 1000
        else:
            step_s = self.first_s
        found = self._run(min(max(math.ceil(TURN_S / max(step_s, 1e-6)), 1), MAX_STEPS), threads)
        self.wall.setdefault(threads, []).append(found["wall"])
        self.cpu.setdefault(threads, []).append(found["cpu"])

    def best_ms(self, threads: int) -> float:
        return min((min(turn) for turn in self.wall.get(threads, [])), default=math.inf)

    def figures(self) -> list[Figure]:
        about = (self.error, self.first_s, self.peak_mb)
        return [
            Figure(self.workload, self.name, self.allocator, threads, *about, self.wall[threads], self.cpu[threads])
            for threads in self.wall
        ]

    def _run(self, steps: int, threads: int) -> dict[str, Any]:
        found = self.process.ask("run", self.patience_s * (steps + 1), steps=steps, threads=threads)
        self.peak_mb = max(self.peak_mb, found["peak_mb"])
        return found

    def _first(self) -> int:
        """Threads for what comes before the first turn."""
        return max(THREADS) if self.name in JAX else 1
