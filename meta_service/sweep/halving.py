"""Asynchronous successive halving: Li et al. (2020), "A system for massively parallel hyperparameter tuning", ASHA.

A trial goes on from a rung if it is among the best 1 / reduction of those that came to it. There, "those" are whichever
came first; here, they are trials of lower number that are over when this one begins: who is stopped does not depend on
who was faster.
"""

from collections.abc import Iterable

from meta_service.evaluation import higher_is_better
from meta_service.sweep.ledger import Trial
from meta_service.sweep.settings import Tune

ROUNDING = 1e-6


def rungs(tune: Tune) -> list[int]:
    """The outer steps after which trials may be stopped: grace, grace * reduction, ... below the end."""
    found: list[int] = []
    rung = tune.grace
    while tune.reduction > 1 and rung < tune.iterations:
        found.append(rung)
        rung *= tune.reduction
    return found


def bars(tune: Tune, metric: str, before: Iterable[Trial]) -> dict[int, float]:
    """What the metric must reach at each rung; no entry where too few trials came to it."""
    known = list(before)
    found: dict[int, float] = {}
    for rung in rungs(tune):
        values = [value for trial in known if (value := trial.at(rung)) is not None]
        kept = max((len(values) + 1) // tune.reduction, 1)  # of these and the one to come
        if len(values) >= kept:
            found[rung] = sorted(values, reverse=higher_is_better(metric))[kept - 1]
    return found


def reaches(metric: str, value: float, bar: float) -> bool:
    """Whether the value is as good as the bar, but for the rounding of a mean."""
    margin = ROUNDING * abs(bar)
    return value >= bar - margin if higher_is_better(metric) else value <= bar + margin
