"""The curves of all trials of a sweep: who led when, and who was stopped where."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from meta_service.evaluation import format_metric
from meta_service.plots.metric import metric_axis, short
from meta_service.plots.style import BLUE, GREEN, GREY, INK, ORANGE, RED, end_labels, new_figure, plain, plural, png
from meta_service.sweep.halving import rungs
from meta_service.sweep.ledger import FINISHED, STOPPED, Trial
from meta_service.sweep.ranking import best_of
from meta_service.sweep.settings import Sweep

LOG_FROM = 8.0  # the ratio of errors from which the axis shows powers of ten


def trials_picture(sweep: Sweep, trials: Sequence[Trial]) -> bytes:
    """Validation after adaptation by outer iteration, a line a trial, as PNG."""
    return png(trials_figure(sweep, trials))


def trials_figure(sweep: Sweep, trials: Sequence[Trial]) -> Figure:
    """Green: the best; orange: the job's default; blue: finished; grey, to a cross: stopped early; red: diverged."""
    best = best_of(trials, sweep.metric)
    figure = new_figure(_finding(sweep, trials, best), 4.8)
    axes = plain(figure.add_subplot())
    scale = 100.0 if sweep.metric == "accuracy" else 1.0
    ends = []
    drawn: list[np.ndarray] = []
    for trial in trials:
        looks = [(look.iteration, scale * look.value) for look in trial.looks if np.isfinite(look.value)]
        if not looks:
            continue
        xs, ys = np.array(looks, dtype=float).T
        drawn.append(ys)
        color, width, order = _style(trial, best, sweep)
        axes.plot(xs, ys, color=color, linewidth=width, zorder=order, label=f"_trial {trial.number}")
        if trial.state != FINISHED:
            axes.plot(xs[-1:], ys[-1:], "x", color=color, markersize=6, zorder=order)
        name = "best" if best and trial.number == best.number else "default" if _is_default(trial, sweep) else ""
        if name and trial.state == FINISHED:
            text = f"{name}: trial {trial.number}\n{format_metric(sweep.metric, trial.value)}"
            ends.append((float(xs[-1]), float(ys[-1]), text, color))
    _limits(axes, sweep, drawn)
    for rung in rungs(sweep.tune) if sweep.tune.search != "pbt" else ():
        axes.axvline(rung, color=GREY, linewidth=0.8, linestyle=":", zorder=0, label="_rung")
    axes.set_xlabel("outer iterations", color=INK)
    axes.set_xlim(-0.02 * sweep.tune.iterations, 1.02 * sweep.tune.iterations)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    counts = {state: sum(t.state == state for t in trials) for state in dict.fromkeys(t.state for t in trials)}
    words = ", ".join(f"{count} {state or 'not over'}" for state, count in counts.items())
    axes.set_title(f"{words}; dotted: rungs at which trials are stopped", loc="left", fontsize=8.5, color=GREY)
    if axes.get_yscale() == "linear":
        end_labels(axes, ends, gap=0.12)
    else:
        for x, y, text, color in ends:
            axes.annotate(text, (x, y), (8, 0), textcoords="offset points", color=color, fontsize=9.5, va="center")
    return figure


def _style(trial: Trial, best: Trial | None, sweep: Sweep) -> tuple[str, float, float]:
    """(color, width, order)."""
    if best and trial.number == best.number:
        return GREEN, 2.6, 5
    if _is_default(trial, sweep):
        return ORANGE, 2.0, 4
    if trial.state == FINISHED:
        return BLUE, 1.2, 3
    return ("#9A9A9A", 1.0, 2) if trial.state in (STOPPED, "") else (RED, 1.0, 2)


def _is_default(trial: Trial, sweep: Sweep) -> bool:
    return sweep.tune.default and trial.number == 0


def _limits(axes: Axes, sweep: Sweep, drawn: list[np.ndarray]) -> None:
    values = np.concatenate(drawn) if drawn else np.array([0.0, 1.0])
    metric_axis(axes, sweep.metric, values, np.zeros_like(values), [float(ys[0]) for ys in drawn])
    if sweep.metric == "mse" and values.min() > 0 and values.max() > LOG_FROM * values.min():
        axes.set_yscale("log")
        axes.set_ylim(0.85 * values.min(), 1.2 * np.median([ys[0] for ys in drawn]) * 2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _finding(sweep: Sweep, trials: Sequence[Trial], best: Trial | None) -> str:
    if best is None:
        return f"None of {plural(len(trials), 'trial')} finished"
    text = f"Trial {best.number} of {len(trials)} is the best: {sweep.metric} {short(sweep.metric, best.value)}"
    default = trials[0] if sweep.tune.default else None
    if default and default.state == FINISHED and default.number != best.number:
        text += f", the default {short(sweep.metric, default.value)} after as many steps"
    return text
