"""The training of a run: from its latest checkpoint on, and whatever ends it, the last good state is kept."""

from collections.abc import Callable

from meta_service.artifacts import ArtifactStore, StorageError
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import flatten
from meta_service.driver import Enough, Observer, Stopped, meta_train
from meta_service.job import JobSpec
from meta_service.journal import Journal
from meta_service.ownership import Owner
from meta_service.pool import WorkerPool
from meta_service.progress import Emit
from meta_service.state import MetaState
from meta_service.tracking import State, Tracker

STOPPING_S = 2.0  # how long the store may take for what a stopped run leaves: somebody waits for the process to go


def train(
    job: JobSpec,
    store: ArtifactStore,
    tracker: Tracker,
    pool: WorkerPool,
    emit: Emit,
    should_stop: Callable[[], bool],
    rescue: ArtifactStore,
    then: Callable[[MetaState, Journal], None],
    watch: Callable[[Journal], Observer] = lambda journal: journal,
    start: MetaState | None = None,
    owner: Owner | None = None,
) -> State:
    """The training of `run`, whatever comes after it.

    `watch` gives the observer in the journal's place; Enough from it ends the training well, before its time. Where
    there is no checkpoint yet the first outer step is made from `start`, if it is given. Raises Superseded where
    `owner` is not the run's owner any more.
    """
    checkpoints = Checkpoints(store, lambda text: emit("say", {"text": text}), owner=owner, rescue=rescue)
    journal = Journal(job, store, tracker, checkpoints, emit, rescue)
    found = checkpoints.latest()
    state = found or start or job.init()
    journal.status("RUNNING", state.iteration)
    if found and state.iteration:
        emit("say", {"text": f"resumed at iteration {state.iteration:,} of {job.iterations:,}"})
    tracker.params({name: value for name, value in flatten(job).items() if not name.startswith("resources.")})
    end: State = "FAILED"
    try:
        state = meta_train(job, pool, state, watch(journal), should_stop)
        if state.iteration < job.iterations:
            raise Stopped
        checkpoints.save_async(state)
        then(state, journal)
        end = "FINISHED"
    except Enough:
        end = "FINISHED"
    except Stopped:
        end = "KILLED"
        reached = (journal.state or state).iteration
        emit("say", {"text": f"stopped at iteration {reached:,} of {job.iterations:,}; the checkpoint is kept"})
    finally:
        # where training failed, the last good one; the run of another driver is not touched
        if not (owner and owner.lost):
            _keep(journal, journal.state or state, end, emit, rescue)
    return end


def _keep(journal: Journal, state: MetaState, end: State, emit: Emit, rescue: ArtifactStore) -> None:
    """Stores the state a run ends with, and where it is. Raises StorageError and Superseded."""
    checkpoints, timeout = journal.checkpoints, STOPPING_S if end == "KILLED" else None
    failure: StorageError | None = None
    try:
        checkpoints.save(state, timeout=timeout)
        checkpoints.forget()
    except StorageError as error:
        failure = error
        if checkpoints.local == state.iteration:
            emit("say", {"text": f"iteration {state.iteration:,} is kept in {rescue.address()}, for `make resume`"})
    journal.status("STOPPED" if end == "KILLED" else end, state.iteration)
    journal.close(timeout and (0.5 if failure else timeout))
    if failure:
        raise failure
