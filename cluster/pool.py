"""The blocks on a Ray cluster: stateless actors, and a loop that asks for lost blocks again."""

import gc
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.util import get_current_placement_group
from torch.func import grad

from cluster.policy_objective import Answer, Question, RayPolicyObjective, answer
from meta_service.adjoint import native
from meta_service.episode import Split
from meta_service.errors import UserError
from meta_service.job import Evaluation, JobSpec
from meta_service.objective import MetaGradient, Objective
from meta_service.params import Params, flatten, unflatten
from meta_service.policy_learner import PolicyLearner
from meta_service.pool import Blocks, add_in_order, learner_of

INLINE_BYTES = 100_000  # up to here Ray sends an argument along with the call, which is faster than its object store
MAX_DEATHS = 3  # a block that kills this many workers is itself to blame
PATIENCE_S = 20.0  # then a pool without a single worker says what it is waiting for


class TaskWorker:
    """An actor around a Learner: theta comes and meta-gradients go as one flat vector."""

    def __init__(self, job: JobSpec, like: Params) -> None:
        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self.learner = learner_of(job, device)
        self.like = {name: value.to(device) for name, value in like.items()}

    def ready(self) -> str:
        """Answers once the worker is up, its data are there, and what torch imports at its first gradient is loaded.

        Why its passes are not the compiled ones, or "".
        """
        grad(torch.sum)(torch.zeros(1))
        reason = native.missing()
        gc.freeze()  # Ray has the garbage collected again and again; what is loaded by now never is any
        return reason

    def meta_gradient(self, theta: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, float]:
        result = self.learner.meta_gradient(unflatten(theta, self.like), seeds)
        return flatten(result.grads), result.loss

    def answer(
        self, question: Question, theta: np.ndarray, seeds: Sequence[int], other: np.ndarray | None = None
    ) -> Answer:
        """What an outer optimiser of policies asks; the trajectories stay here in between."""
        assert isinstance(self.learner, PolicyLearner)
        return answer(self.learner, self.like, question, theta, seeds, other)

    def curves(
        self, theta: np.ndarray, seeds: Sequence[int], split: Split, evaluation: Evaluation, inner_lr: float | None
    ) -> np.ndarray:
        return self.learner.curves(unflatten(theta, self.like), seeds, split, evaluation, inner_lr)


