"""What is known of a sweep's trials, in its store: written before it counts, so that any process can be killed.

    trials/0007/given.json     what the trial is; written before it starts
    trials/0007/looks.json     what it was worth at each look; written before it goes on
    trials/0007/end.json       how it ended; the trial is over from here on
    stop                       there while the trials are asked to save and end

A trial's checkpoints and history lie beside these, as a run's do.
"""

import json
import math
from typing import Any, NamedTuple

from meta_service.artifacts import ArtifactStore, MissingArtifact
from meta_service.sweep.space import Setting

FINISHED, STOPPED, DIVERGED, FAILED = "finished", "stopped early", "diverged", "failed"


class Look(NamedTuple):
    """The metric on validation tasks after adaptation."""

    iteration: int
    value: float
    ci95: float


class Trial(NamedTuple):
    """One setting that is tried."""

    number: int
    setting: Setting
    bars: dict[int, float]
    """What the metric must reach after so many outer steps, else the trial is stopped early."""
    parent: int | None = None
    """The trial from whose last checkpoint this one goes on; none: it begins anew."""
    iterations: int | None = None
    """Where it ends; none: as the sweep says."""
    looks: tuple[Look, ...] = ()
    state: str = ""
    """How it ended: finished, stopped early, diverged or failed; "" until then."""
    why: str = ""
    tracking: str = ""
    """The address of its MLflow run."""

    @property
    def over(self) -> bool:
        return bool(self.state)

    @property
    def compared(self) -> bool:
        """Whether its value can be compared with others'."""
        return self.state in (FINISHED, STOPPED) and bool(self.looks)

    @property
    def iteration(self) -> int:
        """How far it was looked at."""
        return self.looks[-1].iteration if self.looks else 0

    @property
    def value(self) -> float:
        """The metric at the last look; NaN before the first."""
        return self.looks[-1].value if self.looks else math.nan

    def at(self, iteration: int) -> float | None:
        """The metric after so many outer steps, if it is known and a number."""
        values = [look.value for look in self.looks if look.iteration == iteration and math.isfinite(look.value)]
        return values[0] if values else None


class Ledger:
    """The trials of one sweep. The sweep's driver gives, a trial looks and ends; nobody else writes."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    def folder(self, index: int) -> ArtifactStore:
        """Where a trial keeps its checkpoints and all else."""
        return self.store.under(f"trials/{index:04d}")

    def give(self, trial: Trial) -> None:
        """The trial exists from here on."""
        kept = {
            "setting": trial.setting,
            "bars": list(trial.bars.items()),
            "parent": trial.parent,
            "iterations": trial.iterations,
        }
        self._write(trial.number, "given", kept)

    def look(self, index: int, looks: tuple[Look, ...]) -> None:
        self._write(index, "looks", looks)

    def end(self, index: int, state: str, why: str = "", tracking: str = "") -> None:
        """The trial is over."""
        self._write(index, "end", {"state": state, "why": why, "tracking": tracking})

    def trial(self, index: int) -> Trial | None:
        """The trial as it stands; None where it was not given yet."""
        given = self._read(index, "given")
        if given is None:
            return None
        looks = tuple(Look(*look) for look in self._read(index, "looks") or ())
        end: dict[str, str] = self._read(index, "end") or {}
        setting = {name: tuple(v) if isinstance(v, list) else v for name, v in given["setting"].items()}
        bars = {int(iteration): float(bar) for iteration, bar in given["bars"]}
        return Trial(index, setting, bars, given["parent"], given["iterations"], looks, **end)

    def trials(self) -> list[Trial]:
        """All that were given, in their order."""
        found: list[Trial] = []
        while trial := self.trial(len(found)):
            found.append(trial)
        return found

    def ask_to_stop(self) -> None:
        self.store.write("stop", b"")

    def stop_asked(self) -> bool:
        return self.store.exists("stop")

    def clear_stop(self) -> None:
        self.store.delete("stop")

    def _write(self, index: int, name: str, value: Any) -> None:
        self.folder(index).write(f"{name}.json", json.dumps(value).encode())

    def _read(self, index: int, name: str) -> Any:
        try:
            return json.loads(self.folder(index).read(f"{name}.json"))
        except MissingArtifact:
            return None
