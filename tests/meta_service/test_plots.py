"""The pictures show the numbers they were given: checked on the figures, then that each is a PNG of its size."""

import io
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from meta_service.algorithms.maml import MAML
from meta_service.dotted import override
from meta_service.evaluation import AdaptationCurve, evaluate
from meta_service.job import Evaluation, JobSpec
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.params import Params
from meta_service.plots import (
    adaptation_figure,
    adaptation_picture,
    episode_figure,
    episode_picture,
    png,
    sinusoid_figure,
    sinusoid_picture,
    training_figure,
    training_picture,
)
from meta_service.plots.style import DPI, spread
from meta_service.pool import LocalPool
from meta_service.tasks.sinusoid import Sinusoid
from tests.meta_service.tiny import TinyImages


@dataclass(frozen=True)
class Trained:
    job: JobSpec
    params: Params
    history: list[tuple[int, AdaptationCurve]]
    losses: list[tuple[int, float]]
    curve: AdaptationCurve


def train(job: JobSpec) -> Trained:
    pool = LocalPool.of(job)
    state = job.init()
    history = []
    losses = []
    for _ in range(job.iterations):
        state, mean = job.outer.step(state, pool.objective(job.blocks("train", state.iteration, job.meta_batch_size)))
        losses.append((state.iteration, mean.loss))
        if state.iteration % job.validate_every == 0:
            history.append((state.iteration, evaluate(job, pool, state.params, job.validation, "validation")))
    curve = evaluate(job, pool, state.params, Evaluation("paper", num_tasks=20, steps=3, shots=5), "test")
    return Trained(job, state.params, history, losses, curve)


@pytest.fixture(scope="module")
def trained() -> dict[str, Trained]:
    """A few iterations each: enough for numbers that differ."""
    job = JobSpec(
        "sinusoid",
        Sinusoid(),
        MLP(init_std=0.3),
        meta_batch_size=8,
        tasks_per_block=8,
        iterations=12,
        validate_every=3,
        validation=Evaluation("validation", num_tasks=16, steps=1),
    )
    oracle = override(job, ["tasks.oracle=true", "algorithm.inner_steps=0", "algorithm.inner_lr=0.001"])
    return {
        "MAML": train(job),
        "pretrained": train(override(job, ["algorithm.inner_steps=0"])),
        "oracle": train(oracle),
    }


