"""The driver's process: puts a run's parts together, and turns signals and failures into an orderly end."""

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout

from cluster.runs import Runs
from cluster.stopping import Stopping, impatient, impatient_ppo, stopping
from cluster.submit import INTERRUPTED, ROOT
from cluster.workplace import SPOOL, place, pool_of, say
from meta_service import run as runner
from meta_service.artifacts import open_store
from meta_service.dotted import override
from meta_service.driver import Stopped
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.ownership import Owner
from meta_service.ppo import PPO
from meta_service.progress import print_event
from meta_service.tracking import MLflowTracker, State

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk without room is nobody's bug


def drive(run: str, overrides: Sequence[str], test: bool) -> int:
    """Trains and tests the run, or only tests it; returns the exit code. A mistake is told as an event."""
    code = as_driver(run, lambda owner: _drive(run, overrides, test, owner))
    return 0 if test and code == INTERRUPTED else code


def as_driver(run: str, work: Callable[[Owner], State]) -> int:
    """Does the work of a run's one driver; returns the exit code. A mistake is told as an event."""
    try:
        SPOOL.mkdir(parents=True, exist_ok=True)
        with FileLock(SPOOL / f"{run}.lock", timeout=0), owned(run) as owner:
            state = work(owner)
    except Timeout:
        print_event("error", {"text": f"another driver of {run} is at work on this machine; let it end, or stop it"})
        return 1
    except UserError as error:
        print_event("error", {"text": str(error)})
        return 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        print_event("error", {"text": f"{error.filename or SPOOL}: {error.strerror}; make room, then `make resume`"})
        return 1
    return 0 if state == "FINISHED" else INTERRUPTED


@contextmanager
def owned(run: str) -> Iterator[Owner]:
    """The run is this process's, on whatever machine another may try; asks for its file lock to be held."""
    runs = Runs(open_store(os.environ["ARTIFACT_ROOT"]))
    runs.job(run)  # there is such a run
    owner = Owner.take(runs.store(run), place(), say)
    try:
        yield owner
    finally:
        owner.release()


def _drive(run: str, overrides: Sequence[str], test: bool, owner: Owner) -> State:
    runs = Runs(open_store(os.environ["ARTIFACT_ROOT"]))
    store, job = runs.store(run), override(runs.job(run), overrides)
    data = job.prepare()
    runs.check_data(run, data)
    tracker = MLflowTracker.start(
        os.environ["MLFLOW_TRACKING_URI"],
        experiment=job.name,
        run_name=run,
        run_id=runs.mlflow_run_id(run),
        spool=SPOOL / run,
        tags={} if test else provenance(job, data) | {"meta.run": run, "meta.artifacts": store.address()},
        say=say,
    )
    state: State = "FAILED"
    with stopping() as should_stop:
        try:
            with ExitStack() as stack:
                with should_stop.abandoning():  # a cluster that is full lets its workers wait
                    pool = impatient(stack.enter_context(pool_of(job, run=run)), should_stop)
                    should_stop.listen()
                ppo = _ppo(job, should_stop)
                if test:
                    folder = f"tests/{time.strftime('%Y%m%d-%H%M%S')}" if overrides else runner.REPORT
                    state = runner.retest(job, store, tracker, pool, print_event, should_stop, folder, ppo)
                else:
                    rescue = open_store(str(SPOOL / f"{run}.rescued"))
                    state = runner.run(job, store, tracker, pool, print_event, should_stop, rescue, ppo, owner)
        except Stopped:  # before there was anything to keep
            state = "KILLED"
        finally:
            if owner.lost:
                tracker.leave()
            tracker.end("KILLED" if should_stop() and state == "FAILED" else state)  # nobody waits long for the end
    return state


def provenance(job: JobSpec, data: str) -> dict[str, str]:
    """What has to be the same for the same result."""
    lock = (ROOT / "requirements.lock").read_bytes()
    return {
        "meta.revision": os.environ.get("META_REVISION", ""),
        "meta.lock_sha256": hashlib.sha256(lock).hexdigest(),
        "meta.data_sha256": data,
        "meta.seed": str(job.seed),
    }


def _ppo(job: JobSpec, should_stop: Stopping) -> PPO | None:
    """RLlib's, where there is a Ray and something to train by it."""
    if job.resources.workers == 0 or all(baseline.trainer != "rllib" for baseline in job.baselines):
        return None
    from cluster.rllib import train  # takes seconds to import

    return impatient_ppo(train, should_stop)
