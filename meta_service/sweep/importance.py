"""How much each field decided: functional ANOVA, Hutter, Hoos, Leyton-Brown (2014), by Optuna."""

import math
import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from meta_service.sweep.ledger import Trial
from meta_service.sweep.ranking import places as places_of
from meta_service.sweep.search import distributions
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import Range, Uniform

AT_LEAST = 4  # trials; of fewer nothing can be said


def importances(sweep: Sweep, trials: Sequence[Trial]) -> dict[str, float]:
    """The share of the variance of the trials' places that each field explains, the largest first; they add up to 1.

    Places and not values: trials ended after different numbers of steps, and one that diverged would be all there is.
    Empty where the trials are too few or all alike.
    """
    places = places_of(trials, sweep.metric)
    seen = [
        trial
        for trial in trials
        if trial.number in places and all(trial.setting[name] in range_ for name, range_ in sweep.space.items())
    ]
    swept = [name for name in sweep.space if len({trial.setting[name] for trial in seen}) > 1]
    if len(seen) < AT_LEAST or not swept or len({places[trial.number] for trial in seen}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for trial in seen:
        study.add_trial(
            create_trial(
                params={name: _seen(sweep.space[name], trial.setting[name]) for name in swept},
                distributions={name: _straight(sweep.space[name], name) for name in swept},
                value=places[trial.number],
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its random forest, when trials are few
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    shares = {name: float(share) for name, share in found.items()} | {n: 0.0 for n in sweep.space if n not in swept}
    return dict(sorted(shares.items(), key=lambda item: -item[1])) if all(map(math.isfinite, shares.values())) else {}


def _seen(range_: Range, value: float) -> float:
    """The evaluator weighs a range evenly: one that is searched by powers of ten is given as these."""
    return math.log10(value) if isinstance(range_, Uniform) and range_.log else value


def _straight(range_: Range, name: str) -> BaseDistribution:
    if isinstance(range_, Uniform) and range_.log:
        return FloatDistribution(math.log10(range_.low), math.log10(range_.high))
    return distributions({name: range_})[name]
