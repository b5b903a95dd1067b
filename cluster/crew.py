"""Who does the blocks: as many actors as the job asks for, whatever becomes of them."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import get_current_placement_group

from cluster.deaths import blame_of
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.params import Params

STARTING = 10  # times `resources.patience_s`: what a start may take, and twice as long after each that took longer
MAX_FAILURES = 3  # to start in one place, one after the other; then it is not the nodes' fault


class Member:
    """One actor."""

    def __init__(self, number: int, actor: Any, failures: float) -> None:
        """failures: how often one in its place failed to start since one was at work, as far as it was to blame."""
        self.number, self.actor, self.failures, self.since = number, actor, failures, time.monotonic()


class Crew:
    """`resources.workers` actors. One that is lost is asked for again; it comes when there is room on some node."""

    def __init__(self, job: JobSpec, like: Params, worker: type, say: Callable[[str], None]) -> None:
        resources = self.resources = job.resources
        self.say = say
        # no retries by Ray itself: which block is asked for again is decided in one place, `blocks.py`
        self._actor: Any = ray.remote(worker).options(
            num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, max_restarts=0, max_task_retries=0
        )
        self._arguments = (ray.put(job), ray.put(like))
        self._numbers = itertools.count()
        self.starting: dict[Any, Member] = {}
        """By the reference that tells when it is ready."""
        self.members: list[Member] = []
        """Ready or starting: all there are, so that none is left."""
        self._start_s = STARTING * resources.patience_s
        self._uncompiled: str | None = None  # why the first worker's passes are not compiled, or ""
        for _ in range(resources.workers):
            self.start()

    def start(self, failures: float = 0.0) -> None:
        """Asks for one more."""
        member = Member(next(self._numbers), self._actor.remote(*self._arguments), failures)
        self.members.append(member)
        self.starting[member.actor.ready.remote()] = member

    def replace(self, member: Member, failures: float = 0.0) -> None:
        """Lets go of a lost one, and asks for another in its place."""
        ray.kill(member.actor)  # it may only seem dead, and still hold its CPU
        self.members.remove(member)
        self.start(failures)

    def welcome(self, ref: Any) -> Member | None:
        """The one that says it is ready; None if it was lost on the way, and another one is asked for."""
        member = self.starting.pop(ref)
        try:
            uncompiled = ray.get(ref)
        except (RayActorError, RayTaskError) as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("meta_service.errors.UserError: ")
            failures = member.failures + blame_of(error)
            if "UserError" in str(error) or failures >= MAX_FAILURES:
                raise UserError(f"a worker could not start: {reason}") from error
            self.say(f"a worker could not start ({reason}); another one is tried")
            self.replace(member, failures)
            return None
        if self._uncompiled is None:
            self._uncompiled = uncompiled
            if uncompiled:
                self.say(f"without compiled loops ({uncompiled}) torch computes alone, more slowly")
        if bool(uncompiled) != bool(self._uncompiled):
            raise UserError(
                "workers that all compute by compiled loops, or none, were expected, since they round differently; "
                f"on one node they are missing: {uncompiled or self._uncompiled}; mend it, or set META_NATIVE=0 for all"
            )
        return member

    def replace_hung(self) -> None:
        """Lets go of those that do not come to their end with starting, and of those for which there is no room."""
        late = {ref: m for ref, m in self.starting.items() if time.monotonic() - m.since > self._start_s}
        for ref, member in late.items():
            del self.starting[ref]
            self.replace(member, member.failures)
        if late:
            self._start_s *= 2

    def say_what_is_missing(self) -> None:
        """Why nobody is there to work."""
        asked = {"CPU": self.resources.cpus_per_worker, "GPU": self.resources.gpus_per_worker}
        if get_current_placement_group():
            return  # there is room: it was set aside for these
        free, whole = ray.available_resources(), ray.cluster_resources()
        for kind, amount in asked.items():
            if free.get(kind, 0) < amount:
                self.say(
                    f"waiting for a worker: it needs {amount:g} {kind}, {free.get(kind, 0):g} of the cluster's "
                    f"{whole.get(kind, 0):g} are free; end other runs, or change resources.{kind.lower()}s_per_worker"
                )

    def close(self) -> None:
        """Ends them all."""
        for member in self.members:
            ray.kill(member.actor)
