"""A metric as an axis: accuracies in percent, errors from zero, returns as they come."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes

from meta_service.evaluation import AdaptationCurve
from meta_service.plots.style import INK

_TITLES = {"accuracy": "accuracy (%)", "mse": "mean squared error", "return": "return of a trajectory"}
_DIVERGED = 10.0


def short(metric: str, value: float) -> str:
    """A value for titles: `98.7 %`, `0.62`, `0.0045`, `3.1e+05`; "diverged" for what is no number."""
    if not np.isfinite(value):
        return "diverged"
    if metric == "accuracy":
        return f"{100 * value:.1f} %"
    if metric == "return":
        return f"{value:.1f}"
    return f"{value:.2f}" if 0.1 <= value < 1000 else f"{value:.2g}"


def one_metric(curves: Iterable[AdaptationCurve]) -> str:
    """The metric all curves are of; raises ValueError where there are none, or of several metrics."""
    metrics = sorted({curve.metric for curve in curves})
    if len(metrics) != 1:
        raise ValueError(f"adaptation curves of one metric are expected, of {metrics or 'none'} came")
    return metrics[0]


def in_axis_units(curve: AdaptationCurve) -> tuple[np.ndarray, np.ndarray]:
    """(mean, ci95) [steps + 1] as they are drawn: accuracies in percent."""
    scale = 100.0 if curve.metric == "accuracy" else 1.0
    return scale * np.array(curve.mean), scale * np.array(curve.ci95)


def metric_axis(axes: Axes, metric: str, means: np.ndarray, halves: np.ndarray, starts: Iterable[float]) -> None:
    """Labels the y axis and sets its limits to hold all mean +- ci95, in axis units.

    An error that has grown to many times the largest of `starts` runs out of the picture: it would flatten all others.
    """
    axes.set_ylabel(_TITLES.get(metric, metric), color=INK)
    upper, lower = means + halves, means - halves
    upper, lower = upper[np.isfinite(upper)], lower[np.isfinite(lower)]
    if not upper.size:
        return
    if metric == "accuracy":
        margin = 0.06 * max(float(upper.max() - lower.min()), 1.0)
        axes.set_ylim(max(float(lower.min()) - margin, 0.0), min(float(upper.max()) + margin, 100.5))
    elif metric == "return":
        margin = 0.06 * max(float(upper.max() - lower.min()), 1.0)
        axes.set_ylim(float(lower.min()) - margin, float(upper.max()) + margin)
    else:
        finite = [start for start in starts if np.isfinite(start) and start > 0]
        limit = _DIVERGED * max(finite, default=np.inf)
        kept = upper[upper <= limit]
        axes.set_ylim(0.0, 1.06 * float(kept.max() if kept.size else limit))
