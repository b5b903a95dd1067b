"""Which computations there are: one Python value, `job`, a file; `space` and `tune` beside it say how it is swept."""

import difflib
import importlib
import pkgutil

from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.sweep.settings import Tune
from meta_service.sweep.space import Space


def names() -> list[str]:
    """The jobs there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> JobSpec:
    """The job of that name; UserError with the nearest one where there is none."""
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise UserError(f"there is no job '{name}'; the nearest is '{near[0]}', all are: {', '.join(known)}")
    job = importlib.import_module(f"jobs.{name}").job
    if not isinstance(job, JobSpec):
        raise UserError(f"jobs/{name}.py: `job = JobSpec(...)` is expected, a {type(job).__name__} came")
    return job


def find_sweep(name: str) -> tuple[JobSpec, Space, Tune]:
    """The job of that name, the ranges its fields are searched in, and how; no range where its file has none."""
    job, module = find(name), importlib.import_module(f"jobs.{name}")
    return job, getattr(module, "space", {}), getattr(module, "tune", Tune())
