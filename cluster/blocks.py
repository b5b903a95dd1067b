"""Which block goes to whom. Knows neither Ray nor a clock: it is told what happens, and when."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from cluster.pace import SLOW, Pace

Worker = Hashable
"""One that can be free, and be given a block."""


class Call(NamedTuple):
    block: int
    since: float
    """The moment it was made, in seconds of any clock."""


class Round:
    """One question about all blocks, until each has its answer: the first one, whoever gives it.

    A block waits until a worker is free. When none waits and a worker is free, it does again what a late one is at.
    """

    def __init__(
        self, blocks: int, kind: str, pace: Pace, homes: dict[int, Any] | None = None, moving_s: float | None = None
    ) -> None:
        """homes: who has something of a block already. Others take it only where that one is late, as they need
        `moving_s` more; or, if that is None, where there is nothing else for them to do."""
        self.blocks, self.kind, self.pace = blocks, kind, pace
        self.homes, self.moving_s = homes if homes is not None else {}, moving_s
        self.waiting = list(range(blocks))
        self.answers: dict[int, Any] = {}
        self.calls: dict[Worker, Call] = {}
        self.deaths: dict[int, float] = defaultdict(float)
        self._doubted: set[int] = set()

    @property
    def complete(self) -> bool:
        return len(self.answers) == self.blocks

    # what happens

    def called(self, block: int, worker: Worker, now: float) -> None:
        if block in self.waiting:
            self.waiting.remove(block)
        self.calls[worker] = Call(block, now)

    def answered(self, worker: Worker, answer: Any) -> bool:
        """Whether the answer is taken: it is of this round, and its block has none yet."""
        if not self.needs(worker):
            return False
        block = self.calls.pop(worker).block
        self.answers[block] = answer
        self.homes[block] = worker
        return True

    def doubted(self, worker: Worker) -> bool:
        """Whether an answer that looks wrong is not to be taken: no other of its block was, so it is computed again."""
        block = self.calls[worker].block if worker in self.calls else None
        if block is None or block in self._doubted:
            return False
        self._doubted.add(block)
        return True

    def needs(self, worker: Worker) -> bool:
        """Whether the worker is at a block that has no answer yet."""
        return worker in self.calls and self.calls[worker].block not in self.answers

    def came_to_nothing(self, worker: Worker) -> int | None:
        """A call has ended without an answer to take; its block, which waits again, as the first, if it has to."""
        if worker not in self.calls:
            return None
        block = self.calls.pop(worker).block
        if block not in self.answers and all(call.block != block for call in self.calls.values()):
            self.waiting.insert(0, block)
        return block

    def died(self, worker: Worker, blame: float) -> int | None:
        """The worker is gone, and what it kept; the block it was at, to which so much of a death is counted."""
        for block in [block for block, home in self.homes.items() if home is worker]:
            del self.homes[block]
        at = self.came_to_nothing(worker)
        if at is not None:
            self.deaths[at] += blame
        return at

    # what to do

    def next(self, free: Iterable[Worker], now: float) -> tuple[int, Any] | None:
        """A block and the free worker that does it, now; None where nothing is to be done but to wait."""
        for worker in sorted(free, key=self.pace.slowness):
            block = self._for(worker, now)
            if block is not None:
                return block, worker
        return None

    def wake_s(self, now: float) -> float:
        """Seconds until a call is late: `next` may then know more for a free worker."""
        return min((since - now for since in map(self._late_from, self.calls) if since > now), default=math.inf)

    def _for(self, worker: Worker, now: float) -> int | None:
        """Its own; else nobody's; else another's, if that is late; else again what a late one is at."""
        mine = next((block for block in self.waiting if self.homes.get(block) is worker), None)
        if mine is not None or not self._would_help(worker, now):
            return mine
        homeless = next((block for block in self.waiting if block not in self.homes), None)
        if homeless is not None:
            return homeless
        others = (b for b in self.waiting if self.moving_s is None or self._late(self.homes[b], now))
        return next(others, self._overdue(now))

    def _overdue(self, now: float) -> int | None:
        """The block outstanding longest, of those that only late workers are at."""
        hopeful = {call.block for worker, call in self.calls.items() if not self._late(worker, now)}
        overdue = [call for call in self.calls.values() if call.block not in hopeful and call.block not in self.answers]
        return min(overdue, key=lambda call: call.since).block if overdue else None

    def _would_help(self, worker: Worker, now: float) -> bool:
        """Not if it is so slow that the others are done with all that waits before it is with one block."""
        slowness = self.pace.slowness(worker)
        if slowness < SLOW:
            return True
        quick = [other for other in self.calls if self.pace.slowness(other) < SLOW and not self._late(other, now)]
        return len(self.waiting) >= slowness * len(quick)

    def _late_from(self, worker: Worker) -> float:
        return self.calls[worker].since + self.pace.late_after(self.kind) + (self.moving_s or 0)

    def _late(self, worker: Worker, now: float) -> bool:
        return worker in self.calls and self._late_from(worker) <= now
