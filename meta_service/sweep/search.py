"""Which setting is tried next: a function of the sweep and the trials before it, and of nothing else.

No generator or study is kept: trial 17's setting is drawn with a seed made of the sweep's seed and 17, by a searcher
that is told of the earlier trials in their order. So a sweep that was killed goes on as if nothing had happened.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from meta_service.sweep.halving import bars
from meta_service.sweep.ledger import Trial
from meta_service.sweep.population import next_generation
from meta_service.sweep.ranking import places
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import Integers, Range, Setting, Space, Uniform

REDRAWS = 20  # a setting that was tried already says nothing new


def propose(sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """The trial after `trials`; None where it has to wait until one of them is over, or there is none to come."""
    index = len(trials)
    if index >= sweep.size:
        return None
    if sweep.tune.search == "pbt":
        generation = index // sweep.population
        known = trials[: generation * sweep.population]
    else:
        known = trials[: max(index + 1 - sweep.lookback, 0)]
    if not all(trial.over for trial in known):
        return None
    if sweep.tune.search == "pbt":
        setting, parent = next_generation(sweep, index, known) or (_first(sweep, index, trials), None)
        return Trial(index, setting, {}, parent, sweep.span(index)[1])
    return Trial(index, _setting(sweep, index, trials, known), bars(sweep.tune, sweep.metric, known))


def seed_of(sweep: Sweep, index: int, attempt: int = 0) -> int:
    """The seed of all that is drawn for a trial."""
    return int(np.random.SeedSequence((sweep.tune.seed, index, attempt)).generate_state(1)[0])


def _setting(sweep: Sweep, index: int, trials: Sequence[Trial], known: Sequence[Trial]) -> Setting:
    if sweep.tune.search == "grid":
        return sweep.cells()[index]
    if sweep.tune.search == "random":
        return _first(sweep, index, trials)
    return _new(sweep, index, trials, lambda seed: _study(sweep, trials, len(known), seed))


def _first(sweep: Sweep, index: int, trials: Sequence[Trial]) -> Setting:
    """The default, or a setting by chance."""

    def study(seed: int) -> optuna.Study:
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))

    return _new(sweep, index, trials, study)


def _new(sweep: Sweep, index: int, trials: Sequence[Trial], study: Any) -> Setting:
    """A setting that was not tried before, as far as chance finds one."""
    if index == 0 and sweep.tune.default:
        return sweep.default()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tried = [trial.setting for trial in trials]
    for attempt in range(REDRAWS):
        drawn = study(seed_of(sweep, index, attempt)).ask(distributions(sweep.space)).params
        setting = {name: _rounded(range_, drawn[name]) for name, range_ in sweep.space.items()}
        if setting not in tried:
            break
    return setting


def _study(sweep: Sweep, trials: Sequence[Trial], known: int, seed: int) -> optuna.Study:
    """Optuna's tree-structured Parzen estimator, told of the places of all that is known, and what runs beside.

    It asks no more of values than their order, and that of trials which ended at different times is in their places.
    """
    startup = min(10, max(sweep.size // 4, 3))
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed))
    value = places(trials[:known], sweep.metric)
    for trial in trials:
        inside = all(trial.setting[name] in range_ for name, range_ in sweep.space.items())
        if inside and (trial.number >= known or trial.number in value):
            study.add_trial(
                create_trial(
                    state=TrialState.RUNNING if trial.number >= known else TrialState.COMPLETE,
                    params=dict(trial.setting),
                    distributions=distributions(sweep.space),
                    value=value.get(trial.number),
                )
            )
    return study


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The ranges in Optuna's words."""
    return {name: _distribution(range_) for name, range_ in space.items()}


def _distribution(range_: Range) -> BaseDistribution:
    if isinstance(range_, Uniform):
        return FloatDistribution(range_.low, range_.high, log=range_.log)
    if isinstance(range_, Integers):
        return IntDistribution(range_.low, range_.high)
    return CategoricalDistribution(range_.values)


def _rounded(range_: Range, value: Any) -> Any:
    return range_.rounded(value) if isinstance(range_, Uniform) else value
