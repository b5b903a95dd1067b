"""The blocks on a Ray cluster: asked of whoever is free, again where an answer is lost or late, taken once."""

import hashlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import ray
import torch
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from cluster.ahead import Ahead
from cluster.blocks import Round
from cluster.crew import Crew, Member
from cluster.deaths import MAX_DEATHS, blame_of, reason_of
from cluster.pace import SLOW, Pace
from cluster.policy_objective import GATHERING, RayPolicyObjective
from cluster.question import Question, Ticket, again, place_of
from cluster.worker import TaskWorker
from meta_service import history
from meta_service.allocator import keep_freed_memory
from meta_service.episode import Split
from meta_service.errors import UserError
from meta_service.job import Evaluation, JobSpec
from meta_service.objective import MetaGradient, Objective
from meta_service.params import Params, flatten, sha256, unflatten
from meta_service.pool import Blocks

INLINE_BYTES = 0.97 * int(os.environ.get("RAY_max_direct_call_object_size", 102_400))  # noqa: SIM112 - Ray's, as it is
"""Up to here Ray sends an argument along with the call, which is faster than its object store; a header comes to it."""

AHEAD_S = 0.02  # where blocks take less, a worker has drawn the next one sooner than it is told to
PATIENCE_S = 20.0  # then a pool without a single worker says what it is waiting for


class _Call(NamedTuple):
    """One that is out."""

    ticket: Ticket
    kind: str
    member: Member
    since: float


class RayPool:
    """`resources.workers` actors, and the calls that are out: one a worker, of this round or of an earlier one."""

    worker = TaskWorker
    """What the actors are."""

    def __init__(self, job: JobSpec, like: Params, say: Callable[[str], None], run: str = "") -> None:
        """run: the name by which the command line knows what is computed here; "" where it does not."""
        self.job, self.say, self.run = job, say, run
        torch.set_num_threads(1)  # the driver's own sums are small; more threads would spin on the workers' cores
        keep_freed_memory()  # halves the time of the outer update
        if not ray.is_initialized():
            ray.init(logging_level=logging.WARNING)
        self.crew = Crew(job, like, self.worker, say)
        self.pace = Pace(job.resources.patience_s)
        self._ahead = Ahead(job)
        self._digest = hashlib.sha256(repr(job).encode()).hexdigest()
        self._rounds = itertools.count()
        self._free: list[Member] = []
        self._out: dict[Any, _Call] = {}

    def objective(self, blocks: Blocks, step: int | None = None) -> Objective:
        return RayPolicyObjective(self, blocks, step) if self.job.explores else _RayObjective(self, blocks, step)

    def curves(
        self, params: Params, blocks: Blocks, split: Split, evaluation: Evaluation, inner_lr: float | None = None
    ) -> np.ndarray:
        more = (split, evaluation, inner_lr)
        question = Question("curves", f"curves of {evaluation.name}", params, more, asker=(evaluation, split))
        return np.concatenate(self.ask(question, blocks))

    def close(self) -> None:
        """Ends the workers."""
        self.crew.close()

    def ask(self, question: Question, blocks: Blocks, homes: dict[int, Any] | None = None) -> list[Any]:
        """The answers of all blocks, in block order.

        homes: who keeps something of a block from an earlier question about the same theta; is brought up to date.
        """
        arguments = [shared(part) for part in (question.params, *question.more)]
        ticket = Ticket(self._digest, question.step, sha256(question.params), next(self._rounds), 0)
        round_ = self._round(question, blocks, homes)
        while not round_.complete:
            now = time.monotonic()
            while found := round_.next(self._free, now):
                block, member = found
                round_.called(block, member, now)
                self._call(question, ticket._replace(block=block), member, arguments, blocks[block], now)
            if not round_.waiting:
                self._draw_ahead(question)
            for ref in self._wait(round_, now):
                if ref in self.crew.starting:
                    self._free += filter(None, [self.crew.welcome(ref)])
                else:
                    self._receive(self._out.pop(ref), ref, round_, question, blocks)
            self._replace_hung(round_)
        self._draw_ahead(question)
        self.pace.forgive()
        return [round_.answers[block] for block in range(len(blocks))]

    def _round(self, question: Question, blocks: Blocks, homes: dict[int, Any] | None) -> Round:
        moving_s = None if homes is None else self.pace.typical(GATHERING) or 0.0
        homes = self._ahead.homes(question.step) if homes is None else homes
        for block in [block for block, home in homes.items() if home not in self._free]:
            del homes[block]  # it died, or is still at something of an earlier round, who knows for how long
        return Round(len(blocks), question.kind, self.pace, homes, moving_s)

    def _call(
        self, question: Question, ticket: Ticket, member: Member, arguments: list[Any], seeds: Sequence[int], now: float
    ) -> None:
        theta, *more = arguments
        ref = member.actor.ask.remote(ticket, question.method, theta, seeds, *more)
        self._free.remove(member)
        self._out[ref] = _Call(ticket, question.kind, member, now)
        _record("issued", self._out[ref])

    def _wait(self, round_: Round, now: float) -> list[Any]:
        """What has come, at the latest when there may be something else to do."""
        until = [now + PATIENCE_S, *(call.since + self.pace.hung_after(call.kind) for call in self._out.values())]
        if self._free:
            until.append(now + round_.wake_s(now))
        done, _ = ray.wait([*self._out, *self.crew.starting], timeout=max(0.0, min(until) - now))
        if not done and not self._out:
            self.crew.say_what_is_missing()
        return list(done)

    def _receive(self, call: _Call, ref: Any, round_: Round, question: Question, blocks: Blocks) -> None:
        """Takes an answer, or drops it; a block that came to nothing is computed again, or ends the run."""
        ticket, answer = None, None
        try:
            ticket, answer = ray.get(ref)
        except (RayActorError, ObjectLostError) as error:
            self._lost(call, error, round_, question, blocks)
            return
        except RayTaskError as error:
            if not isinstance(error.cause, UserError):
                self._lost(call, error, round_, question, blocks)  # out of memory, perhaps: another has more luck
                return
            if round_.needs(call.member):
                raise error.cause from error
        self._free.append(call.member)
        sound = ticket == call.ticket and not self._doubts(call, answer, round_)
        taken = sound and round_.answered(call.member, answer)
        if not taken:
            round_.came_to_nothing(call.member)
        self.pace.took(call.kind, call.member, time.monotonic() - call.since, taken)
        _record("accepted" if taken else "dropped", call)

    def _draw_ahead(self, question: Question) -> None:
        """Workers without work draw tasks of the next step, where that is worth a call."""
        if question.step and not self.job.explores and (self.pace.typical(question.kind) or 0) > AHEAD_S:
            self._ahead.offer(question.step, (m for m in self._free if self.pace.slowness(m) < SLOW))

    def _doubts(self, call: _Call, answer: Any, round_: Round) -> bool:
        """Whether the answer is not finite for the first time: what is computed twice and is so both times, is so."""
        if _is_finite(answer) or not round_.doubted(call.member):
            return False
        self.say("a worker's answer is not finite; its block is computed again")
        return True

    def _lost(self, call: _Call, error: Exception, round_: Round, question: Question, blocks: Blocks) -> None:
        """A worker died, or failed: its block is asked for again, and blamed."""
        reason = reason_of(error)
        block = round_.died(call.member, blame_of(error))
        if block is not None and round_.deaths[block] >= MAX_DEATHS:
            if isinstance(error, RayTaskError):
                place = place_of(self.job, question, block, blocks[block])
                error.add_note(f"This was in {place}{again(self.job, self.run, question, block, blocks[block])}")
                raise error
            raise UserError(
                f"{place_of(self.job, question, block, blocks[block])} killed {MAX_DEATHS} workers, the last one so: "
                f"{reason}; more memory per worker or fewer tasks_per_block may help"
                f"{again(self.job, self.run, question, block, blocks[block])}"
            ) from error
        what = "failed" if isinstance(error, RayTaskError) else "died"
        self.say(f"a worker {what} ({reason}); it is replaced and its block computed again")
        self.crew.replace(call.member)

    def _replace_hung(self, round_: Round) -> None:
        """Whoever has not answered for far too long is killed, whether or not others have done its block meanwhile."""
        self.crew.replace_hung()
        now = time.monotonic()
        for ref, call in list(self._out.items()):
            if now - call.since > self.pace.hung_after(call.kind):
                del self._out[ref]
                round_.died(call.member, blame=0)
                self.pace.hung(call.kind)
                waited = f"{now - call.since:.0f} s"
                self.say(f"a worker has not answered for {waited}; it is replaced and its block computed again")
                self.crew.replace(call.member)