class RayPool:
    """`resources.workers` actors. A worker that dies is replaced, and its block is asked for again."""

    worker = TaskWorker
    """What the actors are."""

    def __init__(self, job: JobSpec, like: Params, say: Callable[[str], None]) -> None:
        self.job, self.like, self.say = job, like, say
        torch.set_num_threads(1)  # the driver's own sums are small; more threads would spin on the workers' cores
        if not ray.is_initialized():
            ray.init(logging_level=logging.WARNING)
        resources = job.resources
        # no retries by Ray itself: which block is asked for again is decided in one place, below
        self._actor = ray.remote(self.worker).options(
            num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, max_restarts=0, max_task_retries=0
        )
        self._arguments = (ray.put(job), ray.put(like))
        self._idle: deque[Any] = deque()
        self._starting: dict[Any, Any] = {}
        self._failed_starts = 0
        self._uncompiled: str | None = None  # why the first worker's passes are not compiled, or ""
        self._workers: list[Any] = []  # all that were ever started, so that none is left
        for _ in range(resources.workers):
            self._start()

    def objective(self, blocks: Blocks) -> Objective:
        return RayPolicyObjective(self, blocks, _shared) if self.job.explores else _RayObjective(self, blocks)

    def curves(
        self, params: Params, blocks: Blocks, split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        theta = _shared(params)
        return np.concatenate(
            self.map(lambda worker, seeds: worker.curves.remote(theta, seeds, split, evaluation, inner_lr), blocks)
        )

    def map(
        self, call: Callable[[Any, Sequence[int]], Any], blocks: Blocks, homes: dict[int, Any] | None = None
    ) -> list[Any]:
        """`call(worker, block)` of every block, in block order, each by whichever worker is free.

        homes: the worker that a block has to wait for while it lives, as it keeps something of it; is filled in here.
        """
        homes = {} if homes is None else homes
        waiting = deque(range(len(blocks)))
        running: dict[Any, tuple[int, Any]] = {}
        results: dict[int, Any] = {}
        deaths: Counter[int] = Counter()
        while len(results) < len(blocks):
            while match := self._match(waiting, homes):
                block, worker = match
                running[call(worker, blocks[block])] = (block, worker)
            done, _ = ray.wait([*running, *self._starting], timeout=PATIENCE_S)
            if not done and not running:
                self._say_what_is_missing()
            for ref in done:
                if ref in self._starting:
                    self._welcome(ref)
                    continue
                block, worker = running.pop(ref)
                try:
                    results[block] = ray.get(ref)
                    self._idle.append(worker)
                    homes[block] = worker
                except (RayActorError, ObjectLostError) as error:
                    ray.kill(worker)  # it may only seem dead, and still hold its CPU
                    deaths[block] += 1
                    if deaths[block] >= MAX_DEATHS:
                        raise UserError(
                            f"the block with the task seeds {list(blocks[block])} killed {MAX_DEATHS} workers, "
                            f"the last one so: {_first_line(error)}; more memory per worker or fewer "
                            "tasks_per_block may help"
                        ) from error
                    self.say(f"a worker died ({_first_line(error)}); it is replaced and its block computed again")
                    for orphan in [other for other, home in homes.items() if home is worker]:
                        del homes[orphan]
                    waiting.appendleft(block)
                    self._start()
                except RayTaskError as error:
                    raise _cause(error) from error
        return [results[block] for block in range(len(blocks))]

    def _match(self, waiting: deque[int], homes: dict[int, Any]) -> tuple[int, Any] | None:
        """A free worker and the first block it may take, taken out of where they wait."""
        for worker in self._idle:
            for block in waiting:
                if homes.get(block, worker) is worker:
                    self._idle.remove(worker)
                    waiting.remove(block)
                    return block, worker
        return None

    def close(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            ray.kill(worker)

    def _start(self) -> None:
        worker: Any = self._actor.remote(*self._arguments)
        self._workers.append(worker)
        self._starting[worker.ready.remote()] = worker

    def _welcome(self, ref: Any) -> None:
        worker = self._starting.pop(ref)
        try:
            uncompiled = ray.get(ref)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayActorError as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("meta_service.errors.UserError: ")
            self._failed_starts += 1
            if "UserError" in str(error) or self._failed_starts >= MAX_DEATHS:
                raise UserError(f"a worker could not start: {reason}") from error
            self.say(f"a worker could not start ({reason}); another one is tried")
            self._start()
            return
        if self._uncompiled is None:
            self._uncompiled = uncompiled
            if uncompiled:
                self.say(f"without compiled loops ({uncompiled}) torch computes alone, more slowly")
        if bool(uncompiled) != bool(self._uncompiled):
            raise UserError(
                "workers that all compute by compiled loops, or none, were expected, since they round differently; "
                f"on one node they are missing: {uncompiled or self._uncompiled}; mend it, or set META_NATIVE=0 for all"
            )
        self._idle.append(worker)

    def _say_what_is_missing(self) -> None:
        asked = {"CPU": self.job.resources.cpus_per_worker, "GPU": self.job.resources.gpus_per_worker}
        if get_current_placement_group():
            return  # there is room: it was set aside for this pool
        free, whole = ray.available_resources(), ray.cluster_resources()
        for kind, amount in asked.items():
            if free.get(kind, 0) < amount:
                self.say(
                    f"waiting for a worker: it needs {amount:g} {kind}, {free.get(kind, 0):g} of the cluster's "
                    f"{whole.get(kind, 0):g} are free; end other runs, or change resources.{kind.lower()}s_per_worker"
                )


@dataclass(frozen=True)
class _RayObjective:
    pool: RayPool
    blocks: Blocks

    def gradient(self, params: Params) -> MetaGradient:
        theta = _shared(params)
        answers = self.pool.map(lambda worker, seeds: worker.meta_gradient.remote(theta, seeds), self.blocks)
        return add_in_order(
            [
                MetaGradient(unflatten(vector, params), loss, len(seeds))
                for (vector, loss), seeds in zip(answers, self.blocks, strict=True)
            ]
        )


def _shared(params: Params) -> Any:
    """theta as what a call can take: one copy on the cluster, however many blocks use it."""
    vector = flatten(params)
    return ray.put(vector) if vector.nbytes > INLINE_BYTES else vector


def _cause(error: RayTaskError) -> Exception:
    """The worker's own exception; a user's mistake stays one."""
    cause = error.cause
    return cause if isinstance(cause, UserError) else error


def _first_line(error: object) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
