"""What the commands of the command line do."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.table import Table

from cluster import local
from cluster.follow import Follower, ago
from cluster.runs import Runs
from cluster.submit import Jobs, new_run
from cluster.surroundings import Surroundings, configured
from meta_service.artifacts import open_store
from meta_service.dotted import flatten, override
from meta_service.errors import UserError
from meta_service.evaluation import format_metric
from meta_service.job import JobSpec
from meta_service.status import RunStatus

INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def submit(out: Console, job: JobSpec, dry_run: bool, detach: bool) -> int:
    here = job.resources.workers == 0 or "ray" in configured().embedded
    if here:  # broken or missing data are found before anything starts
        job.tasks.prepare()
    if dry_run:
        out.print(_fields(job))
        out.print("Nothing was started.")
        return 0
    surroundings = _up(out)
    run = new_run(job.name)
    Runs(open_store(surroundings.artifacts)).create(run, job)
    return _start(out, surroundings, run, job, (), detach)


def resume(out: Console, run: str | None, detach: bool) -> int:
    surroundings = _up(out)
    runs = Runs(open_store(surroundings.artifacts))
    run = runs.choose(run)
    if Jobs(surroundings).is_running(run):
        raise UserError(f"{run} is running; `make logs RUN={run}` follows it")
    return _start(out, surroundings, run, runs.job(run), (), detach)


def evaluate(out: Console, run: str | None, overrides: Sequence[str]) -> int:
    surroundings = _up(out)
    runs = Runs(open_store(surroundings.artifacts))
    run = runs.choose(run)
    job = override(runs.job(run), overrides)
    return _start(out, surroundings, run, job, ("--test", *overrides), detach=False)


def status(out: Console, run: str | None) -> None:
    surroundings = _found()
    runs, ray = Runs(open_store(surroundings.artifacts)), Jobs(surroundings)
    table = Table("run", "state", "iteration", "before", "after adaptation", "MLflow", "last word", box=None)
    for name in [runs.choose(run)] if run else runs.names()[:20]:
        said = runs.status(name)
        lost = said.state in ("QUEUED", "RUNNING") and said.workers != 0 and not ray.is_running(name)
        before, after = (_value(said, value) for value in (said.before, said.after))
        progress = f"{said.iteration:,}/{said.iterations:,}"
        state = f"LOST; make resume RUN={name}" if lost else said.state
        table.add_row(name, state, progress, before, after, said.tracking or "", ago(said.time))
    out.print(table if table.row_count else "There is no run yet; `make submit JOB=sinusoid` makes one.")


def logs(out: Console, run: str | None) -> int:
    surroundings = _found()
    run = Runs(open_store(surroundings.artifacts)).choose(run)
    ray = Jobs(surroundings)
    submissions = ray.of_run(run)
    if not submissions:
        raise UserError(f"the cluster has no output of {run}: Ray was restarted since, or it ran without Ray; see `make ui`")
    return _follow(out, ray, run, submissions[-1].submission_id)


def stop(out: Console, run: str | None) -> None:
    surroundings = _found()
    runs, ray = Runs(open_store(surroundings.artifacts)), Jobs(surroundings)
    run = runs.choose(run)
    active = [job for job in ray.of_run(run) if not job.status.is_terminal()]
    if not active:
        raise UserError(f"{run} is not running ({runs.status(run).state}); `make status` lists the runs")
    ray.stop(active[-1].submission_id)
    with suppress(UserError):
        ray.exit_code(active[-1].submission_id, patience=60)
    said = runs.status(run)
    out.print(f"{run}: {said.state} at iteration {said.iteration:,} of {said.iterations:,}; make resume RUN={run}")


def ui(out: Console) -> None:
    table = Table(box=None, show_header=False)
    for row in local.ui():
        table.add_row(*row)
    out.print(table)


def down(out: Console) -> None:
    local.take_down(out.print)


def doctor(out: Console) -> int:
    from cluster.doctor import doctor as examine

    return examine(out)


def _up(out: Console) -> Surroundings:
    surroundings = local.bring_up(out.print)
    os.environ.update(surroundings.env)
    local.check(surroundings)
    return surroundings


def _found() -> Surroundings:
    surroundings = local.find()
    if surroundings is None:
        raise UserError("nothing is running on this machine; `make submit JOB=sinusoid` starts it, `make doctor` tells more")
    os.environ.update(surroundings.env)
    return surroundings


def _start(
    out: Console, surroundings: Surroundings, run: str, job: JobSpec, arguments: Sequence[str], detach: bool
) -> int:
    out.print(f"[bold]{run}[/bold]", highlight=False)
    if job.resources.workers == 0:
        return _drive_here(out, surroundings, run, arguments)
    ray = Jobs(surroundings)
    submission = ray.submit(run, arguments)
    if detach:
        out.print(f"submitted; `make logs RUN={run}` follows it")
        return 0
    return _follow(out, ray, run, submission)


def _follow(out: Console, ray: Jobs, run: str, submission: str) -> int:
    follower = Follower(out)
    try:
        follower.follow(ray.lines(submission))
        code = ray.exit_code(submission)
    except KeyboardInterrupt:
        out.print(f"\n{run} goes on. Come back: make logs RUN={run}   Stop it: make stop RUN={run}", highlight=False)
        return INTERRUPTED
    return _end(follower, run, code)


def _drive_here(out: Console, surroundings: Surroundings, run: str, arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "jobs", "drive", run, *arguments]
    env = os.environ | surroundings.env
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        # Ctrl-C reaches the driver too, which saves a checkpoint and ends
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            follower = Follower(out)
            follower.follow(line.rstrip("\n") for line in driver.stdout)
        finally:
            signal.signal(signal.SIGINT, before)
    return _end(follower, run, driver.returncode)


def _end(follower: Follower, run: str, code: int) -> int:
    if follower.error:
        raise UserError(follower.error)
    if code:
        again = f"`make resume RUN={run}` goes on from the latest checkpoint"
        raise UserError(f"the driver of {run} ended with exit code {code} before its end; {again}")
    return 0


def _fields(job: JobSpec) -> Table:
    table = Table("field", "value", box=None)
    for name, value in flatten(job).items():
        table.add_row(name, str(value))
    return table


def _value(said: RunStatus, value: float | None) -> str:
    return "" if value is None else f"{said.metric} {format_metric(said.metric, value)}"
