"""How a sweep stands, as events for a person's terminal: a row for each trial, and when it will be done."""

import math
import time
from itertools import pairwise
from typing import Any

from meta_service.progress import Emit, Throttle
from meta_service.sweep.halving import rungs
from meta_service.sweep.ledger import Trial
from meta_service.sweep.ranking import best_of
from meta_service.sweep.settings import Sweep
from meta_service.sweep.space import short

TOLD_S = 1.0  # between two events

WAITING, RUNNING, INTERRUPTED = "waiting", "running", "interrupted"


class Board:
    """Collects what is known of the trials; emits it now and then."""

    def __init__(self, sweep: Sweep, emit: Emit) -> None:
        self.sweep, self.emit = sweep, emit
        self._trials: dict[int, Trial] = {}
        self._progress: dict[int, tuple[int, float]] = {}
        self._states: dict[int, str] = {}
        self._since: float | None = None  # when the first outer step was told of, which is not counted
        self._steps = 0
        self._throttle = Throttle(TOLD_S)

    def put(self, trial: Trial, state: str = WAITING) -> None:
        """The trial as the ledger has it; `state` where it is not over."""
        self._trials[trial.number] = trial
        self._states[trial.number] = trial.state or state
        before = self._progress.get(trial.number, (0, math.nan))
        self._progress[trial.number] = (max(trial.iteration, 0 if trial.over else before[0]), trial.value)

    def progress(self, index: int, iteration: int, value: float) -> None:
        """A trial's own word."""
        before = max(self._progress.get(index, (0, math.nan))[0], self.sweep.span(index)[0])
        if self._since is not None:
            self._steps += max(iteration - before, 0)
        elif iteration > before:
            self._since = time.monotonic()
        self._progress[index] = (iteration, value)
        self._states[index] = RUNNING

    def tell(self, force: bool = False) -> None:
        """Emits the board, at most once a second."""
        if self._throttle.due() or force:
            self.emit("sweep", self.event())

    def event(self) -> dict[str, Any]:
        best = best_of(self._trials.values(), self.sweep.metric)
        rows = []
        for index, trial in sorted(self._trials.items()):
            iteration, value = self._progress[index]
            setting = {name: short(item) for name, item in trial.setting.items()}
            shown = value if math.isfinite(value) else None
            rows.append([index, setting, iteration, shown, self._states[index], trial.why])
        return {
            "rows": rows,
            "size": self.sweep.size,
            "over": sum(trial.over for trial in self._trials.values()),
            "iterations": self.sweep.tune.iterations,
            "metric": self.sweep.metric,
            "best": best and best.number,
            "eta_s": self.eta(),
        }

    def eta(self) -> float | None:
        """Seconds left, if all that is left takes as many outer steps as can be expected, and these go on as before."""
        if not self._steps or self._since is None:
            return None
        left = 0.0
        for number in range(self.sweep.size):
            trial, (made, _) = self._trials.get(number), self._progress.get(number, (0, math.nan))
            if trial is None or not trial.over:
                start, end = self.sweep.span(number)
                expected = min(self._expected(number), end) if made < self._expected(number) else end
                left += expected - max(made, start)
        return left / (self._steps / (time.monotonic() - self._since))

    def _expected(self, number: int) -> float:
        """Outer steps of a trial: the first ones make all; of others as many go on from rung to rung as should."""
        tune = self.sweep.tune
        marks = [0, *rungs(tune), tune.iterations]
        if number < self.sweep.lookback or tune.search == "pbt":
            return float(tune.iterations)
        prior = sum((end - start) / tune.reduction**k for k, (start, end) in enumerate(pairwise(marks)))
        judged = [trial.iteration for trial in self._trials.values() if trial.over and trial.bars]
        return float(prior + sum(judged)) / (1 + len(judged))
