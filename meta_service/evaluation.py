"""What a theta is worth: adaptation curves with confidence intervals, under named conditions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.episode import Split
from meta_service.job import Evaluation, JobSpec
from meta_service.params import Params
from meta_service.pool import WorkerPool


class AdaptationCurve(NamedTuple):
    """A metric after 0, 1, ... gradient steps, over many tasks."""

    metric: str
    mean: tuple[float, ...]
    """One value a gradient step, [steps + 1]."""
    ci95: tuple[float, ...]
    """Half of the 95 % confidence interval of each mean: 1.96 sigma / sqrt(tasks)."""
    conditions: dict[str, Any]
    """Everything the numbers depend on, spelled out."""
    headline: int = -1
    """The number of steps whose value stands for the result; -1: the last."""

    @property
    def before(self) -> float:
        return self.mean[0]

    @property
    def after(self) -> float:
        return self.mean[self.headline]

    @property
    def steps(self) -> int:
        """The number of gradient steps whose value stands for the result."""
        return self.headline if self.headline >= 0 else len(self.mean) - 1

    def better_than(self, other: float) -> bool:
        """Whether the value after adaptation is the better one; a mean that is no number never is."""
        return self.after > other if higher_is_better(self.metric) else self.after < other

    def wording(self, step: int | None = None) -> str:
        """The value after that many steps as people write it: `97.31 ± 0.40 %`, or `0.67 ± 0.05` for an error."""
        step = self.headline if step is None else step
        scale, unit = (100, " %") if self.metric == "accuracy" else (1, "")
        return f"{scale * self.mean[step]:.2f} ± {scale * self.ci95[step]:.2f}{unit}"


def higher_is_better(metric: str) -> bool:
    return metric in ("accuracy", "return")


def format_metric(metric: str, value: float) -> str:
    """An accuracy in percent, an error or a return as it is."""
    if metric == "accuracy":
        return f"{100 * value:.2f} %"
    return f"{value:.1f}" if metric == "return" else f"{value:.3f}"


Progress = Callable[[int, int], None]
"""Told how many tasks of how many are done."""

CHUNK_BLOCKS = 8  # blocks between two reports of progress, at least


def evaluate(
    job: JobSpec,
    pool: WorkerPool,
    params: Params,
    evaluation: Evaluation,
    split: Split,
    progress: Progress = lambda done, total: None,
) -> AdaptationCurve:
    """The adaptation curve of theta on the tasks of an evaluation; always the same tasks for a job's seed.

    Where the evaluation lists several step sizes, the best on as many validation tasks is taken first.
    """

    def curves(split: Split, inner_lr: float) -> np.ndarray:
        blocks = job.blocks_of(evaluation, split)
        parts = []
        size = max(CHUNK_BLOCKS, 4 * job.resources.workers)
        for start in range(0, len(blocks), size):
            chunk = blocks[start : start + size]
            parts.append(pool.curves(params, chunk, split, evaluation, inner_lr))
            progress(sum(map(len, parts)), evaluation.num_tasks)
        return np.concatenate(parts)

    inner_lr, headline = job.algorithm.inner_lr, evaluation.headline_step
    if evaluation.inner_lrs:
        sign = -1 if higher_is_better(job.tasks.metric_name) else 1
        errors = {lr: sign * curves("validation", lr)[:, headline].mean() for lr in evaluation.inner_lrs}
        inner_lr = min(errors, key=lambda lr: errors[lr] if math.isfinite(errors[lr]) else math.inf)
    values = curves(split, inner_lr)
    with np.errstate(invalid="ignore", over="ignore"):  # a step size too large may end at infinity, and says so
        ci95 = 1.96 * values.std(0) / math.sqrt(len(values))
    conditions = {"tasks": evaluation.num_tasks, "split": split, "inner_lr": inner_lr} | _conditions(job, evaluation)
    if evaluation.numbered and split == "test":
        conditions["seeds"] = f"0 to {evaluation.num_tasks - 1}"
    mean = tuple(values.mean(0).tolist())
    return AdaptationCurve(job.tasks.metric_name, mean, tuple(ci95.tolist()), conditions, headline)


def best_of(history: Sequence[tuple[int, AdaptationCurve]]) -> tuple[int, AdaptationCurve] | None:
    """The earliest of the best looks at the validation tasks; None where no value is a number."""
    best = None
    for iteration, curve in history:
        if math.isfinite(curve.after) and (best is None or curve.better_than(best[1].after)):
            best = iteration, curve
    return best


def _conditions(job: JobSpec, evaluation: Evaluation) -> dict[str, Any]:
    tasks: Any = evaluation.tasks_of(job.tasks)
    if isinstance(job.algorithm, PolicyGradient):
        lrs = [job.algorithm.lr(step) for step in range(evaluation.steps)]
        many = {"steps": tasks.shots * tasks.horizon} if tasks.by_steps else {"trajectories": tasks.shots}
        return many | {"horizon": tasks.horizon, "later_lr": lrs[1] / lrs[0] if lrs[1:] else 1}
    conditions = {"shots": tasks.shots, "query_shots": tasks.query_shots or tasks.shots}
    if hasattr(tasks, "transductive"):
        conditions["batch_norm"] = "transductive" if tasks.transductive else "inductive"
    if hasattr(tasks, "loss_scale"):
        conditions["loss_scale"] = tasks.loss_scale
    return conditions
