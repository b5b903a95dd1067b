"""Which setting is next: a function of the trials before, whatever the searcher."""

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from meta_service.errors import UserError
from meta_service.sweep.ledger import DIVERGED, FAILED, STOPPED, Trial
from meta_service.sweep.search import propose
from meta_service.sweep.settings import Sweep
from tests.meta_service.sweep.tiny import ended, sweep

SEARCHES = ["tpe", "random", "grid", "pbt"]
SMALL = {"grid": ["tune.points=2"], "pbt": ["tune.generations=2"]}


def searched(search: str, *others: str) -> Sweep:
    return sweep(f"tune.search={search}", *SMALL.get(search, ()), *others)


def worth(trial: Trial) -> float:
    """A smooth error with its least value at alpha 0.1 and beta 0.003."""
    lr, beta = trial.setting["algorithm.inner_lr"], trial.setting["outer.meta_lr"]
    return 0.1 + (math.log10(lr) + 1) ** 2 + 0.3 * (math.log10(beta) + 2.5) ** 2


def played(wanted: Sweep) -> list[Trial]:
    """All trials of the sweep, as if each had been worth what `worth` says."""
    trials: list[Trial] = []
    while trial := propose(wanted, trials):
        trials.append(ended(trial.number, worth(trial), **trial.setting)._replace(parent=trial.parent, bars=trial.bars))
    return trials


@pytest.mark.parametrize("search", SEARCHES)
def test_the_same_sweep_proposes_the_same_trials_and_another_seed_others(search: str) -> None:
    first = played(searched(search))
    assert played(searched(search)) == first
    assert len(first) == searched(search).size
    if search != "grid":
        assert played(searched(search, "tune.seed=1")) != first


@pytest.mark.parametrize("search", SEARCHES)
def test_a_proposal_depends_on_nothing_that_ended_late(search: str) -> None:
    wanted = searched(search)
    trials = played(wanted)
    for number in range(1, len(trials)):
        running = [trial._replace(looks=(), state="") for trial in trials[:number]]
        known = number - number % wanted.population if search == "pbt" else max(number + 1 - wanted.lookback, 0)
        before = [*trials[:known], *running[known:]]
        proposal = propose(wanted, before)
        assert proposal is not None
        assert (proposal.setting, proposal.parent) == (trials[number].setting, trials[number].parent)
        if known:
            assert propose(wanted, [*trials[: known - 1], *running[known - 1 :]]) is None


@pytest.mark.parametrize("search", SEARCHES)
def test_the_job_s_own_setting_comes_first_unless_it_is_not_wanted(search: str) -> None:
    assert played(searched(search))[0].setting == searched(search).default()
    assert played(searched(search, "tune.default=false"))[0].setting != searched(search).default()


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_settings_lie_in_the_space_and_none_is_tried_twice(search: str) -> None:
    wanted = searched(search, "tune.trials=20")
    settings = [trial.setting for trial in played(wanted)]
    assert all(setting[name] in range_ for setting in settings for name, range_ in wanted.space.items())
    assert all(isinstance(setting["algorithm.inner_steps"], int) for setting in settings)
    assert len({tuple(setting.items()) for setting in settings}) == 20


def test_tpe_draws_nearer_to_the_best_than_chance_does() -> None:
    means = {
        search: np.mean([worth(trial) for trial in played(searched(search, "tune.trials=40"))[20:]])
        for search in ("tpe", "random")
    }
    assert means["tpe"] < 0.5 * means["random"]


@pytest.mark.parametrize("state", [STOPPED, DIVERGED, FAILED])
def test_tpe_takes_trials_that_did_not_finish(state: str) -> None:
    wanted = searched("tpe", "tune.trials=20")
    trials = [replace_state(trial, state) if trial.number % 2 else trial for trial in played(wanted)]
    proposal = propose(wanted, trials[:19])
    assert proposal is not None
    assert all(proposal.setting[name] in range_ for name, range_ in wanted.space.items())


def replace_state(trial: Trial, state: str) -> Trial:
    looks = trial.looks[:1]
    if state != STOPPED:
        looks = (looks[0]._replace(value=math.nan),)
    return trial._replace(state=state, looks=looks)


def test_tpe_avoids_where_trials_diverged() -> None:
    wanted = searched("tpe", "tune.trials=60")

    def diverged_above(limit: float) -> list[Trial]:
        trials: list[Trial] = []
        while trial := propose(wanted, trials):
            done = ended(trial.number, 1 + 1e-3 * trial.number, **trial.setting)
            wild = trial.setting["algorithm.inner_lr"] > limit
            trials.append(replace_state(done, DIVERGED) if wild else done)
        return trials

    late = diverged_above(0.02)[30:]
    share = np.mean([trial.setting["algorithm.inner_lr"] > 0.02 for trial in late])
    assert share < 0.5 * math.log(0.3 / 0.02) / math.log(0.3 / 1e-3)


def test_a_default_outside_of_the_ranges_is_tried_all_the_same() -> None:
    wanted = searched("tpe", "space.algorithm.inner_lr=loguniform(0.1, 1)")
    trials = played(wanted)
    assert trials[0].setting["algorithm.inner_lr"] == 0.01
    assert all(trial.setting["algorithm.inner_lr"] >= 0.1 for trial in trials[1:])


def test_a_grid_is_every_combination_once() -> None:
    wanted = searched("grid")
    settings = [trial.setting for trial in played(wanted)][1:]
    expected = product([1e-3, 0.3], [1e-4, 2e-2], [1, 2, 3])
    assert [tuple(setting.values()) for setting in settings] == list(expected)


def test_a_grid_without_end_is_refused() -> None:
    with pytest.raises(UserError, match="too large"):
        _ = searched("grid", "tune.points=1000").size


def test_a_population_s_worst_quarter_goes_on_from_one_of_the_best() -> None:
    wanted = searched("pbt", "tune.trials=16")
    trials = played(wanted)
    first, second = trials[:8], trials[8:]
    order = sorted(first, key=worth)
    worst, best = {t.number for t in order[-2:]}, {t.number for t in order[:2]}
    assert all(trial.parent is None for trial in first)
    for trial, before in zip(second, first, strict=True):
        if before.number in worst:
            assert trial.parent in best
            assert all(trial.setting[name] in range_ for name, range_ in wanted.space.items())
        else:
            assert (trial.parent, trial.setting) == (before.number, before.setting)


def test_members_of_a_population_that_diverged_are_replaced() -> None:
    wanted = searched("pbt", "tune.trials=16")
    first: list[Any] = played(wanted)[:8]
    first[3:] = [replace_state(trial, DIVERGED) for trial in first[3:]]
    trials = first
    for number in range(8, 16):
        proposal = propose(wanted, trials)
        assert proposal is not None
        assert proposal.parent is not None
        assert proposal.parent < 3
        trials = [*trials, ended(number, 1.0, **proposal.setting)]


def test_a_population_smaller_than_two_is_refused() -> None:
    with pytest.raises(UserError, match="at least two in each"):
        replace(sweep(), tune=replace(sweep().tune, search="pbt", trials=7, generations=4))
