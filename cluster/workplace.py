"""What a driver works with: its workers, a folder for what is still to be delivered, and a line to whoever follows."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meta_service.job import JobSpec
from meta_service.params import Params
from meta_service.pool import LocalPool, WorkerPool
from meta_service.progress import print_event

SPOOL = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "meta_service" / "spool"


def place(folder: Path = SPOOL) -> str:
    """Names the spool's folder, and with it the file locks in it: who holds one knows that no other of it lives."""
    path = folder / "place"
    if not path.exists():
        draft = path.with_name(f"place.{uuid.uuid4().hex}")
        draft.write_text(uuid.uuid4().hex)
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text()


def say(text: str) -> None:
    """A line for whoever follows the run."""
    print_event("say", {"text": text})


@contextmanager
def pool_of(job: JobSpec, tell: Callable[[str], None] = say, run: str = "") -> Iterator[WorkerPool]:
    """The job's workers, for a while; `tell` hears what becomes of them. run: whose they are, if it is a run."""
    if job.resources.workers == 0:
        yield LocalPool.of(job)
        return
    from cluster.pool import RayPool  # without workers there need not be a Ray

    like: Params = job.init().params
    pool = RayPool(job, like, tell, run)
    try:
        yield pool
    finally:
        pool.close()
