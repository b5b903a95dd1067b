"""One workload: all contenders agree first, then take turns, each in its process while the others sleep."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import workloads
from benchmarks.contenders import ALL, JAX, PEERS, plain
from benchmarks.device import on_gpu
from benchmarks.entry import THREADS, Entry
from benchmarks.figures import Record, Skip
from benchmarks.problem import load, save, vector
from benchmarks.process import Skipped
from meta_service.errors import UserError

REFERENCE = "plain"
MAX_ROUNDS = 9
TOO_SLOW = 3.0  # times the plain loop: after one turn it is known well enough

Say = Callable[[str], None]


class Limits(NamedTuple):
    """How long a workload may take."""

    budget_s: float
    """Rounds go on until this is used up."""
    rounds: int
    """So many at least."""
    patience_s: float
    """The longest a contender may take over one answer."""


class Contest:
    """The entries of one workload. `say` is for lines to keep, `told` for what is being done."""

    def __init__(self, workload: str, limits: Limits, folder: Path, say: Say, told: Say) -> None:
        self.workload, self.limits, self.folder, self.say, self.told = workload, limits, folder, say, told
        self.entries: list[Entry] = []
        self.ended: list[Entry] = []
        self.skipped: list[Skip] = []

    def run(self, names: Sequence[str], record: Record) -> None:
        """Adds the figures of these contenders to the record; where it is interrupted, those that are there.

        All processes have ended when it returns, however it does.
        """
        since = time.monotonic()
        try:
            self._enter(names)
            self._check()
            self._prepare()
            for number in range(MAX_ROUNDS):
                self._round(number + 1)
                if number == 0:
                    self._keep_what_is_worth_it()
                if number + 1 >= self.limits.rounds and time.monotonic() - since > self.limits.budget_s:
                    break
        finally:
            for entry in self.entries:
                entry.process.end()
            record.figures.extend(figure for entry in (*self.ended, *self.entries) for figure in entry.figures())
            record.skipped.extend(self.skipped)

    def _enter(self, names: Sequence[str]) -> None:
        for name in names:
            for allocator in ALL[name].allocators:
                self.entries.append(Entry(self.workload, name, allocator, self.folder, self.limits.patience_s))
        for entry in list(self.entries):
            with self._attempt(entry, "importing"):
                entry.process.ready()

    def _check(self) -> None:
        problem, answer = self.folder / "small.npz", self.folder / "answer.npz"
        torch.set_num_threads(1)  # two would go on spinning beside the contenders
        save(workloads.draw(workloads.smaller(self.workload), "float64"), problem)
        self.told(f"{self.workload}: the plain loop in float64")
        reference, errors = vector(plain.prepare(load(problem))()), dict[str, float]()
        for entry in [entry for entry in self.entries if ALL[entry.name].checked]:
            if entry.name not in errors:
                with self._attempt(entry, "comparing in float64"):
                    difference = entry.answer(problem, answer) - reference
                    errors[entry.name] = float(np.linalg.norm(difference) / np.linalg.norm(reference))
            entry.error = errors.get(entry.name)
            if entry.error is not None and not entry.error <= ALL[entry.name].tolerance:
                self.say(f"{self.workload}: {entry.name} is WRONG, by {entry.error:.1e} of the meta-gradient")

    def _prepare(self) -> None:
        problem = self.folder / "problem.npz"
        save(workloads.draw(self.workload), problem)
        for entry in list(self.entries):
            with self._attempt(entry, "first call"):
                entry.prepare(problem)

    def _round(self, number: int) -> None:
        for entry in list(self.entries):
            with self._attempt(entry, f"round {number}"):
                for threads in entry.threads:
                    entry.turn(threads)

    def _keep_what_is_worth_it(self) -> None:
        """Of the others' entries the better number of threads; of ours and the limit's both are of interest."""
        loop = min((e.best_ms(t) for e in self.entries if e.name == REFERENCE for t in THREADS), default=float("inf"))
        for entry in list(self.entries):
            if entry.name in (REFERENCE, *PEERS, *JAX):
                entry.threads = (min(THREADS, key=entry.best_ms),)
            if min(map(entry.best_ms, entry.threads)) > TOO_SLOW * loop:
                self._end(entry)

    @contextmanager
    def _attempt(self, entry: Entry, doing: str) -> Iterator[None]:
        self.told(f"{self.workload}: {doing}, {entry.name} ({entry.allocator})")
        try:
            yield
        except Skipped as reason:
            self.skipped.append(Skip(self.workload, entry.name, entry.allocator, str(reason)))
            self.say(f"{self.workload}: {entry.name} ({entry.allocator}) skipped: {reason}")
            self._end(entry)

    def _end(self, entry: Entry) -> None:
        entry.process.end()
        self.entries.remove(entry)
        self.ended.append(entry)


def chosen(workload: str, only: Sequence[str]) -> list[str]:
    """The contenders of a workload: those asked for, or those for which it is not hopeless."""
    unknown = [name for name in only if name not in ALL]
    if unknown:
        raise UserError(f"--only: some of {', '.join(ALL)} are expected, '{unknown[0]}' came")
    there = [name for name in ALL if ALL[name].gpu or not on_gpu()]
    return [name for name in there if (name in only if only else workload in ALL[name].workloads)]