def size_of(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def line(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def band(axes: Axes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper edge at every x."""
    (area,) = [area for area in axes.collections if area.get_label() == f"_{name} ci95"]
    assert isinstance(area, PolyCollection)
    corners = np.asarray(area.get_paths()[0].vertices, dtype=float)
    xs = np.unique(corners[:, 0])
    return (
        np.array([corners[corners[:, 0] == x, 1].min() for x in xs]),
        np.array([corners[corners[:, 0] == x, 1].max() for x in xs]),
    )


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def accuracy(*mean: float, ci95: float = 0.01, **conditions: object) -> AdaptationCurve:
    return AdaptationCurve("accuracy", mean, (ci95,) * len(mean), {"tasks": 600, **conditions})


# --- the adaptation curve


def test_adaptation_lines_are_the_curves_and_bands_are_mean_plus_minus_ci(trained: dict[str, Trained]) -> None:
    curves = {name: each.curve for name, each in trained.items()}
    (axes,) = adaptation_figure(curves).axes
    for name, curve in curves.items():
        x, y = line(axes, name)
        lower, upper = band(axes, name)
        np.testing.assert_array_equal(x, [0, 1, 2, 3])
        np.testing.assert_array_equal(y, curve.mean)
        np.testing.assert_allclose(lower, np.subtract(curve.mean, curve.ci95))
        np.testing.assert_allclose(upper, np.add(curve.mean, curve.ci95))
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylabel() == "mean squared error"


def test_an_accuracy_is_drawn_in_percent() -> None:
    (axes,) = adaptation_figure({"paper": accuracy(0.2, 0.9)}).axes
    np.testing.assert_allclose(line(axes, "paper")[1], [20, 90])
    np.testing.assert_allclose(band(axes, "paper"), [[19, 89], [21, 91]])
    assert axes.get_ylabel() == "accuracy (%)"


def test_the_final_values_stand_at_the_line_ends(trained: dict[str, Trained]) -> None:
    curves = {name: each.curve for name, each in trained.items()}
    shown = texts(adaptation_figure(curves))
    for name, curve in curves.items():
        assert f"{name}\n{curve.wording()}" in shown


def test_labels_of_near_lines_do_not_overlap() -> None:
    curves = {f"protocol {n}": accuracy(0.2, 0.98 + n / 1000) for n in range(7)}
    figure = adaptation_figure(curves)
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if text.get_text().startswith("protocol")]
    boxes = sorted((Text.get_window_extent(label) for label in labels), key=lambda box: box.y0)
    assert len(boxes) == 7
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    assert all(box.y0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


def test_baselines_are_grey_and_dashed_and_named_in_the_title() -> None:
    figure = adaptation_figure({"paper/pretrained": accuracy(0.2, 0.3), "paper": accuracy(0.2, 0.9)})
    styles = {str(line.get_label()): line for line in figure.axes[0].get_lines()}
    red, green, blue = (int(str(styles["paper/pretrained"].get_color())[i : i + 2], 16) for i in (1, 3, 5))
    assert red == green == blue
    assert styles["paper/pretrained"].get_linestyle() != "-"
    assert styles["paper"].get_linestyle() == "-"
    assert figure.get_suptitle() == "paper: 20.0 % → 90.0 % in 1 gradient step (paper/pretrained 30.0 %)"


def test_shared_conditions_are_printed_once_and_others_by_name() -> None:
    figure = adaptation_figure(
        {"paper": accuracy(0.2, 0.9, query_shots=1), "strict": accuracy(0.2, 0.8, query_shots=15)}
    )
    small_print = figure.axes[0].get_title(loc="left")
    assert small_print.splitlines()[0] == "tasks 600, bands: 95 % confidence intervals"
    assert small_print.splitlines()[1] == "paper: query shots 1; strict: query shots 15"


def test_a_diverged_baseline_does_not_flatten_the_others() -> None:
    good = AdaptationCurve("mse", (4.0, 1.0), (0.1, 0.1), {})
    bad = AdaptationCurve("mse", (4.0, 1e9, math.nan), (0.1, 1e8, math.nan), {})
    figure = adaptation_figure({"MAML": good, "pretrained": bad})
    assert figure.axes[0].get_ylim()[1] < 5
    assert "pretrained\ndiverged" in texts(figure)
    assert size_of(png(figure))


def test_curves_of_two_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="one metric"):
        adaptation_figure({"a": accuracy(0.2), "b": AdaptationCurve("mse", (1.0,), (0.1,), {})})


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([0.5], [0.5]),
        ([0.8, 0.3], [0.8, 0.3]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.52, 0.5], [0.56, 0.46]),
        ([1.0, 1.0, 0.0], [0.85, 0.95, 0.05]),
    ],
)
def test_spread_moves_as_little_as_needed(wanted: list[float], places: list[float]) -> None:
    assert spread(wanted, 0.1) == pytest.approx(places)


# --- the training curve


def test_training_lines_are_the_history_and_the_losses(trained: dict[str, Trained]) -> None:
    run = trained["MAML"]
    upper, lower = training_figure(run.history, run.losses).axes
    for name, step in (("before adaptation", 0), ("after 1 step", -1)):
        means = [curve.mean[step] for _, curve in run.history]
        halves = [curve.ci95[step] for _, curve in run.history]
        x, y = line(upper, name)
        np.testing.assert_array_equal(x, [3, 6, 9, 12])
        np.testing.assert_array_equal(y, means)
        np.testing.assert_allclose(band(upper, name), [np.subtract(means, halves), np.add(means, halves)])
    x, y = line(lower, "meta-loss")
    np.testing.assert_array_equal(np.stack((x, y), 1), run.losses)


def test_the_best_iteration_is_marked_highest_accuracy_or_lowest_error() -> None:
    better = [
        (10, accuracy(0.2, 0.5)),
        (20, accuracy(0.2, 0.9)),
        (30, accuracy(0.2, math.nan)),
        (40, accuracy(0.2, 0.9)),
    ]
    figure = training_figure(better, [])
    assert line(figure.axes[0], "_best value")[0] == [20]
    assert figure.get_suptitle() == "Best validation at iteration 20: 20.0 % → 90.0 % in 1 gradient step"
    errors = [(i, AdaptationCurve("mse", (4.0, e), (0.1, 0.1), {})) for i, e in ((1, 2.0), (2, 0.5), (3, 0.7))]
    assert line(training_figure(errors, []).axes[0], "_best value")[0] == [2]


def test_many_losses_get_their_running_mean_and_a_logarithmic_axis_over_decades() -> None:
    losses = [(i, 10.0 ** (-i / 100)) for i in range(200)]
    lower = training_figure([], losses).axes[1]
    x, y = line(lower, "mean of 5")
    assert (x[0], y[0]) == pytest.approx((2.0, np.mean([loss for _, loss in losses[:5]])))
    assert lower.get_yscale() == "log"
    assert training_figure([], [(1, 2.0), (2, 1.0)]).axes[1].get_yscale() == "linear"


def test_a_run_without_validation_or_losses_still_has_a_picture() -> None:
    assert "no validation yet" in texts(training_figure([], [(1, 2.0)]))
    assert "no losses yet" in texts(training_figure([(0, accuracy(0.2, 0.2))], []))
    assert size_of(training_picture([], []))


# --- the sinusoid figure


def test_every_column_has_the_same_curve_and_points_and_its_own_predictions(trained: dict[str, Trained]) -> None:
    seeds = trained["MAML"].job.blocks("test", 0, 2)[0]
    figure = sinusoid_figure({name: (run.job, run.params) for name, run in trained.items()}, seeds, shots=5)
    grid = np.array(figure.axes).reshape(2, 3)
    for row, seed in zip(grid, seeds, strict=True):
        amplitude, phase = Sinusoid().curve(seed)
        support, _ = Sinusoid(shots=5).sample(seed, "test")
        for axes in row:
            x, y = line(axes, "true curve")
            np.testing.assert_allclose(y, amplitude * np.sin(x - phase), atol=1e-5)
            np.testing.assert_array_equal(
                line(axes, "support points"), (support.inputs[0][:, 0], support.targets[:, 0])
            )
    assert [text for text in texts(figure) if text in trained] == list(trained)


@pytest.mark.parametrize(("label", "steps"), [("before", 0), ("after 1 step", 1), ("after 10 steps", 10)])
@pytest.mark.parametrize("name", ["MAML", "oracle"])
def test_a_prediction_is_the_network_after_that_many_steps(
    trained: dict[str, Trained], name: str, label: str, steps: int
) -> None:
    run = trained[name]
    assert isinstance(run.job.tasks, Sinusoid)
    tasks = replace(run.job.tasks, shots=5)
    axes = sinusoid_figure({name: (run.job, run.params)}, [7], shots=5).axes[0]
    support, _ = tasks.sample(7, "test")
    theta = {key: value.clone().requires_grad_() for key, value in run.params.items()}
    for _ in range(steps):
        loss = (run.job.model.apply(theta, *support.inputs) - support.targets).square().mean()
        gradients = torch.autograd.grad(loss, list(theta.values()))
        rate = run.job.algorithm.inner_lr
        theta = {key: theta[key] - rate * g for key, g in zip(theta, gradients, strict=True)}
    x, y = line(axes, label)
    expected = run.job.model.apply(theta, *tasks.points(x, *tasks.curve(7)).inputs)[:, 0].detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_a_job_of_other_tasks_is_refused() -> None:
    job = image_job(TinyImages(double=False))
    with pytest.raises(ValueError, match="Sinusoid is expected, TinyImages came"):
        sinusoid_figure({"MAML": (job, job.init().params)}, [1], 5)


# --- the sheet of one episode


def image_job(tasks: TinyImages) -> JobSpec:
    return JobSpec("images", tasks, Conv4(filters=4), MAML(inner_lr=2.0))


def said(figure: Figure, when: str) -> dict[int, str]:
    """What stands at each query image, by its place in the batch."""
    found = [text for text in figure.findobj(Text) if str(text.get_gid()).startswith(f"{when}/")]
    return {int(str(text.get_gid()).split("/")[1]): text.get_text() for text in found}


@pytest.mark.parametrize("transductive", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_tells_the_models_predictions_before_and_after(channels: int, transductive: bool) -> None:
    tasks = TinyImages(channels=channels, transductive=transductive, double=False)
    job = image_job(tasks)
    params = job.init().params
    support, query = tasks.sample(3, "test")
    figure = episode_figure(job, params, 3, steps=2)
    loss = lambda theta, batch: tasks.loss(lambda *x: job.model.apply(theta, *x), batch)  # noqa: E731
    adapted = job.algorithm.adapt(loss, params, (support, support))
    right = []
    for when, theta in (("before", params), ("after", adapted)):
        confidence, predicted = job.model.apply(theta, *query.inputs).softmax(1).max(1)
        signs = ["✓" if p == t else "✗" for p, t in zip(predicted, query.targets, strict=True)]
        right.append(signs.count("✓"))
        assert said(figure, when) == {
            index: f"{signs[index]} {int(predicted[index]) + 1}  {100 * float(confidence[index]):.0f} %"
            for index in range(len(query.targets))
        }
    assert f"{right[0]} of 6 query images right before adaptation, {right[1]} after 2 steps" in texts(figure)


def test_the_images_of_the_sheet_are_those_of_the_episode_class_by_class() -> None:
    tasks = TinyImages(ways=2, shots=1, query_shots=1, channels=3, double=False)
    support, query = tasks.sample(4, "test")
    job = image_job(tasks)
    shown = [np.asarray(image.get_array()) for image in episode_figure(job, job.init().params, 4, 1).axes[0].images]
    batches = [support.inputs[0][0], query.inputs[0][0], support.inputs[0][1], query.inputs[0][1]]
    for pixels, image in zip(shown, batches, strict=True):
        np.testing.assert_allclose(pixels, image.clamp(0, 1).permute(1, 2, 0))


def test_a_sheet_too_large_shows_the_first_and_says_so() -> None:
    job = image_job(TinyImages(ways=12, shots=6, query_shots=7, double=False))
    figure = episode_figure(job, job.init().params, 5, 1)
    assert len(figure.axes[0].images) == 10 * (5 + 5)
    (small_print,) = [text for text in texts(figure) if "shown are" in text]
    assert "10 of 12 classes, 50 of 72 support images, 50 of 84 query images" in small_print
    labels = [text for text in texts(figure) if text.startswith("class ")]
    assert labels == [f"class {n}" for n in range(1, 11)]


# --- all of them


def test_every_picture_is_a_png_of_its_figures_size(trained: dict[str, Trained]) -> None:
    run = trained["MAML"]
    curves = {name: each.curve for name, each in trained.items()}
    models = {name: (each.job, each.params) for name, each in trained.items()}
    images = image_job(TinyImages(double=False))
    theta = images.init().params
    for picture, figure in (
        (adaptation_picture(curves), adaptation_figure(curves)),
        (training_picture(run.history, run.losses), training_figure(run.history, run.losses)),
        (sinusoid_picture(models, [1, 2], 5), sinusoid_figure(models, [1, 2], 5)),
        (episode_picture(images, theta, 1, 1), episode_figure(images, theta, 1, 1)),
    ):
        width, height = figure.get_size_inches()
        assert size_of(picture) == (int(width * DPI), int(height * DPI))
        assert width * DPI >= 900
