"""A sheet of one few-shot episode: what the network saw, and what it says before and after adaptation."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from meta_service.episode import Batch, Split
from meta_service.job import JobSpec
from meta_service.params import Params
from meta_service.plots.adapted import adapted
from meta_service.plots.style import DPI, GREEN, GREY, INK, PALE, RED, WIDTH, broken, plural, png

MAX_CLASSES, MAX_SUPPORT, MAX_QUERY = 10, 5, 5

# inches
_CELL, _IMAGE = 0.82, 0.72
_LINE = 0.19  # of text, above and below a query image
_ROW = _IMAGE + 2 * _LINE + 0.2
_LEFT, _GAP, _TOP, _BOTTOM = 0.75, 0.75, 1.15, 0.1


class Opinion(NamedTuple):
    """What the network says about each query example."""

    predicted: np.ndarray
    """[examples]: class indices."""
    confidence: np.ndarray
    """[examples]: the softmax probability of the predicted class."""


def episode_picture(job: JobSpec, params: Params, seed: int, steps: int, split: Split = "test") -> bytes:
    """The task that `seed` names before and after `steps` steps of adaptation, as PNG."""
    return png(episode_figure(job, params, seed, steps, split))


def episode_figure(job: JobSpec, params: Params, seed: int, steps: int, split: Split = "test") -> Figure:
    """Rows are classes (numbered from 1): support images, then query images, of each the first few.

    Above a query image stands the class predicted before adaptation and its probability, below it that after.
    """
    job.tasks.prepare()
    support, query = job.data_sets.sample(seed, split)
    before, after = (_opinion(job, theta, query) for theta in adapted(job, job.data_sets, params, support, (0, steps)))
    classes = np.unique(support.targets.numpy())[:MAX_CLASSES]
    shown = {label: _first(support, label, MAX_SUPPORT) for label in classes}
    asked = {label: _first(query, label, MAX_QUERY) for label in classes}
    columns = max(map(len, shown.values())), max(map(len, asked.values()))
    width = max(WIDTH, _LEFT + sum(columns) * _CELL + _GAP + 0.1)
    height = _TOP + len(classes) * _ROW + _BOTTOM
    figure = Figure((width, height), DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))  # one inch is one unit
    axes.axis("off")
    queries_from = _LEFT + columns[0] * _CELL + _GAP
    truth = query.targets.numpy()
    for row, label in enumerate(classes):
        y = height - _TOP - (row + 1) * _ROW + _LINE + 0.1
        axes.text(_LEFT - 0.1, y + _IMAGE / 2, f"class {label + 1}", ha="right", va="center", fontsize=9, color=INK)
        for word, at in (("before", y + _IMAGE + 0.04), ("after", y - 0.15)):
            axes.text(queries_from - 0.1, at, word, ha="right", fontsize=8, color=GREY)
        for column, index in enumerate(shown[label]):
            _draw_image(axes, support.inputs[0][index], _LEFT + column * _CELL, y, PALE, 0.8)
        for column, index in enumerate(asked[label]):
            x = queries_from + column * _CELL
            _draw_image(axes, query.inputs[0][index], x, y, _color(after, truth, index), 2.2)
            _write(axes, before, truth, index, x, y + _IMAGE + 0.04, "before")
            _write(axes, after, truth, index, x, y - 0.15, "after")
    _head(axes, height, width, queries_from, _finding(before, after, truth, steps))
    every = len(np.unique(truth)), len(support.targets), len(truth)
    drawn = len(classes), sum(map(len, shown.values())), sum(map(len, asked.values()))
    axes.text(0.1, height - 0.62, _small_print(drawn, every), fontsize=8.5, color=GREY, va="center")
    return figure


def _opinion(job: JobSpec, params: Params, query: Batch) -> Opinion:
    with torch.no_grad():
        confidence, predicted = job.model.apply(params, *query.inputs).softmax(1).max(1)
    return Opinion(predicted.numpy(), confidence.numpy())


def _first(batch: Batch, label: int, count: int) -> np.ndarray:
    """Where in the batch the first examples of a class are."""
    return np.flatnonzero(batch.targets.numpy() == label)[:count]


def _draw_image(axes: Axes, image: Tensor, x: float, y: float, frame: str, width: float) -> None:
    """image: [1 or 3, height, width] in [0, 1], with its lower left corner at (x, y)."""
    pixels = image.clamp(0, 1).permute(1, 2, 0).numpy()
    extent = (x, x + _IMAGE, y, y + _IMAGE)
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.add_patch(Rectangle((x, y), _IMAGE, _IMAGE, fill=False, edgecolor=frame, linewidth=width))


def _color(opinion: Opinion, truth: np.ndarray, index: int) -> str:
    return GREEN if opinion.predicted[index] == truth[index] else RED


def _write(axes: Axes, opinion: Opinion, truth: np.ndarray, index: int, x: float, y: float, when: str) -> None:
    """`✓ 3  97 %`: right or wrong, the predicted class, its probability. Found again by its gid."""
    sign = "✓" if opinion.predicted[index] == truth[index] else "✗"
    text = f"{sign} {opinion.predicted[index] + 1}  {100 * opinion.confidence[index]:.0f} %"
    color = _color(opinion, truth, index)
    axes.text(x + _IMAGE / 2, y, text, ha="center", fontsize=8, color=color, gid=f"{when}/{index}")


def _head(axes: Axes, height: float, width: float, queries_from: float, finding: str) -> None:
    axes.text(
        0.1,
        height - 0.28,
        broken(finding, width),
        fontsize=11.5,
        fontweight="bold",
        color=INK,
        va="center",
        gid="title",
    )
    for x, text in ((_LEFT, "support"), (queries_from, "query")):
        axes.text(x, height - _TOP + 0.08, text, fontsize=10, fontweight="bold", color=INK)


def _finding(before: Opinion, after: Opinion, truth: np.ndarray, steps: int) -> str:
    right = [int((opinion.predicted == truth).sum()) for opinion in (before, after)]
    first = f"{right[0]} of {plural(len(truth), 'query image')} right before adaptation"
    return f"{first}, {right[1]} after {plural(steps, 'step')}"


def _small_print(drawn: tuple[int, int, int], every: tuple[int, int, int]) -> str:
    names = ("classes", "support images", "query images")
    missing = [f"{d} of {e} {name}" for d, e, name in zip(drawn, every, names, strict=True) if d < e]
    shown = f"; shown are {', '.join(missing)}" if missing else ""
    return f"✓ right, ✗ wrong: the predicted class and its probability{shown}"
