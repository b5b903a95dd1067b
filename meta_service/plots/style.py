"""The look all pictures share. Figures are built without pyplot, so that nothing is kept between two of them."""

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 120
WIDTH = 7.5  # inches: 900 pixels

# After Okabe and Ito: distinguishable with every common colour blindness; darker, so that thin lines and text are
# readable on white.
BLUE, ORANGE, GREEN, PURPLE, RED, BROWN = "#0072B2", "#D98200", "#00805F", "#B0558A", "#C4420B", "#7A4A1E"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED, BROWN)
INK, GREY, PALE = "#222222", "#6B6B6B", "#D9D9D9"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file of its size in inches times 120 pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def new_figure(title: str, height: float, width: float = WIDTH) -> Figure:
    """An empty figure of this size in inches under a title, which is broken into lines that fit."""
    figure = Figure((width, height), DPI, facecolor="white", layout="constrained")
    figure.suptitle(broken(title, width), x=0.012, ha="left", fontsize=11.5, fontweight="bold", color=INK)
    return figure


def broken(title: str, width: float) -> str:
    """A title in lines that fit into so many inches."""
    return textwrap.fill(title, int(9.5 * width))


def plain(axes: Axes) -> Axes:
    """Without the box, and with a faint horizontal grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor=INK, labelsize=9)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def band(axes: Axes, x: Sequence[float], mean: np.ndarray, half: np.ndarray, color: str, label: str) -> None:
    """The interval mean +- half; found again by its label, which no legend shows."""
    axes.fill_between(x, mean - half, mean + half, color=color, alpha=0.18, linewidth=0, label=f"_{label} ci95")


def end_labels(axes: Axes, ends: Sequence[tuple[float, float, str, str]], gap: float) -> None:
    """Writes (x, y, text, color) right of the axes, each at the height of its y, as far as none covers another.

    gap: the height of a text as a share of the axes' height. To be called when the axes' limits are final.
    """
    bottom, top = axes.get_ylim()
    wanted = [min(max((y - bottom) / (top - bottom), 0.0), 1.0) for _, y, _, _ in ends]
    for (x, y, text, color), height in zip(ends, spread(wanted, gap), strict=True):
        within = bottom <= y <= top  # no leader to where a line has left the picture
        leader = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "alpha": 0.6, "relpos": (0, 0.5), "shrinkB": 3}
        axes.annotate(
            text,
            xy=(x, min(max(y, bottom), top)),
            xytext=(1.045, height),
            textcoords="axes fraction",
            va="center",
            color=color,
            fontsize=9.5,
            linespacing=1.1,
            arrowprops=leader if within else None,
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """The places nearest to those wanted (in least squares) of which no two are nearer than `gap`.

    Kept within [gap / 2, 1 - gap / 2] as far as all of them fit in there.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    clusters: list[list[float]] = []  # of neighbours pushed against each other: pool adjacent violators
    for rank, index in enumerate(order):
        clusters.append([wanted[index] - rank * gap])
        while len(clusters) > 1 and np.mean(clusters[-2]) > np.mean(clusters[-1]):
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    levels = [float(np.mean(cluster)) for cluster in clusters for _ in cluster]
    lowest = gap / 2
    highest = max(1 - gap * (len(wanted) - 0.5), lowest)
    places = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        places[index] = min(max(levels[rank], lowest), highest) + rank * gap
    return places


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
