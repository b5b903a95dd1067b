"""The adaptation curve: what every gradient step on a new task is worth."""

import re
import textwrap
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from meta_service.evaluation import AdaptationCurve
from meta_service.plots.metric import in_axis_units, metric_axis, one_metric, short
from meta_service.plots.style import COLORS, GREY, INK, band, end_labels, new_figure, plain, plural, png

BASELINES = ("pretrained", "oracle", "random", "scratch")
"""Beginnings of words that make a curve's name that of a baseline."""


def adaptation_picture(curves: Mapping[str, AdaptationCurve]) -> bytes:
    """The metric of each named curve after 0, 1, ... gradient steps with its 95 % confidence band, as PNG."""
    return png(adaptation_figure(curves))


def adaptation_figure(curves: Mapping[str, AdaptationCurve]) -> Figure:
    """One line a name; baselines grey and dashed. The values after the last step stand at the ends of the lines."""
    metric = one_metric(curves.values())
    height = max(3.4, 0.42 * len(curves))  # of the axes, in inches; a label of two lines takes 0.36
    print_lines = _small_print(curves)
    figure = new_figure(_finding(curves), height + 1.1 + 0.16 * len(print_lines))
    axes = plain(figure.add_subplot())
    styles = _styles(curves)
    ends = []
    for name, curve in curves.items():
        steps = range(len(curve.mean))
        mean, half = in_axis_units(curve)
        color = styles[name]["color"]
        band(axes, steps, mean, half, color, name)
        axes.plot(steps, mean, label=name, **styles[name])
        last = int(np.flatnonzero(np.isfinite(mean))[-1]) if np.isfinite(mean).any() else 0
        ends.append((float(last), float(np.nan_to_num(mean[last])), f"{name}\n{_ending(curve)}", color))
    drawn = [in_axis_units(curve) for curve in curves.values()]
    means, halves = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    metric_axis(axes, metric, means, halves, [float(mean[0]) for mean, _ in drawn])
    axes.set_xlabel("gradient steps on the support set", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("\n".join(print_lines), loc="left", fontsize=8.5, color=GREY)
    end_labels(axes, ends, gap=0.4 / height)
    return figure


def _ending(curve: AdaptationCurve) -> str:
    return curve.wording(-1) if abs(curve.mean[-1]) + curve.ci95[-1] < 1000 else short(curve.metric, curve.mean[-1])


def is_baseline(name: str) -> bool:
    return any(word.startswith(BASELINES) for word in re.split(r"[\W_]+", name.lower()))


def _styles(names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A style each: told apart by marker or dashes, too, not by colour alone."""
    strong = cycle(zip(COLORS, "os^Dv", strict=False))
    muted = cycle([(GREY, "--"), ("#8A8A8A", ":"), ("#555555", "-.")])
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        if is_baseline(name):
            color, dashes = next(muted)
            styles[name] = {"color": color, "linestyle": dashes, "linewidth": 1.6, "zorder": 2}
        else:
            color, marker = next(strong)
            styles[name] = {"color": color, "marker": marker, "markersize": 5, "linewidth": 2.0, "zorder": 3}
    return styles


def _finding(curves: Mapping[str, AdaptationCurve]) -> str:
    """The first curve's gain, and what the baselines come to."""
    name = next((name for name in curves if not is_baseline(name)), next(iter(curves)))
    curve = curves[name]
    start, end = (short(curve.metric, value) for value in (curve.before, curve.after))
    finding = f"{name}: {start} → {end} in {plural(curve.steps, 'gradient step')}"
    others = [f"{other} {short(c.metric, c.after)}" for other, c in curves.items() if is_baseline(other)]
    return finding + (f" ({', '.join(others)})" if 0 < len(others) <= 3 and not is_baseline(name) else "")


def _small_print(curves: Mapping[str, AdaptationCurve]) -> list[str]:
    """The conditions all curves share, then what is particular to some."""
    conditions = [curve.conditions for curve in curves.values()]
    shared = {key: value for key, value in conditions[0].items() if all(c.get(key) == value for c in conditions)}
    particular: dict[str, list[str]] = {}
    for name, curve in curves.items():
        own = _wording({key: value for key, value in curve.conditions.items() if key not in shared})
        if own:
            particular.setdefault(", ".join(own), []).append(name)
    first = ", ".join([*_wording(shared), "bands: 95 % confidence intervals"])
    second = "; ".join(f"{', '.join(names)}: {own}" for own, names in particular.items())
    return [line for text in (first, second) for line in textwrap.wrap(text, 100)]


def _wording(conditions: Mapping[str, Any]) -> list[str]:
    return [f"{key.replace('_', ' ')} {value}" for key, value in conditions.items()]
