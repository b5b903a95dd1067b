"""What dead drivers left on this machine, delivered: metrics to MLflow, checkpoints to the runs' store."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console

from cluster.commands import show_error, up
from cluster.runs import Runs
from cluster.workplace import SPOOL, place
from meta_service.artifacts import ArtifactStore, DirectoryStore, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.delivery import Delivery
from meta_service.errors import UserError
from meta_service.journal import deliver_history
from meta_service.ownership import Owner
from meta_service.pointer import BEST, LATEST
from meta_service.spool import Spool, peek
from meta_service.status import NAME, RunStatus
from meta_service.tracking import address_of

Say = Callable[[str], None]


class Synced(NamedTuple):
    """What was delivered of a run."""

    points: int
    files: int
    iteration: int | None
    """Of the checkpoint the store was given; None where it had it already."""

    def __str__(self) -> str:
        parts = [f"{self.points:,} points delivered"]
        parts += [f"{self.files} file{'s' * (self.files > 1)}"] * bool(self.files)
        parts += [] if self.iteration is None else [f"checkpoint of iteration {self.iteration:,}"]
        return ", ".join(parts)


def sync(out: Console, run: str | None) -> None:
    """Delivers what is left of a run, or of all runs these services know, and says what that was."""
    surroundings = up(out, ray=False)
    runs = Runs(open_store(surroundings.artifacts))
    known = names()
    if run:
        runs.job(run)
        mine = [name for name in known if name.partition(".")[0] == run]  # a sweep, and its trials
    else:
        mine = [name for name in known if runs.known(name.partition(".")[0])]  # else of other services
    left = [name for name in mine if run == name or has_something(name)]
    refusals = []
    for name in left:
        try:
            said = deliver(runs, name, surroundings.mlflow, out.print)
            out.print(f"{name}: {said}", markup=False, highlight=False)
        except UserError as error:
            refusals.append(str(error))
    if run and len(refusals) == len(left) == 1:
        raise UserError(refusals[0])
    for text in refusals:
        show_error(text)
    if not left:
        out.print(f"nothing of {run or 'any run'} is left on this machine to be delivered", markup=False)
    elif refusals:
        raise UserError(f"{len(refusals)} of {len(left)} could not be delivered; `make sync` tries again")


def names(folder: Path = SPOOL) -> list[str]:
    """All that ever had a spool on this machine: runs, and trials of sweeps as <sweep>.<number>."""
    return sorted(path.name.removesuffix(".lock") for path in folder.glob("*.lock"))


def has_something(name: str, folder: Path = SPOOL) -> bool:
    """Whether a spool holds what is not delivered."""
    rescued = DirectoryStore(folder / f"{name}.rescued")
    return bool(peek(folder / name)) or rescued.exists(LATEST) or rescued.exists(BEST)


def last_words(folder: Path = SPOOL) -> dict[str, RunStatus]:
    """What drivers on this machine last said of their runs, the newest first: a store that is away does not know."""
    found = {}
    for path in folder.glob(f"*.rescued/{NAME}"):
        with suppress(ValueError, TypeError, OSError):  # gone, or of another version
            found[path.parent.name.removesuffix(".rescued")] = RunStatus.from_bytes(path.read_bytes())
    runs = [name for name in found if "." not in name]  # no trials
    return {name: found[name] for name in sorted(runs, key=lambda name: -found[name].time)}


def newer(said: RunStatus, here: RunStatus | None) -> RunStatus:
    """The later of a driver's words, in the store and on this machine."""
    return here if here and here.time > said.time else said


def deliver(runs: Runs, name: str, mlflow: str, say: Say, folder: Path = SPOOL) -> Synced:
    """Delivers all that a dead driver of the run, or trial, left here. Raises UserError where one is alive, or a server
    takes nothing: what was delivered until then is not delivered again.
    """
    run, _, trial = name.partition(".")
    try:
        with FileLock(folder / f"{name}.lock", timeout=0):
            points, files, facts = _metrics(folder / name, mlflow, say)
            store = runs.store(run).under(f"trials/{int(trial):04d}") if trial else runs.store(run)
            with _owned(store, place(folder), say) as owner:
                iteration = _checkpoints(store, DirectoryStore(folder / f"{name}.rescued"), owner, say)
                if not trial:
                    _tell(runs, run, iteration, address_of(mlflow, facts), facts.get("run_id"))
            return Synced(points, files, iteration)
    except Timeout:
        raise UserError(
            f"a driver of {name} is at work on this machine, and delivers by itself; stop it, or wait for its end"
        ) from None


@contextmanager
def _owned(store: ArtifactStore, place: str, say: Say) -> Iterator[Owner]:
    owner = Owner.take(store, place, say)
    try:
        yield owner
    finally:
        owner.release()


def _metrics(path: Path, mlflow: str, say: Say) -> tuple[int, int, dict[str, str]]:
    """How many points and files were delivered, and what is known of the MLflow run."""
    waiting = peek(path)
    if not waiting:
        return 0, 0, {}
    spool = Spool(path)
    try:
        kinds = [entry["kind"] for entry, _ in spool.unsent()]
        if kinds[-1] != "end":  # it could not say so itself
            spool.append({"kind": "end", "state": "KILLED", "time": int(time.time() * 1000)})
        error = Delivery(mlflow, spool, say).attempt()
        left = [entry for entry, _ in spool.unsent()]
        points, files = (_count(waiting)[k] - _count(left)[k] for k in (0, 1))
        if error:
            raise UserError(
                f"MLflow at {mlflow} took {points:,} points, {_count(left)[0]:,} are still in {path}: {error}; "
                "try `make doctor`"
            )
        return points, files, spool.facts
    finally:
        spool.close()


def _checkpoints(store: ArtifactStore, rescue: DirectoryStore, owner: Owner, say: Say) -> int | None:
    """The iteration of the checkpoint the store has now and had not before."""
    if not (rescue.exists(LATEST) or rescue.exists(BEST)):
        return None
    checkpoints = Checkpoints(store, say, owner=owner, rescue=rescue)
    before, local = checkpoints.durable, checkpoints.local
    checkpoints.wait()
    deliver_history(store, rescue)
    checkpoints.forget()
    return local if local is not None and local > (before or -1) else None


def _tell(runs: Runs, run: str, iteration: int | None, tracking: str, run_id: str | None) -> None:
    """For `make status`: a driver that was killed could not say that it ended, or how far it came."""
    said = runs.status(run)
    if said.state == "RUNNING":
        said = said._replace(state="STOPPED", time=time.time())
    if iteration is not None:
        said = said._replace(iteration=max(said.iteration, iteration), durable=iteration, local=None)
    if run_id:
        said = said._replace(tracking=tracking, mlflow_run_id=run_id)
    runs.tell(run, said)


def _count(entries: list[dict[str, Any]]) -> tuple[int, int]:
    """Points and files in these entries."""
    values = [entry["values"] for entry in entries if entry["kind"] == "metrics"]
    return sum(map(len, values)), sum(e["kind"] == "artifact" for e in entries)
