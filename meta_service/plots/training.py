"""The training curve: validation metric and meta-loss over the outer iterations."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from meta_service.evaluation import AdaptationCurve, best_of, format_metric
from meta_service.plots.metric import in_axis_units, metric_axis, one_metric, short
from meta_service.plots.style import BLUE, GREEN, GREY, INK, ORANGE, band, end_labels, new_figure, plain, plural, png

_SMOOTHED_OVER = 1 / 40  # of the points


def training_picture(history: Sequence[tuple[int, AdaptationCurve]], losses: Sequence[tuple[int, float]]) -> bytes:
    """Validation before and after adaptation, and the meta-loss, by (outer iteration, value), as PNG."""
    return png(training_figure(history, losses))


def training_figure(history: Sequence[tuple[int, AdaptationCurve]], losses: Sequence[tuple[int, float]]) -> Figure:
    """Two panels over one iteration axis. Either list may be empty: its panel then says so."""
    figure = new_figure(_finding(history), height=5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
    _draw_validation(plain(upper), history)
    _draw_losses(plain(lower), losses)
    lower.set_xlabel("outer iterations", color=INK)
    last = max([iteration for iteration, _ in (*history, *losses)], default=1)
    lower.set_xlim(-0.02 * max(last, 1), 1.02 * max(last, 1))
    lower.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    lower.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure


def _draw_validation(axes: Axes, history: Sequence[tuple[int, AdaptationCurve]]) -> None:
    if not history:
        axes.set_yticks(())
        axes.text(0.5, 0.5, "no validation yet", transform=axes.transAxes, ha="center", color=GREY)
        return
    metric = one_metric(curve for _, curve in history)
    iterations = [iteration for iteration, _ in history]
    drawn = [in_axis_units(curve) for _, curve in history]
    means, halves = (np.array([(part[0], part[-1]) for part in parts]) for parts in zip(*drawn, strict=True))
    steps = len(history[-1][1].mean) - 1
    names = ("before adaptation", f"after {plural(steps, 'step')}")
    ends = []
    for column, (name, color) in enumerate(zip(names, (ORANGE, BLUE), strict=True)):
        mean, half = means[:, column], halves[:, column]
        band(axes, iterations, mean, half, color, name)
        axes.plot(iterations, mean, "os"[column] + "-", color=color, label=name, markersize=3.5, linewidth=1.8)
        value = format_metric(metric, history[-1][1].mean[0 if column == 0 else -1])
        ends.append((iterations[-1], float(np.nan_to_num(mean[-1])), f"{name}\n{value}", color))
    metric_axis(axes, metric, means, halves, means[0].tolist())
    _mark_best(axes, history)
    axes.set_title(f"{_tasks(history)}; bands: 95 % confidence intervals", loc="left", fontsize=8.5, color=GREY)
    end_labels(axes, ends, gap=0.14)


def _mark_best(axes: Axes, history: Sequence[tuple[int, AdaptationCurve]]) -> None:
    best = best_of(history)
    if best is None:
        return
    iteration, curve = best
    axes.axvline(iteration, color=GREEN, linewidth=1.2, linestyle="--", zorder=1, label="_best")
    axes.plot([iteration], [in_axis_units(curve)[0][-1]], "*", color=GREEN, markersize=13, label="_best value")
    first, last = history[0][0], history[-1][0]
    right = iteration > (first + last) / 2
    axes.annotate(
        f"best: {curve.wording()}\niteration {iteration:,}",
        xy=(iteration, 0.5),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if right else 6, 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        fontsize=9,
        color=GREEN,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.5},
    )


def _draw_losses(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    axes.set_ylabel("meta-loss", color=INK)
    if not losses:
        axes.set_yticks(())
        axes.text(0.5, 0.5, "no losses yet", transform=axes.transAxes, ha="center", color=GREY)
        return
    iterations, values = np.array(losses, dtype=float).T
    window = max(int(len(values) * _SMOOTHED_OVER), 1)
    axes.plot(iterations, values, color=BLUE, alpha=0.25 if window > 1 else 1, linewidth=0.8, label="meta-loss")
    if window > 1:
        smooth = np.convolve(values, np.ones(window) / window, "valid")
        middle = np.convolve(iterations, np.ones(window) / window, "valid")
        axes.plot(middle, smooth, color=BLUE, linewidth=1.6, label=f"mean of {window}")
        axes.set_title(f"dark: mean of {window} neighbouring points", loc="left", fontsize=8.5, color=GREY)
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 20 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())  # on so small a panel they would lie over each other


def _finding(history: Sequence[tuple[int, AdaptationCurve]]) -> str:
    best = best_of(history)
    if best is None:
        return "Meta-training" if not history else "Meta-training: no validation gave a finite value"
    iteration, curve = best
    start, end = (short(curve.metric, value) for value in (curve.before, curve.after))
    steps = plural(curve.steps, "gradient step")
    return f"Best validation at iteration {iteration:,}: {start} → {end} in {steps}"


def _tasks(history: Sequence[tuple[int, AdaptationCurve]]) -> str:
    count = history[-1][1].conditions.get("tasks")
    return f"{count:,} validation tasks" if isinstance(count, int) else "validation tasks"
