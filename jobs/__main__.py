"""The command line: what stands behind every `make` target."""

import sys
from collections.abc import Callable
from typing import Any, Literal

import click
from rich.console import Console

import jobs
from cluster import commands, one_block, standing, syncing
from cluster.driving import drive as drive_run
from cluster.sweep import commands as sweep_commands
from meta_service.dotted import override
from meta_service.errors import UserError
from meta_service.sweep.settings import sweep_of

# what is not read on a terminal has no width to keep to
OUT = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)


class _Program(click.Group):
    """Shows a user's mistake as one line, and an interruption as nothing at all."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            commands.show_error(str(error))
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)


FROM_SWEEP = "from_sweep="
RUN_HELP = "RUN is a run's name as `status` lists them; the newest one where it is left out."
run_argument: Callable[..., Any] = click.argument("run", required=False)
overrides_argument: Callable[..., Any] = click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
def program() -> None:
    """Meta-training with MAML on a Ray cluster, tracked in MLflow, kept in S3.

    \b
    make submit JOB=sinusoid                                       run a job, and follow it
    make submit JOB=omniglot ARGS="tasks.shots=5 iterations=2000"  the same with other settings
    make sweep JOB=omniglot                                        find the best setting of a job
    make status                                                    what runs, and how it goes
    make evaluate RUN=omniglot-1123-101500-ab12                    test a run again
    make block RUN=omniglot-1123-101500-ab12 BLOCK=3               compute one block of tasks here, to see why it fails
    make down                                                      stop everything

    What RAY_ADDRESS, MLFLOW_TRACKING_URI, ARTIFACT_ROOT and the AWS_* variables name is used; the rest is started on
    this machine.
    """


@program.command()
@click.argument("job", metavar="JOB")
@overrides_argument
@click.option("--dry-run", is_flag=True, help="Check everything and show the job's fields; start nothing.")
@click.option("--detach", is_flag=True, help="Do not follow the run.")
def submit(job: str, overrides: tuple[str, ...], dry_run: bool, detach: bool) -> None:
    """Run JOB on the cluster, with fields of it changed, and follow it.

    \b
    submit sinusoid
    submit miniimagenet tasks.shots=5 algorithm.first_order=true resources.workers=4
    submit omniglot resources.workers=0       in a process of this machine, without Ray
    submit omniglot --dry-run                 all fields and their values
    submit omniglot from_sweep=RUN            with the best setting that a sweep found
    submit omniglot start_from=RUN            with the theta of another run as the first one
    """
    found = jobs.find(job)
    sweeps = [text.partition("=")[2] for text in overrides if text.startswith(FROM_SWEEP)]
    for name in sweeps:
        found = sweep_commands.best_of_sweep(OUT, name, found)
    others = [text for text in overrides if not text.startswith(FROM_SWEEP)]
    sys.exit(commands.submit(OUT, override(found, others), dry_run, detach))


submit.help = f"{submit.help}\n\nJobs: {', '.join(jobs.names())}."


@program.command()
@click.argument("job", metavar="JOB")
@overrides_argument
@click.option("--dry-run", is_flag=True, help="Check everything and show the space; start nothing.")
@click.option("--detach", is_flag=True, help="Do not follow the sweep.")
def sweep(job: str, overrides: tuple[str, ...], dry_run: bool, detach: bool) -> None:
    """Search the best setting of JOB: many short runs, the poor ones stopped early, compared in MLflow.

    \b
    sweep sinusoid                                               the space in the job's file
    sweep omniglot tune.trials=32 tune.concurrent=4              more trials, four at a time
    sweep omniglot "space.algorithm.inner_lr=loguniform(1e-3,1)" another range, or another field
    sweep omniglot algorithm.inner_steps=1 tasks.shots=5         a field with a value is not searched
    sweep omniglot tune.search=random --dry-run                  all that can be set

    \b
    Ranges: uniform(LOW, HIGH), loguniform(LOW, HIGH), integers(LOW, HIGH), choice(A, B, ...).
    Searches: tpe, random, grid, pbt. A sweep is a run: status, logs, stop and resume know it by its name.
    """
    found, space, tune = jobs.find_sweep(job)
    sys.exit(sweep_commands.sweep(OUT, sweep_of(found, space, tune, overrides), dry_run, detach))


@program.command(help=f"List the runs, newest first, with their progress. {RUN_HELP}")
@run_argument
def status(run: str | None) -> None:
    standing.status(OUT, run)


@program.command(help=f"Follow a run's output from its beginning. {RUN_HELP}")
@run_argument
def logs(run: str | None) -> None:
    sys.exit(commands.logs(OUT, run))


@program.command(help=f"Save a checkpoint and end the run; `resume` goes on from there. {RUN_HELP}")
@run_argument
def stop(run: str | None) -> None:
    commands.stop(OUT, run)


@program.command(help=f"Go on with a run from its latest checkpoint, as the same MLflow run. {RUN_HELP}")
@run_argument
@click.option("--detach", is_flag=True, help="Do not follow the run.")
def resume(run: str | None, detach: bool) -> None:
    sys.exit(commands.resume(OUT, run, detach))


@program.command()
@run_argument
def sync(run: str | None) -> None:
    """Deliver what dead drivers left on this machine: metrics to MLflow, checkpoints to the runs' store.

    A driver writes both to this machine first, and delivers them in the background; one that was killed, or whose
    servers were away, leaves some. `resume` delivers them, too. Without RUN: of all runs.
    """
    syncing.sync(OUT, run)


@program.command(help=f"Test the best checkpoint of a run, under other conditions if fields are given. {RUN_HELP}")
@run_argument
@overrides_argument
def evaluate(run: str | None, overrides: tuple[str, ...]) -> None:
    if run and "=" in run:
        overrides, run = (run, *overrides), None
    sys.exit(commands.evaluate(OUT, run, overrides))


@program.command()
@run_argument
@click.option("--block", type=int, required=True, help="Which one, counted from 0.")
@click.option("--evaluation", help="A block of this evaluation, instead of training.")
@click.option(
    "--split", type=click.Choice(["validation", "test"]), default="test", help="Its tasks.", show_default=True
)
def block(run: str | None, block: int, evaluation: str | None, split: Literal["validation", "test"]) -> None:
    """Compute one block of tasks in this process, without Ray, and show what it comes to.

    \b
    block omniglot-1123-101500-ab12 --block 3             of the next outer step, with the latest checkpoint
    block omniglot-1123-101500-ab12 --block 3 --evaluation validation --split validation

    Where a block fails or kills its workers, the run ends by naming this command: the same happens here, with a
    traceback, a debugger and all memory at hand. RUN is a run's name as `status` lists them; the newest one where it is
    left out.
    """
    one_block.compute(OUT, run, block, evaluation, split)


@program.command()
def ui() -> None:
    """Print the addresses of MLflow, Ray and S3."""
    commands.ui(OUT)


@program.command()
def down() -> None:
    """Stop all that was started on this machine; runs, checkpoints and metrics stay."""
    commands.down(OUT)


@program.command()
def doctor() -> None:
    """Check versions, addresses, credentials and data, with the fix for each thing that is wrong."""
    sys.exit(commands.doctor(OUT))


@program.command(hidden=True)
@click.argument("run")
@overrides_argument
@click.option("--test", is_flag=True)
@click.option("--sweep", is_flag=True)
def drive(run: str, overrides: tuple[str, ...], test: bool, sweep: bool) -> None:
    """The driver's process, on the cluster."""
    if sweep:
        from cluster.sweep.driver import drive_sweep  # loads Tune

        sys.exit(drive_sweep(run))
    sys.exit(drive_run(run, overrides, test))


if __name__ == "__main__":
    program(prog_name="python -m jobs")
