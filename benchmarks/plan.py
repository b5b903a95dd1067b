"""What a run of the benchmark does, part by part, and how long each may take."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import contest, workloads
from benchmarks.contenders import KEPT
from benchmarks.contest import Contest, Limits, Say
from benchmarks.figures import Record
from benchmarks.growth import grow
from benchmarks.process import Process, Skipped
from benchmarks.service import embedded
from benchmarks.show import Show
from meta_service.errors import UserError

BUDGET_S = {"W1": 40.0, "W2-1": 110.0, "W2-15": 190.0, "W3": 330.0, "W4": 480.0}
QUICK_BUDGET_S = {"W1": 25.0, "W2-1": 60.0, "W3": 110.0}
PARTS_S = {"growth": 150.0, "service": 100.0}
PARTS = ("speed", *PARTS_S)
SERVICE_STEPS = 120


def run(
    out: Console,
    wanted: Sequence[str],
    only: Sequence[str],
    parts: Sequence[str],
    quick: bool,
    patience_s: float,
    record: Record,
) -> None:
    """Measures what is asked for into the record, part by part; what cannot be had is left out with a line.

    UserError where what is asked for cannot be meant.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise UserError(f"--parts: some of {', '.join(PARTS)} are expected, '{unknown[0]}' came")
    whole = not (wanted or only or quick)
    chosen = parts or (PARTS if whole else ("speed",))
    budgets = QUICK_BUDGET_S if quick else BUDGET_S
    names = (list(wanted) or list(budgets)) if "speed" in chosen else []
    for name in names:
        workloads.find(name)
    fields = {name: contest.chosen(name.split()[0], only) for name in names}
    planned = {name: budgets.get(name.split()[0], BUDGET_S[name.split()[0]]) for name in names}
    planned |= {part: seconds for part, seconds in PARTS_S.items() if part in chosen}
    with Show(out, sum(planned.values())) as show, tempfile.TemporaryDirectory(prefix="meta-bench-") as temporary:
        folder = Path(temporary)
        for part, seconds in planned.items():
            show.stage(seconds)
            if part == "growth":
                record.growth.extend(grow(patience_s, folder, show.say, show.told))
            elif part == "service":
                record.service.update(_service(folder, show.say, show.told))
            else:
                limits = Limits(seconds, 1 if quick else 2, patience_s)
                Contest(part, limits, folder, show.say, show.told).run(fields[part], record)


def _service(folder: Path, say: Say, told: Say) -> dict[str, object]:
    told("service: Ray, MLflow and S3 start")
    with embedded(told) as env:
        process = Process("service", KEPT, folder, env.items())
        try:
            process.ready()
            told("service: outer steps with two workers")
            return process.ask("measure", 300.0, steps=SERVICE_STEPS, into=str(folder))
        except Skipped as reason:
            say(f"service: skipped: {reason}")
            return {}
        finally:
            process.end()
