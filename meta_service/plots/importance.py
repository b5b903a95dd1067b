"""What decided a sweep: the importance of each field."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from meta_service.plots.style import BLUE, GREY, INK, new_figure, plain, plural, png


def importance_picture(shares: Mapping[str, float], trials: int) -> bytes:
    """The share of each field, as PNG."""
    return png(importance_figure(shares, trials))


def importance_figure(shares: Mapping[str, float], trials: int) -> Figure:
    """A bar for each field, the most important one at the top; `shares` add up to 1."""
    first = max(shares, key=lambda name: shares[name])
    figure = new_figure(f"{first} decided most: {100 * shares[first]:.0f} %", 1.5 + 0.45 * len(shares))
    axes = plain(figure.add_subplot())
    axes.grid(axis="y", visible=False)
    names = sorted(shares, key=lambda name: shares[name])
    values = [100 * shares[name] for name in names]
    axes.barh(range(len(names)), values, color=BLUE, height=0.6)
    axes.set_yticks(range(len(names)), names)
    for row, value in enumerate(values):
        axes.text(value + 1, row, f"{value:.0f} %", va="center", fontsize=9.5, color=INK)
    axes.set_xlim(0, max(values) * 1.12 + 2)
    axes.set_xticks(())
    axes.spines[["bottom"]].set_visible(False)
    axes.set_title(
        f"share of the variance of the places of {plural(trials, 'trial')} (functional ANOVA)",
        loc="left",
        fontsize=8.5,
        color=GREY,
    )
    return figure
