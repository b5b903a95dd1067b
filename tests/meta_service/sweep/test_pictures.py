"""The pictures and shares of a sweep show the numbers they were given."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from meta_service.plots.heatmap import heatmap_figure, plane, surface
from meta_service.plots.importance import importance_figure
from meta_service.plots.parallel import parallel_figure
from meta_service.plots.scale import place, ticks
from meta_service.plots.trials import trials_figure
from meta_service.sweep.importance import importances
from meta_service.sweep.ledger import DIVERGED, FAILED, STOPPED, Look, Trial
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import Choice, Integers, Uniform, loguniform
from meta_service.sweep_report import markdown, pictures
from tests.meta_service.sweep.tiny import ended, sweep

ALPHA, BETA, STEPS = "algorithm.inner_lr", "outer.meta_lr", "algorithm.inner_steps"


def trial(
    number: int, alpha: float, beta: float, values: list[float], state: str = "finished", steps: int = 1
) -> Trial:
    looks = tuple(Look(2 * k, value, 0.1) for k, value in enumerate(values))
    return Trial(number, {ALPHA: alpha, BETA: beta, STEPS: steps}, {}, looks=looks, state=state)


NAN = float("nan")
TRIALS = [
    trial(0, 0.01, 1e-3, [4.0, 3.0, 2.0, 1.5]),
    trial(1, 0.1, 1e-2, [4.0, 2.0, 1.0, 0.5], steps=2),
    trial(2, 0.001, 1e-4, [4.0, 3.5], STOPPED, steps=3),
    trial(3, 0.3, 2e-2, [4.0, NAN], DIVERGED),
    trial(4, 0.2, 2e-2, [], FAILED),
]


def line(axes: Axes, number: int) -> tuple[np.ndarray, np.ndarray]:
    (found, *_) = [line for line in axes.get_lines() if line.get_label() == f"_trial {number}"]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_a_line_of_parallel_coordinates_goes_through_its_setting_and_its_place() -> None:
    wanted = sweep()
    axes = parallel_figure(wanted, TRIALS).axes[0]
    for number, last in ((1, 1.0), (0, 2 / 3), (2, 1 / 3), (3, 0.0)):
        xs, ys = line(axes, number)
        setting = TRIALS[number].setting
        expected = [*(place(range_, setting[name]) for name, range_ in wanted.space.items()), last]
        assert [float(ys[np.flatnonzero(xs == x)[0]]) for x in range(4)] == pytest.approx(expected)
    assert not [found for found in axes.get_lines() if found.get_label() == "_trial 4"]


def test_parallel_coordinates_say_which_trial_was_the_best() -> None:
    assert "Best of 5: inner_lr 0.1, meta_lr 0.01, inner_steps 2: mse 0.50" in texts(
        parallel_figure(sweep(), TRIALS)
    ).replace("\n", " ")


def test_curves_are_the_looks_of_every_trial() -> None:
    axes = trials_figure(sweep(), TRIALS).axes[0]
    for number in (0, 1, 2):
        xs, ys = line(axes, number)
        assert xs.tolist() == [look.iteration for look in TRIALS[number].looks]
        assert ys.tolist() == [look.value for look in TRIALS[number].looks]
    assert line(axes, 3)[1].tolist() == [4.0]  # what is no number is not drawn
    rungs = [found.get_xdata() for found in axes.get_lines() if found.get_label() == "_rung"]
    assert [float(np.asarray(xs)[0]) for xs in rungs] == [2, 6]


def test_curves_name_the_best_and_the_default() -> None:
    written = texts(trials_figure(sweep(), TRIALS))
    assert "best: trial 1\n0.500" in written
    assert "default: trial 0\n1.500" in written
    assert "1 stopped early" in written


def test_the_map_has_every_trial_at_its_two_values_and_the_best_marked() -> None:
    wanted = sweep()
    axes = heatmap_figure(wanted, TRIALS, (ALPHA, BETA)).axes[0]
    found = {points.get_label(): np.asarray(points.get_offsets())[0] for points in axes.collections}
    for number in (0, 1, 2, 3):
        setting = TRIALS[number].setting
        expected = [place(wanted.space[name], setting[name]) for name in (ALPHA, BETA)]
        assert found[f"_trial {number}"] == pytest.approx(expected)
    assert found["_best"] == pytest.approx(found["_trial 1"])
    assert "_trial 4" not in found


def test_between_trials_the_map_is_a_mean_and_at_a_lone_trial_its_own_place() -> None:
    points = np.array([[0.0, 0.0], [1.0, 1.0]])
    values = surface(points, np.array([0.0, 3.0]), size=109)
    grid = np.linspace(-0.04, 1.04, 109)
    start, end, middle = (int(np.abs(grid - at).argmin()) for at in (0.0, 1.0, 0.5))
    assert values[start, start] == pytest.approx(0.0, abs=1e-6)
    assert values[end, end] == pytest.approx(3.0, abs=1e-6)
    assert values[middle, middle] == pytest.approx(1.5, abs=1e-6)


def test_the_map_is_of_alpha_and_beta_or_of_what_matters_most() -> None:
    assert plane(sweep(), [STEPS]) == (ALPHA, BETA)
    assert plane(sweep("algorithm.inner_lr=0.1"), [STEPS]) == (STEPS, BETA)
    assert plane(sweep("algorithm.inner_lr=0.1", "outer.meta_lr=0.1")) is None


def test_bars_are_the_shares() -> None:
    axes = importance_figure({"a.b": 0.7, "c": 0.3}, 16).axes[0]
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert sorted(widths) == pytest.approx([30, 70])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "a.b"]


@pytest.mark.parametrize("field", [ALPHA, BETA])
def test_the_field_that_decides_everything_has_nearly_all_of_the_importance(field: str) -> None:
    rng = np.random.default_rng(0)
    wanted = sweep()
    trials = []
    for number in range(40):
        setting = {ALPHA: 10 ** rng.uniform(-3, math.log10(0.3)), BETA: 10 ** rng.uniform(-4, math.log10(0.02))}
        value = abs(math.log10(setting[field]) + 2.5)
        trials.append(ended(number, value, **setting, **{STEPS: int(rng.integers(1, 4))}))
    shares = importances(wanted, trials)
    assert next(iter(shares)) == field
    assert shares[field] > 0.8
    assert math.isclose(sum(shares.values()), 1.0)


def test_of_too_few_or_equal_trials_no_importance_is_said() -> None:
    assert importances(sweep(), [ended(0, 1.0), ended(1, 2.0)]) == {}
    assert importances(sweep(), [ended(number, 1.0) for number in range(8)]) == {}


@pytest.mark.parametrize(
    ("range_", "value", "at"),
    [
        (loguniform(1e-3, 1), 1e-3, 0),
        (loguniform(1e-3, 1), 0.0316227766, 0.5),
        (loguniform(1e-3, 1), 10, 1),
        (Uniform(0, 4), 1, 0.25),
        (Integers(1, 3), 2, 0.5),
        (Integers(1, 3), 0, 0),
        (Choice(("a", "b", "c")), "c", 1),
        (Choice(("a",)), "a", 0.5),
    ],
)
def test_a_value_has_its_place_on_its_axis(range_: Uniform | Integers | Choice, value: object, at: float) -> None:
    assert place(range_, value) == pytest.approx(at)


@pytest.mark.parametrize("range_", [loguniform(1e-3, 0.3), Uniform(0, 1), Integers(1, 30), Choice((None, 10.0))])
def test_ticks_do_not_lie_over_each_other(range_: Uniform | Integers | Choice) -> None:
    places = [at for at, _ in ticks(range_)]
    assert 2 <= len(places) <= 9
    assert all(later - before > 0.05 for before, later in pairwise(places))


@pytest.mark.parametrize("trials", [[], TRIALS[3:], TRIALS[:1], TRIALS])
def test_a_sweep_of_any_outcome_has_its_pictures_and_its_table(trials: list[Trial]) -> None:
    wanted: Sweep = sweep()
    for data in pictures(wanted, trials, {}).values():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.format == "PNG"
    table = markdown(wanted, [t._replace(number=number) for number, t in enumerate(trials)], {}, {})
    assert table.count("\n| ") == len(trials) + (1 if "best" in table else 0)
