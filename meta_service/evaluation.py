"""What a theta is worth: adaptation curves with confidence intervals, under named conditions."""

import math
from typing import Any, NamedTuple

import numpy as np

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

    @property
    def before(self) -> float:
        return self.mean[0]

    @property
    def after(self) -> float:
        return self.mean[-1]

    def better_than(self, other: float) -> bool:
        """Whether the value after adaptation is the better one; a mean that is no number never is."""
        return self.after > other if self.metric == "accuracy" else self.after < other

    def wording(self) -> str:
        """As people write it: `97.3 +- 0.4 %` or `0.67 +- 0.05`."""
        return f"{format_metric(self.metric, self.after)} ± {format_metric(self.metric, self.ci95[-1])}"


def format_metric(metric: str, value: float) -> str:
    """An accuracy in percent, an error as it is."""
    return f"{100 * value:.2f} %" if metric == "accuracy" else f"{value:.3f}"


def evaluate(
    job: JobSpec, pool: WorkerPool, params: Params, evaluation: Evaluation, split: Split
) -> AdaptationCurve:
    """The adaptation curve of theta on `evaluation.num_tasks` tasks of a split; always the same tasks for a job's seed.

    Where the evaluation lists several step sizes, the best on as many validation tasks is taken first.
    """
    inner_lr = job.algorithm.inner_lr
    if evaluation.inner_lrs:
        scores = {lr: _curves(job, pool, params, evaluation, "validation", lr)[:, -1].mean() for lr in evaluation.inner_lrs}
        finite = {lr: score for lr, score in scores.items() if math.isfinite(score)} or {inner_lr: math.nan}
        best = max if job.tasks.metric_name == "accuracy" else min
        inner_lr = best(finite, key=lambda lr: finite[lr])
    curves = _curves(job, pool, params, evaluation, split, inner_lr)
    tasks = evaluation.tasks_of(job.tasks)
    conditions = {
        "tasks": evaluation.num_tasks,
        "split": split,
        "inner_lr": inner_lr,
        "shots": tasks.shots,
        "query_shots": getattr(tasks, "query_shots", None) or tasks.shots,
    }
    if hasattr(tasks, "transductive"):
        conditions["batch norm"] = "transductive" if tasks.transductive else "inductive (the support's statistics)"
    if hasattr(tasks, "loss_scale"):
        conditions["loss scale"] = tasks.loss_scale
    ci95 = 1.96 * curves.std(0) / math.sqrt(len(curves))
    return AdaptationCurve(job.tasks.metric_name, tuple(curves.mean(0).tolist()), tuple(ci95.tolist()), conditions)


def _curves(
    job: JobSpec, pool: WorkerPool, params: Params, evaluation: Evaluation, split: Split, inner_lr: float
) -> np.ndarray:
    stream = "test" if split == "test" else "validation"
    blocks = job.blocks(stream, 0, evaluation.num_tasks)
    return pool.curves(params, blocks, split, evaluation, inner_lr)
