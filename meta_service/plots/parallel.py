"""Parallel coordinates: one line a trial, through its setting to what it was worth."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from meta_service.plots.metric import short
from meta_service.plots.scale import last_word, place, ticks
from meta_service.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, RED, new_figure, plural, png
from meta_service.sweep.ledger import FINISHED, STOPPED, Trial
from meta_service.sweep.ranking import best_of
from meta_service.sweep.ranking import places as places_of
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import short as value_text


def parallel_picture(sweep: Sweep, trials: Sequence[Trial]) -> bytes:
    """The trials' settings and places as PNG."""
    return png(parallel_figure(sweep, trials))


def parallel_figure(sweep: Sweep, trials: Sequence[Trial]) -> Figure:
    """An axis for each field and one for the trial's place, the best at the top. Green: the best; orange: the default.

    Blue lines finished, grey ones were stopped early, red ones diverged. Trials that failed have no line.
    """
    best = best_of(trials, sweep.metric)
    figure = new_figure(_finding(sweep, trials, best), 4.6, max(7.5, 1.5 * (len(sweep.space) + 1)))
    axes = figure.add_subplot()
    places = places_of(trials, sweep.metric)
    worst = max(places.values(), default=1.0) or 1.0
    for trial in sorted((t for t in trials if t.number in places), key=lambda t: -places[t.number]):
        heights = [place(range_, trial.setting[name]) for name, range_ in sweep.space.items()]
        heights.append(1 - places[trial.number] / worst)
        _line(axes, heights, trial, best, sweep)
    for x, (name, range_) in enumerate(sweep.space.items()):
        _axis(axes, x, last_word(name), ticks(range_))
    _axis(axes, len(sweep.space), f"validation {sweep.metric}", _values(sweep, trials, places, worst))
    axes.set_xlim(-0.35, len(sweep.space) + 0.45)
    axes.set_ylim(-0.06, 1.06)
    axes.axis("off")
    named = "green: the best; orange: the job's default; " if sweep.tune.default else "green: the best; "
    axes.set_title(
        f"{named}blue: finished, grey: stopped early, red: diverged\nplaces by the share of other trials beaten at the "
        "last look both had",
        loc="left",
        fontsize=8.5,
        color=GREY,
        pad=22,
    )
    return figure


def _line(axes: Axes, heights: list[float], trial: Trial, best: Trial | None, sweep: Sweep) -> None:
    color, width, opacity, order = PALE, 1.2, 0.9, 1.0
    if trial.state == FINISHED:
        color, width, order = BLUE, 1.4, 3.0
    elif not trial.compared:
        color, opacity, order = RED, 0.45, 1.5
    if sweep.tune.default and trial.number == 0:
        color, width, opacity, order = ORANGE, 2.0, 1.0, 4.0
    if best and trial.number == best.number:
        color, width, opacity, order = GREEN, 3.0, 1.0, 5.0
    xs = np.linspace(0, len(heights) - 1, 40 * (len(heights) - 1) + 1)
    left = np.minimum(xs.astype(int), len(heights) - 2)
    share = xs - left
    smooth = share * share * (3 - 2 * share)  # flat at the axes, so that lines can be followed through them
    points = np.array(heights)
    ys = points[left] + (points[left + 1] - points[left]) * smooth
    axes.plot(xs, ys, color=color, linewidth=width, alpha=opacity, zorder=order, label=f"_trial {trial.number}")


def _axis(axes: Axes, x: int, title: str, marks: list[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=INK, linewidth=1.0, zorder=6)
    axes.text(x, 1.05, title, ha="center", va="bottom", fontsize=9.5, fontweight="bold", color=INK)
    for height, text in marks:
        axes.plot([x - 0.02, x + 0.02], [height, height], color=INK, linewidth=1.0, zorder=6)
        box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8}
        axes.text(x + 0.04, height, text, va="center", fontsize=8.5, color=INK, zorder=7, bbox=box)


def _values(sweep: Sweep, trials: Sequence[Trial], places: dict[int, float], worst: float) -> list[tuple[float, str]]:
    """Metrics of some trials, where these stand on the last axis; of one that was stopped, with its last iteration."""
    marks: list[tuple[float, str]] = []
    for trial in sorted((t for t in trials if t.number in places), key=lambda t: places[t.number]):
        height = 1 - places[trial.number] / worst
        if not marks or marks[-1][0] - height > 0.085:
            at = f" at {trial.iteration:,}" if trial.state == STOPPED else ""
            marks.append((height, f"{short(sweep.metric, trial.value)}{at}" if trial.compared else trial.state))
    return marks


def _finding(sweep: Sweep, trials: Sequence[Trial], best: Trial | None) -> str:
    if best is None:
        return f"None of {plural(len(trials), 'trial')} finished"
    setting = ", ".join(f"{name.rpartition('.')[2]} {value_text(value)}" for name, value in best.setting.items())
    return f"Best of {len(trials)}: {setting}: {sweep.metric} {short(sweep.metric, best.value)}"
