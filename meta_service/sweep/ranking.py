"""Which trial is better, although they did not all train for as long."""

import math
from collections.abc import Iterable, Sequence

from meta_service.evaluation import higher_is_better
from meta_service.sweep.ledger import DIVERGED, FINISHED, Trial


def loss(metric: str, value: float) -> float:
    """The metric as a number of which the lower is the better one; infinity for what is no number."""
    if not math.isfinite(value):
        return math.inf
    return -value if higher_is_better(metric) else value


def ranked(trials: Iterable[Trial], metric: str) -> list[Trial]:
    """The trials that can be compared, the best first: by the share of the others that each one beats.

    Two trials are compared where both were looked at last: one that was stopped early is not worse for that, and one
    that was not is not better. So the places of trials do not depend on which of them were stopped.
    """
    comparable = [trial for trial in trials if trial.compared and math.isfinite(trial.value)]
    beaten = {t.number: sum(_beats(t, other, metric) for other in comparable) for t in comparable}
    return sorted(comparable, key=lambda t: (-beaten[t.number], -t.iteration, loss(metric, t.value), t.number))


def best_of(trials: Iterable[Trial], metric: str) -> Trial | None:
    """The finished trial with the best metric at its end; None where none finished."""
    finished = [trial for trial in trials if trial.state == FINISHED and math.isfinite(trial.value)]
    return min(finished, key=lambda t: (-t.iteration, loss(metric, t.value), t.number), default=None)


def places(trials: Sequence[Trial], metric: str) -> dict[int, float]:
    """{number: place}, 0 for the best, one last place for all that diverged; trials that failed are left out."""
    order, best = ranked(trials, metric), best_of(trials, metric)
    if best:
        order = [best, *(trial for trial in order if trial.number != best.number)]
    found = {trial.number: float(place) for place, trial in enumerate(order)}
    return found | {trial.number: float(len(order)) for trial in trials if trial.state == DIVERGED}


def _beats(trial: Trial, other: Trial, metric: str) -> float:
    """1 if it was better at the last look both had, 1/2 if as good."""
    common = min(trial.iteration, other.iteration)
    own, others = (t.at(common) if t.at(common) is not None else t.value for t in (trial, other))
    assert own is not None
    assert others is not None
    difference = loss(metric, others) - loss(metric, own)
    return 0.5 if difference == 0 else float(difference > 0)
