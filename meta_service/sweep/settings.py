"""A sweep: a job, the ranges of its fields, and how they are searched."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal

from meta_service.dotted import flatten, from_json, override, to_json
from meta_service.errors import UserError
from meta_service.job import JobSpec, Resources
from meta_service.sweep.space import Setting, Space, applied, check, parse

_BY_TUNE = "the length of a trial is tune.iterations and tune.grace; leave it out of the space"
FIXED = {
    "name": "it names the job; leave it out of the space",
    "resources": "it changes the time and not the result; leave it out of the space",
    "validation": "all trials must be judged alike; leave it out of the space",
    "evaluations": "all trials must be judged alike; leave it out of the space",
    "baselines": "trials train no baselines; leave it out of the space",
    "iterations": _BY_TUNE,
    "validate_every": _BY_TUNE,
    "checkpoint_every": _BY_TUNE,
}


@dataclass(frozen=True)
class Tune:
    """How a space is searched. The trials, their results and the best one follow from these, the space and the job."""

    trials: int = 16
    """How many settings are tried; a grid has its own number."""
    iterations: int = 600
    """Outer steps of a trial that is not stopped early."""
    grace: int = 60
    """Outer steps between two looks at the validation tasks; the first rung at which a trial can be stopped."""
    reduction: int = 3
    """At each rung (grace, grace * reduction, ...) the best one in so many goes on (ASHA); 1: all go on."""
    search: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    """Who chooses: Optuna's TPE, chance, every combination, or population based training."""
    concurrent: int | None = None
    """Trials at once; none: as many as the cluster has room for, a quarter of all at most. Fixed when a sweep begins: a
    trial is chosen and judged by those at least 3/2 of this number before it, whichever ended first, so that the same
    sweep is the same anywhere."""
    points: int = 4
    """Values of a continuous range in a grid."""
    generations: int = 4
    """Of population based training: how often the worst quarter goes on from the best one's theta and setting."""
    default: bool = True
    """Try the job's own setting first, for comparison."""
    seed: int = 0
    """Names the settings that are drawn."""
    workers: int = 1
    """Ray actors of each trial; 0 computes in the trial's own process."""
    cpus_per_driver: float = 0.5
    """CPUs set aside for the process of a trial, beside its workers'."""

    def __post_init__(self) -> None:
        for name in ("trials", "iterations", "grace", "reduction", "points", "generations"):
            if getattr(self, name) < 1:
                raise UserError(f"tune.{name}: at least 1 is expected, {getattr(self, name)} came")
        if self.concurrent is not None and self.concurrent < 1:
            raise UserError(f"tune.concurrent: at least 1 or none is expected, {self.concurrent} came")
        if min(self.seed, self.workers, self.cpus_per_driver) < 0:
            raise UserError("tune.seed, tune.workers and tune.cpus_per_driver: at least 0 is expected")


@dataclass(frozen=True)
class Sweep:
    """What is searched, and how."""

    job: JobSpec
    """The job as it will be trained to the end with the best setting."""
    space: Space
    tune: Tune

    def __post_init__(self) -> None:
        if not self.space:
            raise UserError("space: at least one field is expected; add space.algorithm.inner_lr=loguniform(1e-3,1)")
        check(self.job, self.space, FIXED)
        if self.tune.search == "pbt" and self.tune.trials < 2 * self.tune.generations:
            raise UserError(
                f"tune.trials: at least two in each of the {self.tune.generations} generations are expected, "
                f"{self.tune.trials} came"
            )

    @property
    def size(self) -> int:
        """How many trials there are."""
        if self.tune.search == "grid":
            return len(self.cells())
        if self.tune.search == "pbt":
            return self.population * self.tune.generations
        return self.tune.trials

    @property
    def population(self) -> int:
        """Trials in each generation of population based training."""
        return self.tune.trials // self.tune.generations

    @property
    def metric(self) -> str:
        return self.job.tasks.metric_name

    @property
    def lookback(self) -> int:
        """How many trials before it one must not know, since they may run beside it."""
        concurrent = self.tune.concurrent or 1
        return concurrent + concurrent // 2

    def span(self, number: int) -> tuple[int, int]:
        """The outer steps with which a trial begins and ends; a later generation goes on where its parents ended."""
        if self.tune.search != "pbt":
            return 0, self.tune.iterations
        generation, parts = number // self.population, self.tune.generations
        return self.tune.iterations * generation // parts, self.tune.iterations * (generation + 1) // parts

    def default(self) -> Setting:
        """The job's own values of the fields in the space."""
        flat = flatten(self.job)
        return {name: flat[name] for name in self.space}

    def cells(self) -> list[Setting]:
        """Every combination, the default first if it is asked for."""
        values = [range_.points(self.tune.points) for range_ in self.space.values()]
        if prod(map(len, values)) > 10_000:
            raise UserError(f"a grid of {prod(map(len, values)):,} trials is too large; leave fields or values out")
        cells = [dict(zip(self.space, cell, strict=True)) for cell in product(*values)]
        if not self.tune.default:
            return cells
        return [self.default(), *(cell for cell in cells if cell != self.default())]

    def trial_job(self, setting: Setting, iterations: int | None = None) -> JobSpec:
        """What a trial computes: the job with this setting, for a short time, without tests and baselines."""
        tune = self.tune
        short = dataclasses.replace(
            self.job,
            iterations=iterations or tune.iterations,
            validate_every=tune.grace,
            checkpoint_every=tune.grace,
            baselines=(),
            resources=dataclasses.replace(self.job.resources, workers=tune.workers),
        )
        return applied(short, setting)

    def best_job(self, setting: Setting, resources: Resources) -> JobSpec:
        """The job with this setting, for its whole length."""
        return applied(dataclasses.replace(self.job, resources=resources), setting)

    def to_json(self) -> str:
        kept = {"job": json.loads(to_json(self.job)), "tune": json.loads(to_json(self.tune))}
        return json.dumps(kept | {"space": {name: str(range_) for name, range_ in self.space.items()}}, indent=2)

    @staticmethod
    def from_json(text: str) -> "Sweep":
        kept = json.loads(text)
        space = {name: parse(name, range_) for name, range_ in kept["space"].items()}
        return Sweep(from_json(json.dumps(kept["job"])), space, from_json(json.dumps(kept["tune"])))


def sweep_of(job: JobSpec, space: Space, tune: Tune, assignments: Sequence[str]) -> Sweep:
    """The sweep with `space.FIELD=RANGE`, `tune.FIELD=VALUE` and fields of the job changed.

    A field of the job that is given a value is not searched any more. Raises UserError.
    """
    chosen = dict(space)
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if name.startswith("space.") and equals:
            chosen[name.removeprefix("space.")] = parse(name.removeprefix("space."), text)
        elif name.startswith("tune."):
            tune = override(_Named(tune), [assignment]).tune
        else:
            job = override(job, [assignment])
            chosen.pop(name, None)
    return Sweep(job, chosen, tune)


@dataclass(frozen=True)
class _Named:
    """Gives the settings' fields the names they have on the command line."""

    tune: Tune
