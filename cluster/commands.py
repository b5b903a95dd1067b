"""What the commands of the command line do."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cluster import local
from cluster.follow import Follower
from cluster.runs import Runs
from cluster.submit import INTERRUPTED, Jobs, NotReached, new_run
from cluster.surroundings import Surroundings, configured
from cluster.workplace import SPOOL
from meta_service.artifacts import DirectoryStore, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import flatten, override
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.load import start_of
from meta_service.tracking import TRAINING_VIEW

SWEEP = ("--sweep",)  # to its driver: the run is a sweep, which is always on the cluster


def submit(out: Console, job: JobSpec, dry_run: bool, detach: bool) -> int:
    if detach and job.resources.workers == 0:
        raise UserError("--detach: a run on the cluster is expected, resources.workers=0 runs in this terminal")
    here = job.resources.workers == 0 or "ray" in configured().embedded
    if here:  # broken or missing data are found before anything starts
        job.prepare()
    if job.start_from:
        up(out, ray=False)
    state = start_of(job)
    if dry_run:
        out.print(_fields(job))
        out.print("Nothing was started.")
        return 0
    surroundings = up(out, ray=job.resources.workers > 0)
    run, runs = new_run(job.name), Runs(open_store(surroundings.artifacts))
    if job.start_from:  # now, whatever becomes of the other run
        Checkpoints(runs.store(run)).save(state)
    runs.create(run, job)
    return start(out, surroundings, run, job, (), detach)


def resume(out: Console, run: str | None, detach: bool) -> int:
    runs, run, job = _existing(out, run)
    is_sweep = runs.is_sweep(run)
    if is_sweep and runs.status(run).state == "FINISHED":
        raise UserError(f"{run} is finished; its report is in {runs.store(run).address('report')}")
    surroundings = up(out, ray=is_sweep or job.resources.workers > 0)
    if surroundings.ray and Jobs(surroundings).active(run):
        raise UserError(f"{run} is running; `make logs RUN={run}` follows it")
    runs.queue(run)
    return start(out, surroundings, run, job, SWEEP if is_sweep else (), detach)


def evaluate(out: Console, run: str | None, overrides: Sequence[str]) -> int:
    runs, run, job = _existing(out, run)
    if runs.is_sweep(run):
        raise UserError(f"{run} is a sweep; `make submit JOB={job.name} ARGS=from_sweep={run}` trains its best setting")
    job = override(job, overrides)
    surroundings = up(out, ray=job.resources.workers > 0)
    if surroundings.ray and Jobs(surroundings).active(run):
        raise UserError(f"{run} is running and tests itself at its end; `make logs RUN={run}` follows it")
    return start(out, surroundings, run, job, ("--test", *overrides), detach=False)


def logs(out: Console, run: str | None) -> int:
    surroundings = found()
    run = Runs(open_store(surroundings.artifacts)).choose(run)
    ray = Jobs(surroundings)
    submissions = ray.of_run(run)
    if not submissions:
        raise UserError(f"the cluster has no output of {run}: Ray was restarted since, or it ran without it")
    return _follow(out, ray, run, submissions[-1].submission_id)


def stop(out: Console, run: str | None) -> None:
    surroundings = found()
    runs = Runs(open_store(surroundings.artifacts))
    run = runs.choose(run)
    said = runs.status(run)
    ray = Jobs(surroundings) if surroundings.ray else None  # a run without workers needs none
    active = ray.active(run) if ray else None
    if not active and said.state == "RUNNING" and said.workers == 0:
        raise UserError(f"{run} runs in a terminal of its own; press Ctrl-C there")
    if not (ray and active):
        raise UserError(f"{run} is not running ({said.state}); `make status` lists the runs")
    ray.stop(active)
    said = runs.status(run)
    where = f"iteration {said.iteration:,} of {said.iterations:,}"
    if said.unit == "trials":
        where = f"{said.iteration:,} of {said.iterations:,} trials"
    out.print(f"{run}: {said.state} at {where}; make resume RUN={run}")


def ui(out: Console) -> None:
    table = Table("", "", "", box=None, show_header=False)
    address = table.columns[1]
    for name, at, note in local.ui():
        page = f"/#/experiments{TRAINING_VIEW}" if name == "MLflow" and at.startswith("http") else ""
        table.add_row(name, at + page, note)
        address.min_width = max(address.min_width or 0, len(at + page))  # to be copied, so never cut
    out.print(table)


def down(out: Console) -> None:
    surroundings = local.find()
    if surroundings and surroundings.ray and "ray" in surroundings.embedded:
        os.environ.update(surroundings.env)
        ray = Jobs(surroundings)
        if active := ray.active():
            out.print(f"Stopping {', '.join(active)}; `make resume` goes on from the checkpoint")
            try:
                ray.stop(active)
            except UserError as error:  # it is ended all the same, with its latest checkpoint
                show_error(str(error))
    local.take_down(out.print)
    DirectoryStore(SPOOL).tidy()  # what drivers that were killed were writing


def doctor(out: Console) -> int:
    from cluster.doctor import doctor as examine

    return examine(out)


def show_error(text: str) -> None:
    """One line on standard error."""
    Console(stderr=True, soft_wrap=True).print(f"error: {text}", style="red", markup=False, highlight=False)


def up(out: Console, ray: bool = True) -> Surroundings:
    surroundings = local.bring_up(out.print, ray)
    os.environ.update(surroundings.env)
    local.check(surroundings, ray)
    return surroundings


def _existing(out: Console, run: str | None) -> tuple[Runs, str, JobSpec]:
    """The runs, the one that is meant, and its job; Ray is not needed to know."""
    runs = Runs(open_store(up(out, ray=False).artifacts))
    run = runs.choose(run)
    return runs, run, runs.job(run)


def found() -> Surroundings:
    surroundings = local.find()
    if surroundings is None:
        raise UserError("nothing is running on this machine; `make submit JOB=sinusoid` starts it")
    os.environ.update(surroundings.env)
    return surroundings


def start(
    out: Console, surroundings: Surroundings, run: str, job: JobSpec, arguments: Sequence[str], detach: bool
) -> int:
    out.print(f"[bold]{run}[/bold]", highlight=False)
    if job.resources.workers == 0 and arguments != SWEEP:
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
    except NotReached as error:  # `make down` from another terminal, as a rule
        text = f"Ray ended while {run} was followed; `make resume RUN={run}` goes on from its latest checkpoint"
        raise UserError(text) from error
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
    if code == INTERRUPTED:
        show_error(f"{run} was stopped; `make resume RUN={run}` goes on from its checkpoint")
    elif code:
        again = f"`make resume RUN={run}` goes on from the latest checkpoint"
        show_error(follower.error or f"the driver of {run} ended with exit code {code} before its end; {again}")
    return code


def _fields(job: JobSpec) -> Table:
    table = Table("field", "value", box=None)
    for name, value in flatten(job).items():
        table.add_row(name, str(value))
    return table
