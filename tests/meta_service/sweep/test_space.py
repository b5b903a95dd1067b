"""Ranges as users write them: what is understood, what is refused and how."""

from typing import Any

import numpy as np
import pytest

import jobs
from meta_service.errors import UserError
from meta_service.sweep.settings import Sweep, sweep_of
from meta_service.sweep.space import Choice, Integers, Range, Uniform, loguniform, parse
from tests.meta_service.sweep.tiny import JOB, TUNE, sweep


@pytest.mark.parametrize(
    ("text", "range_"),
    [
        ("uniform(0, 1)", Uniform(0, 1)),
        ("loguniform(1e-3,1)", Uniform(1e-3, 1, log=True)),
        ("integers(1, 5)", Integers(1, 5)),
        ("choice(1, 2.5)", Choice((1, 2.5))),
        ("choice(vinyals, 'code')", Choice(("vinyals", "code"))),
        ("choice(none, 10, true)", Choice((None, 10, True))),
        ("choice([40, 40], (100,))", Choice(((40, 40), (100,)))),
        (" loguniform( 0.001 , 1 ) ", Uniform(1e-3, 1, log=True)),
    ],
)
def test_a_range_is_understood_and_written_so_that_it_is_understood_again(text: str, range_: Range) -> None:
    assert parse("x", text) == range_
    assert parse("x", str(range_)) == range_


@pytest.mark.parametrize(
    "text",
    [
        "0.1",
        "loguniform",
        "loguniform(1e-3)",
        "loguniform(0, 1)",
        "uniform(2, 1)",
        "integers(1.5, 3)",
        "choice()",
        "normal(0, 1)",
        "uniform(low=0, high=1)",
        "uniform(0, 1",
        "__import__('os').getpid()",
        "choice(open('x'))",
    ],
)
def test_what_is_no_range_is_refused_in_one_line_and_not_executed(text: str) -> None:
    with pytest.raises(UserError, match="expected") as refusal:
        parse("algorithm.inner_lr", text)
    assert "\n" not in str(refusal.value)
    assert "algorithm.inner_lr" in str(refusal.value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("space.algorithm.inner_rl=loguniform(1e-3, 1)", "the nearest is 'algorithm.inner_lr'"),
        ("space.inner_lr=loguniform(1e-3, 1)", "the nearest is 'algorithm.inner_lr'"),
        ("space.algorithm.inner_steps=uniform(1, 5)", "algorithm.inner_steps: int is expected"),
        ("space.tasks.shots=integers(0, 5)", "shots >= 1"),
        ("space.resources.workers=integers(1, 4)", "changes the time and not the result"),
        ("space.iterations=integers(1, 4)", "tune.iterations"),
        ("space.validation.steps=integers(1, 4)", "all trials must be judged alike"),
        ("tune.trial=3", "the nearest is 'tune.trials'"),
        ("tune.trials=many", "tune.trials: int is expected"),
        ("tune.trials=0", "tune.trials: at least 1 is expected"),
        ("tune.search=best", "one of tpe, random, grid, pbt is expected"),
        ("algorithm.inner_rl=3", "the nearest is 'algorithm.inner_lr'"),
    ],
)
def test_a_wrong_field_or_value_is_refused_before_anything_starts(assignment: str, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        sweep(assignment)
    assert message in str(refusal.value)


def test_a_sweep_over_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="at least one field is expected"):
        sweep_of(JOB, {}, TUNE, ())


def test_a_field_that_is_given_a_value_is_not_searched() -> None:
    fixed = sweep("algorithm.inner_steps=2")
    assert set(fixed.space) == {"algorithm.inner_lr", "outer.meta_lr"}
    assert fixed.job.algorithm.inner_steps == 2


def test_a_range_on_the_command_line_takes_the_place_of_the_job_s() -> None:
    assert sweep("space.algorithm.inner_lr=loguniform(0.1, 1)").space["algorithm.inner_lr"] == loguniform(0.1, 1)


def test_a_sweep_survives_json() -> None:
    wanted = sweep("space.outer.clip=choice(none, 10.0)", "tune.trials=5")
    assert Sweep.from_json(wanted.to_json()) == wanted


def test_a_trial_is_the_job_with_its_setting_for_a_short_time() -> None:
    job = sweep().trial_job({"algorithm.inner_lr": 0.2, "outer.meta_lr": 0.01, "algorithm.inner_steps": 3})
    assert (job.algorithm.inner_lr, job.algorithm.inner_steps, job.outer.meta_lr) == (0.2, 3, 0.01)
    assert (job.iterations, job.validate_every, job.baselines) == (TUNE.iterations, TUNE.grace, ())
    assert (job.validation, job.evaluations, job.seed) == (JOB.validation, JOB.evaluations, JOB.seed)


@pytest.mark.parametrize("range_", [Uniform(1e-3, 0.3, log=True), Uniform(0.9995, 0.9999)])
def test_what_is_drawn_has_three_digits_and_stays_in_its_range(range_: Uniform) -> None:
    for value in np.random.default_rng(0).uniform(range_.low, range_.high, 100):
        rounded = range_.rounded(value)
        assert rounded in range_
        assert abs(rounded - value) <= 5e-3 * value
        assert rounded in (range_.low, range_.high) or float(f"{rounded:.3g}") == rounded


@pytest.mark.parametrize(
    ("range_", "points"),
    [
        (loguniform(1e-3, 1), [1e-3, 1e-2, 1e-1, 1]),
        (Uniform(0, 3), [0, 1, 2, 3]),
        (Integers(1, 3), [1, 2, 3]),
        (Choice(("a", "b")), ["a", "b"]),
    ],
)
def test_the_points_of_a_grid_are_spread_evenly_over_a_range(range_: Range, points: list[Any]) -> None:
    assert range_.points(4) == points


@pytest.mark.parametrize("name", jobs.names())
def test_the_space_of_every_job_that_has_one_is_taken_by_its_fields(name: str) -> None:
    job, space, tune = jobs.find_sweep(name)
    if space:
        assert sweep_of(job, space, tune, ()).space == space
    else:
        assert name not in {"sinusoid", "omniglot", "omniglot_20way", "omniglot_mlp", "miniimagenet", "image_folder"}


def test_alpha_beta_and_inner_steps_are_what_a_job_searches_by_itself() -> None:
    assert {"algorithm.inner_lr", "outer.meta_lr", "algorithm.inner_steps"} == set(jobs.find_sweep("omniglot")[1])
