"""What the commands of the command line do with sweeps."""

from rich.console import Console
from rich.table import Table

from cluster.commands import SWEEP, start, up
from cluster.runs import Runs
from cluster.submit import new_run
from cluster.surroundings import configured
from meta_service.artifacts import open_store
from meta_service.dotted import flatten
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.sweep.ledger import Ledger
from meta_service.sweep.ranking import best_of
from meta_service.sweep.settings import Sweep


def sweep(out: Console, wanted: Sweep, dry_run: bool, detach: bool) -> int:
    if wanted.job.start_from:
        raise UserError("start_from: trials begin with the theta their seed names; leave it out")
    if "ray" in configured().embedded:
        wanted.job.prepare()
    if dry_run:
        out.print(_fields(wanted))
        out.print("Nothing was started.")
        return 0
    surroundings = up(out)
    run = new_run(f"{wanted.job.name}-sweep")
    Runs(open_store(surroundings.artifacts)).create_sweep(run, wanted)
    return start(out, surroundings, run, wanted.job, SWEEP, detach)


def best_of_sweep(out: Console, name: str, job: JobSpec) -> JobSpec:
    """The job of a sweep with the best setting found, to be trained to its end; where it is computed is `job`'s."""
    runs = Runs(open_store(up(out, ray=False).artifacts))
    found = runs.sweep(name)
    if found.job.name != job.name:
        raise UserError(f"from_sweep={name}: a sweep of {job.name} is expected, this one is of {found.job.name}")
    said = runs.status(name)
    if said.state != "FINISHED":
        raise UserError(
            f"from_sweep={name}: a finished sweep is expected, {said.iteration} of its {said.iterations} trials are "
            f"over ({said.state}); `make resume RUN={name}` goes on with it"
        )
    best = best_of(Ledger(runs.store(name)).trials(), found.metric)
    assert best is not None  # else it had not finished
    out.print(
        f"from {name}, trial {best.number}: {', '.join(f'{n}={v}' for n, v in best.setting.items())}", style="bold"
    )
    return found.best_job(best.setting, job.resources)


def _fields(wanted: Sweep) -> Table:
    table = Table("field", "range or value", box=None)
    for name, range_ in wanted.space.items():
        table.add_row(f"space.{name}", str(range_))
    for name, value in flatten(wanted.tune).items():
        table.add_row(f"tune.{name}", str(value))
    for name, value in flatten(wanted.job).items():
        if name not in wanted.space:
            table.add_row(name, str(value))
    return table
