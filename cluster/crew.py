"""Who does the blocks: as many actors as the job asks for, whatever becomes of them."""

import itertools
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util import get_current_placement_group

from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.params import Params

MAX_FAILED_STARTS = 3  # one after the other; then it is not the nodes' fault


class Member:
    """One actor."""

    def __init__(self, number: int, actor: Any) -> None:
        self.number, self.actor = number, actor


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
        self._failed_starts = 0
        self._uncompiled: str | None = None  # why the first worker's passes are not compiled, or ""
        for _ in range(resources.workers):
            self.start()

    def start(self) -> None:
        """Asks for one more."""
        member = Member(next(self._numbers), self._actor.remote(*self._arguments))
        self.members.append(member)
        self.starting[member.actor.ready.remote()] = member

    def replace(self, member: Member) -> None:
        """Lets go of a lost one, and asks for another in its place."""
        ray.kill(member.actor)  # it may only seem dead, and still hold its CPU
        self.members.remove(member)
        self.start()

    def welcome(self, ref: Any) -> Member | None:
        """The one that says it is ready; None if it was lost on the way, and another one is asked for."""
        member = self.starting.pop(ref)
        try:
            uncompiled = ray.get(ref)
        except (RayActorError, RayTaskError) as error:
            reason = str(error).strip().splitlines()[-1].removeprefix("meta_service.errors.UserError: ")
            self._failed_starts += 1
            if "UserError" in str(error) or self._failed_starts >= MAX_FAILED_STARTS:
                raise UserError(f"a worker could not start: {reason}") from error
            self.say(f"a worker could not start ({reason}); another one is tried")
            self.replace(member)
            return None
        self._failed_starts = 0
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