@dataclass(frozen=True)
class _RayObjective:
    pool: RayPool
    blocks: Blocks
    step: int | None

    def gradient(self, params: Params) -> MetaGradient:
        answers = self.pool.ask(Question("meta_gradient", "gradient", params, step=self.step), self.blocks)
        vectors, losses = zip(*answers, strict=True)
        # as vectors, in block order: the same sum as `add_in_order`'s, with fewer and larger steps
        return MetaGradient(unflatten(reduce(np.add, vectors), params), sum(losses), sum(map(len, self.blocks)))


def shared(argument: Any) -> Any:
    """Parameters as what a call can take: a vector, or one copy on the cluster if it is large. Others as they are."""
    if not isinstance(argument, dict):
        return argument
    vector = flatten(argument)
    return ray.put(vector) if vector.nbytes > INLINE_BYTES else vector


def _is_finite(answer: Any) -> bool:
    """Of what a step is made of; a curve, or the surrogate of a step that is too long, may have other values."""
    if not isinstance(answer, tuple) or answer[0] is None:
        return True
    return all(bool(np.isfinite(part).all()) for part in answer if isinstance(part, float | np.ndarray))


def _record(kind: Literal["issued", "accepted", "dropped"], call: _Call) -> None:
    ticket = call.ticket
    if history.wanted():
        history.record(
            kind,
            step=ticket.step,
            theta=ticket.theta,
            round=ticket.round,
            question=call.kind,
            block=ticket.block,
            worker=call.member.number,
        )
