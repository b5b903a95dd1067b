"""A record as tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import ALL, EVERYWHERE, JAX, KEPT, PEERS, SHIPPED
from benchmarks.figures import Figure, Record

NONE = "–"
TORCH = ("plain", *PEERS)


class Side(NamedTuple):
    """Of which figures the fastest is taken."""

    contenders: tuple[str, ...]
    threads: int | None = None
    allocator: str | None = None


RAY, ALONE = Side(("ours-ray",), 2), Side(("ours",), 1)
RATIOS = (
    ("2 workers: ahead of the best PyTorch peer as shipped", RAY, Side(PEERS, None, SHIPPED)),
    ("2 workers: ahead of the best PyTorch peer given our allocator setting", RAY, Side(PEERS, None, KEPT)),
    ("2 workers: ahead of the plain loop", RAY, Side(("plain",))),
    ("2 workers: ahead of JAX", RAY, Side(JAX)),
    ("2 workers: share of the limit with two threads", RAY, Side(("limit",), 2)),
    ("2 workers: ahead of 1", RAY, Side(("ours-ray",), 1)),
    ("in process: ahead of the best PyTorch peer as shipped, one thread", ALONE, Side(PEERS, 1, SHIPPED)),
    ("in process: ahead of the best PyTorch peer given our allocator setting, one thread", ALONE, Side(PEERS, 1, KEPT)),
    ("in process: ahead of JAX, one thread", ALONE, Side(JAX, 1)),
    ("in process: precision=bf16 ahead of float32, one thread", Side(("ours-bf16",), 1), ALONE),
    ("in process: share of the limit, one thread", ALONE, Side(("limit",), 1)),
)
"""Title, this project (2 workers through Ray, or one thread in process), and whom it is compared with at their best."""


def tables(record: Record) -> dict[str, str]:
    """Every table by the name of its place in docs/performance.md."""
    return {
        "speed": speed(record),
        "ratios": ratios(record),
        "agreement": agreement(record),
        "memory": memory(record),
        "growth": growth(record),
        "service": service(record),
        "machine": machine(record),
        "skipped": skipped(record),
    }


def speed(record: Record) -> str:
    """Milliseconds of a meta-gradient, with one thread / two; the best of each contender bold."""

    def cell(name: str, allocator: str, workload: str) -> str:
        found = {figure.threads: figure for figure in record.of(workload, [name], allocator=allocator)}
        best = record.of(workload, [name])[:1]
        texts = [
            (f"**{number(found[t].ms)}**" if found[t] in best else number(found[t].ms)) if t in found else NONE
            for t in (1, 2)
        ]
        return " / ".join(texts) if found else NONE

    rows = [
        [_title(name, allocator), *(cell(name, allocator, workload) for workload in record.workloads())]
        for name, allocator in _settings(record)
    ]
    return table(["ms, 1 / 2 threads", *record.workloads()], rows)


def ratios(record: Record) -> str:
    """How many times faster this project is; below 1 the other is."""
    written = []
    for title, ours, theirs in RATIOS:
        cells = []
        for workload in record.workloads():
            us, them = (record.of(workload, *side)[:1] for side in (ours, theirs))
            share = them[0].ms / us[0].ms if us and them else None
            cells.append(NONE if share is None else f"{share:.0%}" if "share" in title else f"{number(share)} x")
        if any(cell != NONE for cell in cells):
            written.append([title, *cells])
    return table(["", *record.workloads()], written)


def agreement(record: Record) -> str:
    """Relative L2 error of the whole meta-gradient in float64, and seconds until the first gradient in float32."""

    def cell(figures: Sequence[Figure]) -> str:
        if not figures:
            return NONE
        error = figures[0].error
        return f"{'' if error is None else '0, ' if error == 0 else f'{error:.0e}, '}{number(figures[0].first_s)} s"

    rows = [
        [ALL[name].title, *(cell(record.of(workload, [name])) for workload in record.workloads())]
        for name in ALL
        if any(figure.contender == name for figure in record.figures)
    ]
    return table(["error, first call", *record.workloads()], rows)


def memory(record: Record) -> str:
    """The most each process held, in MB; through Ray, each worker."""

    def cell(figures: Sequence[Figure]) -> str:
        return f"{max(figure.peak_mb for figure in figures):,.0f}" if figures else NONE

    rows = [
        [_title(name, allocator), *(cell(record.of(w, [name], allocator=allocator)) for w in record.workloads())]
        for name, allocator in _settings(record)
    ]
    return table(["peak MB", *record.workloads()], rows)


def growth(record: Record) -> str:
    """One table an axis: milliseconds, and peak MB."""
    written = []
    for axis in dict.fromkeys(point.axis for point in record.growth):
        points = [point for point in record.growth if point.axis == axis]
        values = list(dict.fromkeys(point.value for point in points))
        rows = []
        for name in dict.fromkeys(point.contender for point in points):
            by_value = {point.value: point for point in points if point.contender == name}
            cells = (by_value.get(value) for value in values)
            rows.append([name, *(f"{number(p.ms)} ms, {p.peak_mb:,.0f} MB" if p else NONE for p in cells)])
        written.append(table([axis, *map(str, values)], rows))
    return "\n\n".join(written) or "Not measured in this run."


def service(record: Record) -> str:
    """An outer step through Ray, without and with tracking and checkpoints."""
    if not record.service:
        return "Not measured in this run."
    rows = [
        [title, *(number(found[name]) for name in ("step_ms", "computing_ms")), f"{found['overhead']:.1%}"]
        for key, title in (("off", "training alone"), ("on", "tracked in MLflow, checkpoints in S3"))
        for found in [record.service[key]]
    ]
    return table(["outer step, 2 workers", "ms", "of which the busiest worker computes", "overhead"], rows)


def machine(record: Record) -> str:
    return table(["", ""], [[name, str(value)] for name, value in record.about.items()])


def skipped(record: Record) -> str:
    lines = [f"- {skip.workload}, {_title(skip.contender, skip.allocator)}: {skip.reason}" for skip in record.skipped]
    for workload in record.workloads():
        there = {figure.contender for figure in record.figures if figure.workload == workload}
        out = [name for name in ALL if name not in there and workload.split()[0] in EVERYWHERE]
        tried = {skip.contender for skip in record.skipped if skip.workload == workload}
        left = [ALL[name].title for name in out if name not in tried]
        lines += [f"- {workload}: not run in this record: {', '.join(left)}"] if left else []
    return "\n".join(lines) or "Nobody."


def show(out: Console, record: Record) -> None:
    """The speeds and ratios on a terminal."""
    for text in (speed(record), ratios(record)) if record.figures else ():
        head, _, *rows = [
            [cell.strip().replace("**", "") for cell in line.strip("|").split("|")] for line in text.split("\n")
        ]
        grid = Table(box=None)
        for position, title in enumerate(head):
            grid.add_column(title, justify="right" if position else "left", no_wrap=position > 0)
        for row in rows:
            grid.add_row(*row)
        out.print(grid)
        out.print()


def number(value: float) -> str:
    """Three figures: 0.564, 36.9, 1,305."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _settings(record: Record) -> list[tuple[str, str]]:
    there = {(figure.contender, figure.allocator) for figure in record.figures}
    return [(name, kind) for name in ALL for kind in ALL[name].allocators if (name, kind) in there]


def _title(name: str, allocator: str) -> str:
    contender = ALL[name]
    return contender.title + (", our allocator setting" if allocator == KEPT and len(contender.allocators) > 1 else "")
