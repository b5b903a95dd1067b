"""How long blocks take, and which workers are slow: what is needed to tell a call that is late from one that is not."""

import math
from collections import defaultdict, deque
from collections.abc import Hashable
from functools import partial

MEMORY = 31  # answers of a kind that are remembered
LATE = 1.5  # times the median: then a free worker may do the same block again
SLOW = 3.0  # times the median: a worker like that gets no block that others would be done with sooner
FORGIVE = 0.8  # what is left of a worker's slowness after each round: it may have been its node's bad minute
HUNG = 20  # times the median, and never less than `resources.patience_s`
UNKNOWN = 10  # times `resources.patience_s`, where no block of the kind was answered yet


class Pace:
    """What was seen so far. A kind is what is asked of a block: answers of one kind take about as long."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._seen: dict[str, deque[float]] = defaultdict(partial(deque, maxlen=MEMORY))
        self._typical: dict[str, float] = {}
        self._slowness: dict[Hashable, float] = {}
        self._hung: dict[str, int] = {}

    def took(self, kind: str, worker: Hashable, seconds: float, accepted: bool = True) -> None:
        """An answer came; accepted: it was the block's first."""
        if (typical := self.typical(kind)) is not None:
            self._slowness[worker] = seconds / typical
        if accepted:
            seen = self._seen[kind]
            seen.append(seconds)
            self._typical[kind] = sorted(seen)[len(seen) // 2]
            self._hung.pop(kind, None)

    def typical(self, kind: str) -> float | None:
        """The median, in seconds; None where nothing is known yet."""
        return self._typical.get(kind)

    def slowness(self, worker: Hashable) -> float:
        """How many times the median the worker's last answer took; 1 where nothing is known."""
        return self._slowness.get(worker, 1.0)

    def late_after(self, kind: str) -> float:
        """The seconds after which a call is late."""
        typical = self.typical(kind)
        return math.inf if typical is None else LATE * typical

    def hung_after(self, kind: str) -> float:
        """The seconds after which a worker is taken for hung: twice as many each time, so that a long block ends."""
        typical = self.typical(kind)
        seconds = UNKNOWN * self.patience_s if typical is None else max(self.patience_s, HUNG * typical)
        return seconds * float(2 ** self._hung.get(kind, 0))

    def hung(self, kind: str) -> None:
        """A worker was taken for hung."""
        self._hung[kind] = self._hung.get(kind, 0) + 1

    def forgive(self) -> None:
        """A round is over."""
        slow = {worker: 1 + FORGIVE * (times - 1) for worker, times in self._slowness.items()}
        self._slowness = {worker: times for worker, times in slow.items() if times >= SLOW}
