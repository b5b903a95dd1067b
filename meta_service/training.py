"""The training of a run: from its latest checkpoint on, and whatever ends it, the last good state is kept."""

from collections.abc import Callable

from meta_service.artifacts import ArtifactStore, StorageError
from meta_service.checkpoint import Checkpoints
from meta_service.dotted import flatten
from meta_service.driver import Enough, Observer, Stopped, meta_train
from meta_service.job import JobSpec
from meta_service.journal import Journal
from meta_service.pool import WorkerPool
from meta_service.progress import Emit
from meta_service.state import MetaState
from meta_service.tracking import State, Tracker


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
) -> State:
    """The training of `run`, whatever comes after it.

    `watch` gives the observer in the journal's place; Enough from it ends the training well, before its time. Where
    there is no checkpoint yet the first outer step is made from `start`, if it is given.
    """
    checkpoints = Checkpoints(store, say=lambda text: emit("say", {"text": text}))
    journal = Journal(job, store, tracker, checkpoints, emit)
    rescued = Checkpoints(rescue)
    found = [state for state in (checkpoints.latest(), rescued.latest()) if state]
    state = max(found, key=lambda state: state.iteration, default=None) or start or job.init()
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
        emit("say", {"text": f"stopped at iteration {state.iteration:,} of {job.iterations:,}; the checkpoint is kept"})
    finally:
        state = journal.state or state  # where training failed, the last good one
        try:
            checkpoints.save(state)
        except StorageError:
            rescued.save(state)
            emit("say", {"text": f"iteration {state.iteration:,} is kept in {rescue.address()}, for `make resume`"})
            raise
        finally:  # where the store is away, the other ends are still to be told
            journal.status("STOPPED" if end == "KILLED" else end, state.iteration)
            journal.close()
    return end
