"""The outer loop of meta-training: Algorithms 1 and 2 of the paper, lines 2 to 10."""

from collections.abc import Callable
from typing import Protocol

from meta_service import history
from meta_service.errors import UserError
from meta_service.evaluation import AdaptationCurve, evaluate
from meta_service.job import JobSpec
from meta_service.objective import MetaGradient
from meta_service.params import is_finite, sha256
from meta_service.pool import Blocks, WorkerPool
from meta_service.state import MetaState


class Stopped(Exception):
    """Somebody asked the run to end, and nothing is lost if it does."""


class Enough(Exception):
    """An observer has seen enough: the run ends here, and ends well."""


class Diverged(UserError):
    """A meta-gradient with entries that are not finite; theta is as it was before."""


class Observer(Protocol):
    """Told of everything that happens; changes nothing."""

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        """After an outer step, with the state it led to."""

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None:
        """After a look at the validation tasks."""


def meta_train(
    job: JobSpec,
    pool: WorkerPool,
    state: MetaState,
    observer: Observer,
    should_stop: Callable[[], bool] = lambda: False,
) -> MetaState:
    """From `state` to `job.iterations` outer steps, or until `should_stop()`.

    The result is a function of job and state alone. Raises Diverged at the first meta-gradient that is not finite.
    """
    if history.wanted():
        history.record("resumed", step=state.iteration, state=state.sha256(), theta=sha256(state.params))
    while state.iteration < job.iterations and not should_stop():
        if state.iteration % job.validate_every == 0:
            observer.validated(state, evaluate(job, pool, state.params, job.validation, "validation"))
        blocks = job.blocks("train", state.iteration, job.meta_batch_size)
        following, mean = job.outer.step(state, pool.objective(blocks, step=state.iteration + 1))
        if not all(map(is_finite, (mean.grads, following.params, following.optimizer))):
            raise Diverged(_divergence(job, state, blocks))
        if history.wanted():
            digests = {"state": following.sha256(), "theta": sha256(following.params), "before": state.sha256()}
            history.record("updated", step=following.iteration, blocks=len(blocks), **digests)
        state = following
        observer.stepped(state, mean)
    if state.iteration >= job.iterations:
        observer.validated(state, evaluate(job, pool, state.params, job.validation, "validation"))
    return state


def _divergence(job: JobSpec, state: MetaState, blocks: Blocks) -> str:
    return (
        f"the meta-gradient of job {job.name} (seed {job.seed}) at iteration {state.iteration} is not finite, first "
        f"task seed {blocks[0][0]}; theta is kept as it was before; try a smaller algorithm.inner_lr "
        f"({job.algorithm.inner_lr}) or a smaller outer step ({job.outer})"
    )
