"""Which trial may start now: the ones a killed sweep left unfinished, then new ones."""

from meta_service.sweep.ledger import Ledger, Trial
from meta_service.sweep.search import propose
from meta_service.sweep.settings import Sweep


class Book:
    """All trials of a sweep so far. Where they are computed, and how many at once, is somebody else's business."""

    def __init__(self, sweep: Sweep, ledger: Ledger) -> None:
        self.sweep, self.ledger = sweep, ledger
        self.trials = ledger.trials()
        self._left = [trial.number for trial in self.trials if not trial.over]
        self.running: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether all trials are over."""
        return len(self.trials) == self.sweep.size and all(trial.over for trial in self.trials)

    @property
    def over(self) -> int:
        return sum(trial.over for trial in self.trials)

    def next(self) -> Trial | None:
        """A trial to start; it is in the ledger now. None where one that runs has to end first, or none is left."""
        if self._left:
            trial: Trial | None = self.trials[self._left.pop(0)]
        elif trial := propose(self.sweep, self.trials):
            self.ledger.give(trial)
            self.trials.append(trial)
        if trial:
            self.running.add(trial.number)
        return trial

    def refresh(self, index: int) -> Trial:
        """The trial as its own process has left it in the ledger."""
        found = self.ledger.trial(index)
        assert found is not None
        self.trials[index] = found
        self.running.discard(index)
        return found
