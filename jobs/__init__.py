"""Which computations there are: one Python value, `job`, a file."""

import difflib
import importlib
import pkgutil

from meta_service.errors import UserError
from meta_service.job import JobSpec


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
