"""What is asked of the workers about every block, and in which words it is told."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from meta_service.episode import Split
from meta_service.job import Evaluation, JobSpec
from meta_service.params import Params


class Question(NamedTuple):
    """The same for all blocks of a round."""

    method: str
    """The worker's, called with theta, the block's seeds and `more`."""
    kind: str
    """What it is about, in a word or two; answers of one kind take about as long."""
    params: Params
    """theta."""
    more: tuple[Any, ...] = ()
    step: int | None = None
    """The outer step that is being made, counted from 1; None outside of training."""
    asker: tuple[Evaluation, Split] | None = None
    """The evaluation it is for."""


class Ticket(NamedTuple):
    """Which call it is: goes to the worker and comes back with the result, so that no other one can be taken for it."""

    job: str
    """A digest of the job with all its settings."""
    step: int | None
    theta: str
    """SHA-256 of theta."""
    round: int
    """Counts the questions of this driver."""
    block: int


def place_of(job: JobSpec, question: Question, block: int, seeds: Sequence[int]) -> str:
    """Where in a job a block is."""
    where = "outside of training" if question.step is None else f"outer step {question.step:,}"
    if question.asker:
        where = f"evaluation {question.asker[0].name}"
        block = _index(job, question, seeds)
    return f"job {job.name} (seed {job.seed}), {where}, block {block} with the task seeds {list(seeds)}"


def again(job: JobSpec, run: str, question: Question, block: int, seeds: Sequence[int]) -> str:
    """How to compute the block again, in one process without Ray, as the end of a sentence; "" where no run has it."""
    if not run:
        return ""
    of_what = ""
    if question.asker:
        evaluation, split = question.asker
        block, of_what = _index(job, question, seeds), f" --evaluation {evaluation.name} --split {split}"
    return f"; `python -m jobs block {run} --block {block}{of_what}` computes it again"


def _index(job: JobSpec, question: Question, seeds: Sequence[int]) -> int:
    """Of a block among all of its evaluation, which asks for some at a time."""
    assert question.asker
    return job.blocks_of(*question.asker).index(list(seeds))
