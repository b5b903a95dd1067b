"""Population based training: Jaderberg et al. (2017), generation by generation, so that no clock decides.

All trials of a generation end before the next begins. The worst quarter then goes on from theta and setting of one of
the best quarter, the setting changed a little; all others go on from their own.
"""

from collections.abc import Sequence

import numpy as np

from meta_service.sweep.ledger import Trial
from meta_service.sweep.ranking import ranked
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import Choice, Integers, Range, Setting, Uniform

QUARTER = 4
FACTORS = (0.8, 1.25)  # by one of them a number is changed
REDRAWN = 0.25  # how often a value is drawn anew instead


def next_generation(sweep: Sweep, index: int, known: Sequence[Trial]) -> tuple[Setting, int] | None:
    """The setting of trial `index`, and the trial from whose theta it goes on; None in the first generation."""
    last = known[-sweep.population :] if known else ()
    order = ranked(last, sweep.metric)
    if not order:
        return None
    own = known[index - sweep.population]
    kept = len(last) - max(len(last) // QUARTER, 1)
    if own in order[:kept]:
        return own.setting, own.number
    rng = np.random.default_rng((sweep.tune.seed, index))
    parent = order[rng.integers(max(len(order) // QUARTER, 1))]
    changed = {name: _changed(range_, parent.setting[name], rng) for name, range_ in sweep.space.items()}
    return changed, parent.number


def _changed(range_: Range, value: object, rng: np.random.Generator) -> object:
    if isinstance(range_, Choice):
        return range_.values[rng.integers(len(range_.values))] if rng.random() < REDRAWN else value
    if value not in range_ or rng.random() < REDRAWN:
        points = range_.points(100)
        return points[rng.integers(len(points))]
    assert isinstance(value, int | float)
    changed = value * FACTORS[rng.integers(2)]
    if isinstance(range_, Integers):
        step = 1 if changed > value else -1
        return min(max(int(value) + step, range_.low), range_.high)
    assert isinstance(range_, Uniform)
    return range_.rounded(changed)
