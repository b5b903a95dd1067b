"""Who goes on at a rung."""

import pytest

from meta_service.sweep.halving import bars, reaches, rungs
from meta_service.sweep.ledger import Look, Trial
from meta_service.sweep.ranking import best_of, places, ranked
from meta_service.sweep.settings import Tune
from tests.meta_service.sweep.tiny import ended

TUNE = Tune(iterations=100, grace=10, reduction=3)


def at_rung(values: list[float]) -> list[Trial]:
    return [Trial(i, {}, {}, looks=(Look(10, value, 0.0),), state="finished") for i, value in enumerate(values)]


def test_rungs_are_powers_of_the_reduction_below_the_end() -> None:
    assert rungs(TUNE) == [10, 30, 90]
    assert rungs(Tune(iterations=90, grace=10, reduction=3)) == [10, 30]


def test_without_a_reduction_nobody_is_stopped() -> None:
    assert rungs(Tune(iterations=100, grace=10, reduction=1)) == []


@pytest.mark.parametrize("metric", ["mse", "accuracy"])
@pytest.mark.parametrize("known", [0, 1, 2, 3, 5, 8, 12])
def test_a_trial_goes_on_if_it_is_among_the_best_third_of_those_that_came(metric: str, known: int) -> None:
    values = [((7 * i) % 13) / 13 for i in range(known)]
    bar = bars(TUNE, metric, at_rung(values)).get(10)
    for own in [0.01, 0.3, 0.5, 0.77, 0.99]:
        better = sum(value > own if metric == "accuracy" else value < own for value in values)
        among_best = better < max((known + 1) // 3, 1)
        assert (bar is None or reaches(metric, own, bar)) == among_best


def test_only_trials_that_came_to_a_rung_set_its_bar() -> None:
    early = [ended(0, 0.5, 2, "stopped early"), ended(1, 0.4, 18)]
    tune = Tune(iterations=18, grace=2, reduction=3)
    assert bars(tune, "mse", early) == {2: 0.4, 6: 0.4}


def test_a_value_that_is_no_number_sets_no_bar() -> None:
    assert bars(TUNE, "mse", at_rung([float("nan")])) == {}


def at(number: int, *values: float, state: str = "finished") -> Trial:
    looks = tuple(Look(k, value, 0.0) for k, value in enumerate(values))
    return Trial(number, {}, {}, looks=looks, state=state)


def test_the_best_is_the_finished_trial_with_the_best_end() -> None:
    trials = [ended(0, 0.5), ended(1, 0.1, 6, "stopped early"), ended(2, 0.4), ended(3, float("nan"), 18, "diverged")]
    assert best_of(trials, "mse") == trials[2]
    assert best_of(trials, "accuracy") == trials[0]


def test_trials_are_compared_where_both_were_looked_at_last() -> None:
    slow = at(0, 4.0, 3.9, 3.8)  # nobody was there to stop it
    stopped = at(1, 4.0, 2.0, state="stopped early")
    good = at(2, 4.0, 1.0, 0.5)
    assert [trial.number for trial in ranked([slow, stopped, good], "mse")] == [2, 1, 0]
    assert places([slow, stopped, good], "mse") == {2: 0, 1: 1, 0: 2}


def test_trials_that_diverged_share_the_last_place_and_failed_ones_have_none() -> None:
    wild = [at(number, float("nan"), state="diverged") for number in (1, 2)]
    trials = [at(0, 1.0), *wild, at(3, 2.0), at(4, 0.1, state="failed")]
    assert places(trials, "mse") == {0: 0, 3: 1, 1: 2, 2: 2}


def test_of_equal_trials_the_first_is_the_best() -> None:
    assert ranked([ended(2, 0.5), ended(1, 0.5)], "mse")[0].number == 1


def test_where_none_finished_there_is_no_best() -> None:
    assert best_of([ended(0, 0.5, 6, "stopped early")], "mse") is None
