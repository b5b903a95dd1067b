"""One block of a run, computed in this process: to see why a worker fails at it."""

import time

import torch
from rich.console import Console

from cluster.commands import up
from cluster.question import Question, place_of
from cluster.runs import Runs
from meta_service.artifacts import open_store
from meta_service.checkpoint import Checkpoints
from meta_service.episode import Split
from meta_service.errors import UserError
from meta_service.job import Evaluation, JobSpec
from meta_service.params import norm
from meta_service.pool import learner_of


def compute(out: Console, run: str | None, number: int, evaluation: str | None, split: Split) -> None:
    """Computes a block of the run's next outer step, or of an evaluation on a split, and says what it comes to.

    theta is the latest checkpoint's; for test tasks the best one's. What happens to a worker at it happens here, too.
    """
    runs = Runs(open_store(up(out, ray=False).artifacts))
    run = runs.choose(run)
    if runs.is_sweep(run):
        raise UserError(f"{run} is a sweep, and its trials have no blocks that are kept; name a run")
    job, checkpoints = runs.job(run), Checkpoints(runs.store(run), say=out.print)
    asked = _evaluation(job, evaluation) if evaluation else None
    state = (checkpoints.best() if asked and split == "test" else None) or checkpoints.latest() or job.init()
    blocks = job.blocks_of(asked, split) if asked else job.blocks("train", state.iteration, job.meta_batch_size)
    if not 0 <= number < len(blocks):
        raise UserError(f"--block: one of 0 to {len(blocks) - 1} is expected, {number} came")
    seeds = blocks[number]
    question = Question("", "", state.params, step=state.iteration + 1, asker=(asked, split) if asked else None)
    out.print(f"{place_of(job, question, number, seeds)}\ntheta of iteration {state.iteration:,}", highlight=False)

    learner = learner_of(job, "cuda" if job.resources.gpus_per_worker and torch.cuda.is_available() else "cpu")
    start = time.monotonic()
    if asked:
        for inner_lr in asked.inner_lrs or (job.algorithm.inner_lr,):
            curve = learner.curves(state.params, seeds, split, asked, inner_lr).mean(0)
            values = " ".join(f"{value:.4g}" for value in curve)
            out.print(f"{job.tasks.metric_name} after 0, 1, ... steps of {inner_lr:g}: {values}", highlight=False)
    else:
        found = learner.meta_gradient(state.params, seeds).mean()
        out.print(f"loss {found.loss:.6g}, norm of the meta-gradient {norm(found.grads):.6g}", highlight=False)
    out.print(f"computed in {time.monotonic() - start:.2f} s", highlight=False)


def _evaluation(job: JobSpec, name: str) -> Evaluation:
    found = {evaluation.name: evaluation for evaluation in (job.validation, *job.evaluations)}
    if name not in found:
        raise UserError(f"--evaluation: one of {', '.join(found)} is expected, '{name}' came")
    return found[name]
