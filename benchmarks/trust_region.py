"""How much of a trust-region step is signal: its gain on the tasks it was computed from, and on tasks it has not seen.

    python -m benchmarks.trust_region RUN                                      some minutes, on one core
    python -m benchmarks.trust_region RUN algorithm.gae_lambda=0.9 outer.cg_iterations=25

RUN is a policy's run: its name, address or MLflow run id. Each field of its job that is given is changed by itself, and
a row shows what it does at the same theta. A step that lowers the surrogate loss on its own trajectories and not on
others has fitted their noise: it costs divergence, and learns nothing. The columns:

    cosine      of the meta-gradients of two sets of tasks that have nothing in common
    first       the same of their first-order parts, the outer loss's gradients at the adapted parameters
    hessian     the same of the rest, alpha times the Hessian of the adaptation's loss times that gradient; and how long
                it is, in lengths of the first-order part
    gain        of the surrogate objective by one outer step, on its own tasks
    on others   the same step's on other tasks, with its standard error over blocks, and which share of the first it is
    by lvc      that again with `lvc` as the adaptation's loss, which knows that another theta would have gathered other
                trajectories; `loglik` does not, and may believe in steps that lead nowhere
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from meta_service.dotted import override
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.load import load
from meta_service.objective import Objective, PolicyObjective
from meta_service.params import Params, flatten
from meta_service.policies import Policy
from meta_service.pool import LocalPool
from meta_service.state import MetaState


class Mean(NamedTuple):
    """Over blocks, with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        return cls(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))))

    def __str__(self) -> str:
        return f"{self.value:8.5f} ± {self.error:.5f}"


class Seen(NamedTuple):
    """What one step did."""

    cosine: float
    first: float
    hessian: float
    length: float
    gain: float
    on_others: Mean
    by_lvc: Mean
    kl: float


def seen(job: JobSpec, params: Params, others: int) -> Seen:
    """One outer step of the job from params, judged on its own meta-batch and on `others` tasks more.

    Both are of training's stream, after all that training draws.
    """
    own_blocks = job.blocks("train", job.iterations, job.meta_batch_size)
    pool, blocks = LocalPool.of(job), job.blocks("train", job.iterations + 1, others)
    own, new = pool.objective(own_blocks), pool.objective(blocks)
    lvc = LocalPool.of(override(job, ["algorithm.estimator=lvc"]))
    g, h = (_gradient(tasks, params) for tasks in (own, new))
    first = LocalPool.of(override(job, ["algorithm.first_order=true"]))
    f, e = (_gradient(first.objective(tasks), params) for tasks in (own_blocks, blocks))
    following, step = job.outer.step(MetaState(0, params, {}), own)

    def gain(judge: LocalPool, block: list[int]) -> float:
        objective = judge.objective([block])
        assert isinstance(objective, PolicyObjective)
        before, after = (objective.value(params, at).mean().loss for at in (params, following.params))
        return before - after

    length = float(np.linalg.norm(g - f) / np.linalg.norm(f))
    on_others, by_lvc = (Mean.of([gain(judge, block) for block in blocks]) for judge in (pool, lvc))
    cosines = _cosine(g, h), _cosine(f, e), _cosine(g - f, h - e)
    return Seen(*cosines, length, step.facts["surrogate_gain"], on_others, by_lvc, step.facts["kl"])


def _gradient(objective: Objective, params: Params) -> np.ndarray:
    return flatten(objective.gradient(params).grads).astype(np.float64)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Not a number where one of them is 0, as the Hessian's part is at first order."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else math.nan


def main(arguments: Sequence[str]) -> int:
    """Prints a row for the run as it was and one for each change."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.trust_region", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("changes", metavar="FIELD=VALUE", nargs="*")
    parser.add_argument("--others", type=int, default=80, help="tasks the step has not seen, two blocks or more (80)")
    args = parser.parse_args(arguments)
    try:
        policy = load(args.run)
        if not isinstance(policy, Policy):
            raise UserError(f"{args.run}: a policy's run is expected, one of {policy.job.name} came")
        jobs = {"as it was": policy.job} | {change: override(policy.job, [change]) for change in args.changes}
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    width = max(map(len, jobs))
    head = "cosine  first  hessian (length)     gain           on others  share              by lvc  divergence"
    print(f"{'':{width}}  {head}")
    for title, job in jobs.items():
        found = seen(job, policy.params, args.others)
        share = found.on_others.value / found.gain if found.gain else 0.0
        cosines = f"{found.cosine:6.2f} {found.first:6.2f} {found.hessian:8.2f} {found.length:8.2f}"
        row = f"{found.gain:8.5f}  {found.on_others}   {share:4.0%}  {found.by_lvc}      {found.kl:.4f}"
        print(f"{title:{width}}  {cosines} {row}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
