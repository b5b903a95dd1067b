"""Two fields of a sweep as a map: where in their plane the good trials lie."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from meta_service.plots.metric import short
from meta_service.plots.scale import last_word, place, ticks
from meta_service.plots.style import GREY, INK, new_figure, png
from meta_service.sweep.ledger import FINISHED, STOPPED, Trial
from meta_service.sweep.ranking import best_of
from meta_service.sweep.ranking import places as places_of
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import short as value_text

ALPHA, BETA = "algorithm.inner_lr", "outer.meta_lr"
WIDTH = 0.11  # of the kernel, as a share of an axis
_COLORS = LinearSegmentedColormap.from_list("places", ["#00805F", "#8FC9B4", "#F3EFE6", "#E9B384", "#C4420B"])
_MARKERS = {FINISHED: "o", STOPPED: "v"}


def plane(sweep: Sweep, importance: Sequence[str] = ()) -> tuple[str, str] | None:
    """The two fields that are drawn: alpha and beta if both are searched, else the two that matter most."""
    if ALPHA in sweep.space and BETA in sweep.space:
        return ALPHA, BETA
    names = [*importance, *(name for name in sweep.space if name not in importance)]
    return (names[0], names[1]) if len(names) > 1 else None


def heatmap_picture(sweep: Sweep, trials: Sequence[Trial], names: tuple[str, str]) -> bytes:
    """The map as PNG."""
    return png(heatmap_figure(sweep, trials, names))


def heatmap_figure(sweep: Sweep, trials: Sequence[Trial], names: tuple[str, str]) -> Figure:
    """Every trial at its two values; between them, the mean place of the trials near by (a Gaussian kernel)."""
    across, up = names
    places = places_of(trials, sweep.metric)
    seen = [trial for trial in trials if trial.number in places]
    best = best_of(trials, sweep.metric)
    figure = new_figure(_finding(sweep, best, names), 5.6)
    axes = figure.add_subplot()
    points = np.array(
        [[place(sweep.space[name], trial.setting[name]) for name in names] for trial in seen], dtype=float
    ).reshape(-1, 2)
    ranks = np.array([places[trial.number] for trial in seen], dtype=float)
    worst = max(ranks.max(initial=0.0), 1.0)
    if len(seen):
        axes.imshow(
            surface(points, ranks),
            origin="lower",
            extent=(-0.04, 1.04, -0.04, 1.04),
            cmap=_COLORS,
            vmin=0,
            vmax=worst,
            alpha=0.75,
            aspect="auto",
            interpolation="bilinear",
        )
    for trial, (x, y), rank in zip(seen, points, ranks, strict=True):
        axes.scatter(
            [x],
            [y],
            c=[rank],
            cmap=_COLORS,
            vmin=0,
            vmax=worst,
            s=70,
            marker=_MARKERS.get(trial.state, "X"),
            edgecolors=INK,
            linewidths=0.8,
            zorder=3,
            label=f"_trial {trial.number}",
        )
        text = short(sweep.metric, trial.value) if trial.state == FINISHED else ""
        above = 12 if best and trial.number == best.number else 7
        above = above if y < 0.93 else -above - 9  # within the picture
        axes.annotate(
            text, (x, y), (0, above), textcoords="offset points", ha="center", fontsize=8, color=INK, zorder=4
        )
    if best is not None:
        x, y = (place(sweep.space[name], best.setting[name]) for name in names)
        axes.scatter([x], [y], s=330, facecolors="none", edgecolors=INK, linewidths=2.0, zorder=5, label="_best")
    for set_ticks, set_label, name in (
        (axes.set_xticks, axes.set_xlabel, across),
        (axes.set_yticks, axes.set_ylabel, up),
    ):
        marks = ticks(sweep.space[name])
        set_ticks([at for at, _ in marks], [text for _, text in marks])
        set_label(last_word(name), color=INK)
    axes.tick_params(colors=GREY, labelcolor=INK, labelsize=9)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_title(
        f"circles: finished, with validation {sweep.metric}; triangles: stopped early; crosses: diverged\n"
        "green: good places among the trials, red: bad ones; between trials: a mean of those near by",
        loc="left",
        fontsize=8.5,
        color=GREY,
    )
    return figure


def surface(points: np.ndarray, ranks: np.ndarray, size: int = 120) -> np.ndarray:
    """The kernel-weighted mean of `ranks` [n] given at `points` [n, 2] in the unit square: [size, size], rows up."""
    grid = np.linspace(-0.04, 1.04, size)
    distance = (grid[None, :, None] - points[:, 0]) ** 2 + (grid[:, None, None] - points[:, 1]) ** 2
    weights = np.exp(-(distance - distance.min(-1, keepdims=True)) / (2 * WIDTH**2))
    mean: np.ndarray = (weights * ranks).sum(-1) / weights.sum(-1)
    return mean


def _finding(sweep: Sweep, best: Trial | None, names: tuple[str, str]) -> str:
    where = " and ".join(name.rpartition(".")[2] for name in names)
    if best is None:
        return f"{where}: no trial finished"
    values = " and ".join(f"{name.rpartition('.')[2]} {value_text(best.setting[name])}" for name in names)
    return f"Best at {values}: {sweep.metric} {short(sweep.metric, best.value)}"
