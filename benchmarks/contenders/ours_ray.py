"""This project as a user runs it: through Ray, tasks drawn by the workers; threads count workers here."""

import dataclasses
import itertools
import sys
from collections.abc import Iterator

import torch

from benchmarks import workloads
from benchmarks.device import on_gpu
from benchmarks.problem import Problem, Step
from cluster.pool import RayPool
from meta_service.job import JobSpec, Resources
from meta_service.params import Params

_pools: dict[int, RayPool] = {}
_workers = 2


def use_threads(workers: int) -> None:
    """How many actors the following steps use."""
    global _workers
    _workers = workers


def prepare(problem: Problem) -> Step:
    job = workloads.find(problem.workload)
    theta = {name: torch.from_numpy(value) for name, value in problem.theta.items()}
    steps: dict[int, Iterator[int]] = {workers: itertools.count(1) for workers in (1, 2)}

    def step_with(workers: int) -> Params:
        step = next(steps[workers])
        blocks = job.blocks("train", step - 1, job.meta_batch_size)
        return _pools[workers].objective(blocks, step).gradient(theta).grads

    for workers in (1, 2):
        if workers in _pools:
            _pools[workers].close()
        _pools[workers] = RayPool(_with(job, workers), theta, lambda text: print(text, file=sys.stderr))
        step_with(workers)
    return lambda: step_with(_workers)


def _with(job: JobSpec, workers: int) -> JobSpec:
    """Half a CPU each, so that two pools fit two cores, or a quarter of a GPU: they take turns."""
    gpus = 0.25 if on_gpu() else 0
    return dataclasses.replace(job, resources=Resources(workers, cpus_per_worker=0.5, gpus_per_worker=gpus))
