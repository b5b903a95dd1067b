"""This project in this process: a worker's Learner, given tasks that are drawn already."""

import os

from benchmarks import workloads
from benchmarks.device import device, here
from benchmarks.problem import Problem, Step
from meta_service.episode import Batch
from meta_service.learner import Drawn, Learner
from meta_service.params import Params
from meta_service.pool import add_in_order


def prepare(problem: Problem) -> Step:
    job = workloads.find(f"{problem.workload} {os.environ.get('BENCH_FIELDS', '')}")
    learner = Learner(job, device())
    theta = {name: here(value) for name, value in problem.theta.items()}
    support_x, support_y, query_x, query_y = (here(array) for array in problem[3:])

    def block(start: int) -> Drawn:
        of = slice(start, start + job.tasks_per_block)
        return Drawn(Batch((support_x[of],), support_y[of]), Batch((query_x[of],), query_y[of]))

    blocks = [block(start) for start in range(0, problem.tasks, job.tasks_per_block)]

    def step() -> Params:
        return add_in_order([learner.block(theta, drawn) for drawn in blocks]).grads

    return step
