"""The next outer step's tasks, drawn while this one is being ended: they are a function of seeds alone."""

from collections.abc import Iterable

from cluster.crew import Member
from meta_service.job import JobSpec


class Ahead:
    """Who has drawn which block of the next step: one each, so that little is kept and nobody is kept busy."""

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self._step = 0
        self._blocks: list[list[int]] = []
        self._homes: dict[int, Member] = {}

    def offer(self, step: int, free: Iterable[Member]) -> None:
        """Step `step` has no more work for these workers: they draw blocks of the next one, if there is one."""
        if self._step != step + 1:
            there_is_one = step < self.job.iterations
            self._blocks = self.job.blocks("train", step, self.job.meta_batch_size) if there_is_one else []
            self._step, self._homes = step + 1, {}
        for member in free:
            block = len(self._homes)
            if block < len(self._blocks) and member not in self._homes.values():
                self._homes[block] = member
                member.actor.prepare.remote(self._blocks[block])

    def homes(self, step: int | None) -> dict[int, Member]:
        """The workers that have drawn the step's blocks."""
        return dict(self._homes) if step == self._step else {}
