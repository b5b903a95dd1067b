"""What a run of the benchmark has found: everything raw, as it goes into the JSON file, and what is read off it."""

import json
from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

from meta_service.errors import UserError


class Figure(NamedTuple):
    """One contender in one setting on one workload."""

    workload: str
    contender: str
    allocator: str
    threads: int
    """Threads of a process; workers of one thread for `ours-ray`."""
    error: float | None
    """Relative L2 error of the meta-gradient in float64 on a smaller version; None where it computes none."""
    first_s: float
    """Until the first gradient is there, compilation included."""
    peak_mb: float
    """The most its process held in memory; through Ray, each worker."""
    wall: list[list[float]]
    """Milliseconds of every step, turn by turn."""
    cpu: list[list[float]]

    @property
    def ms(self) -> float:
        """The median over the turns of each turn's median step."""
        return median(median(turn) for turn in self.wall)


class Skip(NamedTuple):
    """Who did not take part, and why."""

    workload: str
    contender: str
    allocator: str
    reason: str


class Point(NamedTuple):
    """One point of a growth curve."""

    axis: str
    value: int
    contender: str
    ms: float
    peak_mb: float


class Record(NamedTuple):
    """A whole run."""

    about: dict[str, Any]
    """Machine, versions, command and time."""
    figures: list[Figure]
    skipped: list[Skip]
    growth: list[Point]
    service: dict[str, Any]
    """Empty where it was not measured."""

    def to_json(self) -> str:
        parts = self._asdict() | {
            name: [item._asdict() for item in getattr(self, name)] for name in ("figures", "skipped", "growth")
        }
        return json.dumps(parts, indent=1)

    @staticmethod
    def from_json(text: str) -> "Record":
        parts = json.loads(text)
        return Record(
            parts["about"],
            [Figure(**item) for item in parts["figures"]],
            [Skip(**item) for item in parts["skipped"]],
            [Point(**item) for item in parts["growth"]],
            parts["service"],
        )

    def beside(self, earlier: "Record") -> "Record":
        """This run, with what only an earlier one of the same code on the same machine has measured.

        A workload, the growth and the service are each of one run. Raises UserError where the runs cannot be compared.
        """
        for fact, value in self.about.items():
            if fact != "command" and earlier.about.get(fact) != value:
                raise UserError(
                    f"--beside: a run with the same {fact} is expected, '{value}'; that one had "
                    f"'{earlier.about.get(fact)}'; measure all of it anew"
                )
        again = set(self.workloads())
        return Record(
            self.about | {"command": f"{earlier.about['command']}; {self.about['command']}"},
            [figure for figure in earlier.figures if figure.workload not in again] + self.figures,
            [skip for skip in earlier.skipped if skip.workload not in again] + self.skipped,
            self.growth or earlier.growth,
            self.service or earlier.service,
        )

    def workloads(self) -> list[str]:
        return list(dict.fromkeys(figure.workload for figure in self.figures))

    def of(
        self, workload: str, contenders: Iterable[str], threads: int | None = None, allocator: str | None = None
    ) -> list[Figure]:
        """Figures of these contenders, fastest first."""
        wanted = set(contenders)
        found = [
            figure
            for figure in self.figures
            if figure.workload == workload
            and figure.contender in wanted
            and threads in (None, figure.threads)
            and allocator in (None, figure.allocator)
        ]
        return sorted(found, key=lambda figure: figure.ms)
