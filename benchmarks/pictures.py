"""A record as pictures (PNG): how long a step takes, and how that grows."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.contenders import ALL
from benchmarks.figures import Figure, Point, Record
from benchmarks.tables import number
from benchmarks.workloads import TITLES
from meta_service.plots.style import BLUE, BROWN, GREY, INK, ORANGE, PURPLE, end_labels, new_figure, plain, png

COLORS = {
    "ours": BLUE,
    "ours-ray": BLUE,
    "ours-torch": BLUE,
    "ours-compiled": BLUE,
    "ours-bf16": BLUE,
    "limit": GREY,
    "plain": BROWN,
    "jax": PURPLE,
    "jax-im2col": PURPLE,
}
CURVES = {"ours": BLUE, "plain": BROWN}
BAR_INCHES = 0.21


def pictures(record: Record) -> dict[str, bytes]:
    """Every picture by its file's name; those for which nothing was measured are left out."""
    drawn = {"bench_speed.png": png(speed_figure(record))} if record.figures else {}
    return drawn | ({"bench_growth.png": png(growth_figure(record))} if record.growth else {})


def speed_figure(record: Record) -> Drawing:
    """Bars of milliseconds on a log axis, one panel a workload, each contender in its best setting."""
    rows = {workload: _rows(record, workload) for workload in record.workloads()}
    heights = [len(figures) + 2.4 for figures in rows.values()]
    figure = new_figure(
        "Milliseconds of one meta-gradient, each contender in its best setting", BAR_INCHES * sum(heights) + 0.5
    )
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (workload, figures) in zip(panels, rows.items(), strict=True):
        _draw_bars(plain(axes), workload, figures)
    return figure


def growth_figure(record: Record) -> Drawing:
    """Milliseconds by each field that was changed, and the memory by inner steps."""
    panels: list[tuple[str, str]] = [(axis, "ms") for axis in dict.fromkeys(point.axis for point in record.growth)]
    if any(axis == "inner steps" for axis, _ in panels):
        panels.append(("inner steps", "MB"))
    rows = (len(panels) + 1) // 2
    figure = new_figure("How a meta-gradient's cost grows, one thread", 2.5 * rows)
    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (axis, unit) in zip(grid, panels, strict=False):
        _draw_curves(plain(axes), [point for point in record.growth if point.axis == axis], axis, unit)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _rows(record: Record, workload: str) -> list[Figure]:
    """The best setting of each contender, fastest first."""
    return sorted((record.of(workload, [name])[0] for name in ALL if record.of(workload, [name])), key=lambda f: f.ms)


def _draw_bars(axes: Axes, workload: str, figures: Sequence[Figure]) -> None:
    axes.set_title(f"{workload}: {TITLES.get(workload, '')}", loc="left", fontsize=8.5, color=GREY)
    times = [figure.ms for figure in figures]
    left = min(times) / 2
    for place, figure in enumerate(figures):
        color = COLORS.get(figure.contender, ORANGE)
        axes.barh(place, figure.ms - left, left=left, height=0.68, color=color, alpha=1 if color == BLUE else 0.75)
        axes.text(figure.ms * 1.06, place, _label(figure), va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(figures)), [ALL[figure.contender].title for figure in figures], fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left, max(times) * (max(times) / left) ** 0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=False)
    axes.tick_params(length=0, axis="y")


def _label(figure: Figure) -> str:
    unit = "worker" if figure.contender == "ours-ray" else "thread"
    setting = f"{figure.threads} {unit}{'s' if figure.threads > 1 else ''}"
    kept = figure.allocator == "kept" and len(ALL[figure.contender].allocators) > 1
    return f"{number(figure.ms)} ms  ({setting}{', our allocator' if kept else ''})"


def _draw_curves(axes: Axes, points: Sequence[Point], axis: str, unit: str) -> None:
    ends = []
    for name in dict.fromkeys(point.contender for point in points):
        mine = [point for point in points if point.contender == name]
        y = [point.ms if unit == "ms" else point.peak_mb for point in mine]
        color = CURVES.get(name, PURPLE)
        axes.plot([point.value for point in mine], y, "o-", color=color, markersize=3.5, linewidth=1.6)
        ends.append((float(mine[-1].value), y[-1], name, color))
    values = list(dict.fromkeys(point.value for point in points))
    axes.set_title(
        f"{'time (ms)' if unit == 'ms' else 'peak memory (MB)'} by {axis}", loc="left", fontsize=8.5, color=GREY
    )
    axes.set_xticks(values)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    end_labels(axes, ends, gap=0.13)
