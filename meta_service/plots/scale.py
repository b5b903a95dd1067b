"""Where a value stands on the axis of its range: from 0 to 1, by powers of ten where it is searched so."""

import math
from typing import Any

from meta_service.sweep.space import Range, Uniform, short


def place(range_: Range, value: Any) -> float:
    """0 at the lower end, 1 at the upper; choices in their order. What lies outside stands at the end."""
    if isinstance(range_, Uniform):
        low, high, at = range_.low, range_.high, float(value)
        if range_.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(at, 1e-300))
        return min(max((at - low) / (high - low), 0.0), 1.0)
    points = range_.points(0)
    if value not in points:
        return 0.0 if isinstance(value, int | float) and value < points[0] else 1.0
    return points.index(value) / max(len(points) - 1, 1) if len(points) > 1 else 0.5


def ticks(range_: Range, most: int = 7) -> list[tuple[float, str]]:
    """(place, text): the ends and the powers of ten between them, or every value where they are few."""
    if isinstance(range_, Uniform) and range_.log:
        first, last = math.ceil(math.log10(range_.low) - 1e-9), math.floor(math.log10(range_.high) + 1e-9)
        values: list[Any] = [10.0**power for power in range(first, last + 1)]
        ends = [range_.low, range_.high]
        values += [end for end in ends if all(abs(place(range_, end) - place(range_, v)) > 0.12 for v in values)]
    elif isinstance(range_, Uniform):
        values = range_.points(5)
    else:
        values = range_.points(0)
        values = values[:: math.ceil(len(values) / most)]
    return [(place(range_, value), short(value)) for value in sorted(values, key=lambda v: place(range_, v))]


def last_word(name: str) -> str:
    """`inner_lr` of `algorithm.inner_lr`, with the letter the paper gives it."""
    word = name.rpartition(".")[2]
    return {"inner_lr": "inner_lr (α)", "meta_lr": "meta_lr (β)"}.get(word, word)
