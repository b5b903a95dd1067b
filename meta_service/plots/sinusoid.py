"""The paper's Figure 2: how networks take up a sine curve from a few points."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from meta_service.job import JobSpec
from meta_service.params import Params
from meta_service.plots.adapted import adapted
from meta_service.plots.metric import short
from meta_service.plots.style import BLUE, GREY, INK, ORANGE, PURPLE, WIDTH, new_figure, plain, plural, png
from meta_service.tasks.sinusoid import Sinusoid

STEPS = (0, 1, 10)
_X = np.linspace(-5.0, 5.0, 201)
_STYLES = ((PURPLE, ":"), (ORANGE, "--"), (BLUE, "-"))


class _Panel(NamedTuple):
    """One network on one task."""

    support: np.ndarray
    """[shots, 2]: x, y."""
    truth: np.ndarray
    """[201]: the curve at _X."""
    predictions: np.ndarray
    """[len(STEPS), 201]: the network's after each of STEPS."""

    @property
    def errors(self) -> np.ndarray:
        """The mean squared error over the whole range of x after each of STEPS."""
        errors: np.ndarray = np.square(self.predictions - self.truth).mean(1)
        return errors

    @property
    def extent(self) -> float:
        """Up to which |y| to draw: all of the task, and of the predictions what is not far out of all proportion."""
        height = float(np.abs(self.truth).max())
        return 1.08 * max(height, min(float(np.nan_to_num(np.abs(self.predictions)).max()), 2 * height + 1))


def sinusoid_picture(models: Mapping[str, tuple[JobSpec, Params]], seeds: Sequence[int], shots: int) -> bytes:
    """Each network (by title: its job and theta) on the test tasks with these seeds, as PNG."""
    return png(sinusoid_figure(models, seeds, shots))


def sinusoid_figure(models: Mapping[str, tuple[JobSpec, Params]], seeds: Sequence[int], shots: int) -> Figure:
    """Rows are tasks, columns networks; a row's task and its `shots` support points are the same in every column.

    A network adapts with its own job's `algorithm`, so `inner_lr` is that of the job.
    """
    if not models or not seeds:
        raise ValueError(f"at least one network and one seed are expected, {len(models)} and {len(seeds)} came")
    panels = [[_panel(job, params, seed, shots) for job, params in models.values()] for seed in seeds]
    width = max(WIDTH, 2.5 * len(models))
    figure = new_figure(_finding(list(models), panels, shots), 1.4 + 2.3 * len(seeds), width)
    grid = figure.subplots(len(seeds), len(models), sharex=True, sharey="row", squeeze=False)
    for row, line, seed in zip(grid, panels, seeds, strict=True):
        for axes, panel in zip(row, line, strict=True):
            _draw(plain(axes), panel)
        row[0].set_ylim(*(sign * max(panel.extent for panel in line) for sign in (-1, 1)))
        amplitude, phase = _tasks_of(next(iter(models.values()))[0]).curve(seed)
        row[0].set_ylabel(f"y    (A = {amplitude:.1f}, φ = {phase:.1f} rad)", color=INK, fontsize=9)
    for axes, title in zip(grid[0], models, strict=True):
        above = (0, 20)  # points: over the line with the errors
        axes.annotate(title, (0, 1), above, "axes fraction", "offset points", fontsize=11, fontweight="bold", color=INK)
    for axes in grid[-1]:
        axes.set_xlabel("x", color=INK)
        axes.set_xticks((-5, 0, 5))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _tasks_of(job: JobSpec) -> Sinusoid:
    if not isinstance(job.tasks, Sinusoid):
        raise ValueError(f"a job with tasks Sinusoid is expected, {type(job.tasks).__name__} came (job {job.name})")
    return job.tasks


def _panel(job: JobSpec, params: Params, seed: int, shots: int) -> _Panel:
    tasks = dataclasses.replace(_tasks_of(job), shots=shots)
    support, _ = tasks.sample(seed, "test")
    everywhere = tasks.points(_X, *tasks.curve(seed))
    with torch.no_grad():
        predictions = [
            job.model.apply(theta, *everywhere.inputs)[:, 0] for theta in adapted(job, tasks, params, support, STEPS)
        ]
    points = torch.stack((support.inputs[0][:, 0], support.targets[:, 0]), 1)
    return _Panel(points.numpy(), everywhere.targets[:, 0].numpy(), torch.stack(predictions).numpy())


def _draw(axes: Axes, panel: _Panel) -> None:
    axes.plot(_X, panel.truth, color="#BDBDBD", linewidth=4, solid_capstyle="round", label="true curve")
    for steps, y, (color, dashes) in zip(STEPS, panel.predictions, _STYLES, strict=True):
        label = f"after {plural(steps, 'step')}" if steps else "before"
        axes.plot(_X, y, color=color, linestyle=dashes, linewidth=1.7, label=label)
    axes.plot(*panel.support.T, "^", color=INK, markersize=6, markeredgecolor="white", label="support points")
    errors = " → ".join(f"{short('mse', error)}" for error in panel.errors)
    axes.set_title(f"MSE {errors}", loc="left", fontsize=9, color=GREY)


def _finding(titles: Sequence[str], panels: Sequence[Sequence[_Panel]], shots: int) -> str:
    """The mean errors over the drawn tasks after one step."""
    after = np.array([[panel.errors[STEPS.index(1)] for panel in line] for line in panels]).mean(0)
    wording = ", ".join(f"{title} {short('mse', error)}" for title, error in zip(titles, after, strict=True))
    return f"One gradient step on {plural(shots, 'point')}: mean squared error {wording}"
