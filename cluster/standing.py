"""Where runs are, shown: as their store knows it, and where that is away as this machine does."""

import os
from functools import partial

from rich.console import Console
from rich.table import Table

from cluster import local, syncing
from cluster.commands import found
from cluster.follow import ago
from cluster.runs import Runs
from cluster.submit import Jobs
from meta_service.artifacts import StorageError, open_store
from meta_service.evaluation import format_metric
from meta_service.status import RunStatus

NEWEST = 20  # how many runs `status` lists


def status(out: Console, run: str | None) -> None:
    """The newest runs, or all that is known of one."""
    here = syncing.last_words()
    surroundings = local.find() if here else found()
    try:
        if surroundings is None:
            raise StorageError("S3 is not running on this machine")
        os.environ.update(surroundings.env)
        runs = Runs(open_store(surroundings.artifacts))
        if here:
            runs.root.check()  # soon, if it is away: then what is known here has to do
        ray = Jobs(surroundings) if surroundings.ray else None
        names = [runs.choose(run)] if run else runs.names()[:NEWEST]
        told = {name: syncing.newer(runs.status(name), here.get(name)) for name in names}
    except StorageError as error:
        told = {name: said for name, said in here.items() if run in (None, name)}
        if not told:
            raise
        out.print(f"{error}\nThis is what is known on this machine:\n", markup=False, highlight=False, style="yellow")
        _show(out, told, detail=bool(run), artifacts="", ray=None)
        return
    _show(out, told, bool(run), runs.root.address(), ray)


def _show(out: Console, told: dict[str, RunStatus], detail: bool, artifacts: str, ray: Jobs | None) -> None:
    """Where runs are, as they last said: a table, or all that is known of one. artifacts: "" where S3 is away."""
    state = partial(_state, ray=ray) if artifacts else lambda said, name: said.state
    if detail:
        ((run, said),) = told.items()
        rows = {
            "run": run,
            "state": state(said, run),
            said.unit: f"{said.iteration:,} of {said.iterations:,}, {ago(said.time)}",
            "checkpoint": _durable(said) or "none yet",
            "validation": _gain(said),
            "MLflow": said.tracking or "not reached yet",
            "artifacts": f"{artifacts}/{run}" if artifacts else "",
        }
        for name, text in rows.items():
            if text or name == "validation":
                out.print(f"{name:<11} {text}", markup=False, highlight=False)
        return
    table = Table(box=None)
    table.add_column("run", min_width=max(map(len, told), default=0))  # to be copied, so never cut
    for title in ("state", "iteration", "checkpoint", "validation", "last word"):
        table.add_column(title, no_wrap=True)
    for name, said in told.items():
        iteration = f"{said.iteration:,}/{said.iterations:,}{' trials' if said.unit == 'trials' else ''}"
        table.add_row(name, state(said, name), iteration, _durable(said), _gain(said), ago(said.time))
    out.print(table if table.row_count else "There is no run yet; `make submit JOB=sinusoid` makes one.")


def _state(said: RunStatus, run: str, ray: Jobs | None) -> str:
    """The state as the driver wrote it; LOST where it says it runs and Ray knows of no such driver."""
    lost = said.state in ("QUEUED", "RUNNING") and said.workers > 0 and not (ray and ray.active(run))
    return "LOST" if lost else said.state


def _durable(said: RunStatus) -> str:
    """`durable to step 500, local to step 700`: what the store holds, and what only the driver's machine does."""
    if said.durable is None and said.local is None:
        return ""
    durable = "none durable" if said.durable is None else f"durable to step {said.durable:,}"
    ahead = said.local is not None and said.local > (said.durable or 0)
    return f"{durable}, local to step {said.local:,}" if ahead else durable


def _gain(said: RunStatus) -> str:
    if said.before is None or said.after is None:
        return ""
    return f"{said.metric} {format_metric(said.metric, said.before)} → {format_metric(said.metric, said.after)}"
