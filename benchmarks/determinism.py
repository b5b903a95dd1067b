"""What it costs that a result does not depend on who computed it: step time with and without, taken in turns.

    python -m benchmarks.determinism              some minutes; leave the machine alone meanwhile
    python -m benchmarks.determinism --steps=20   fewer steps of each

*With* is the product's pool. The job says how a meta-batch is cut into blocks, answers wait for one another to be added
in block order, and every call carries a ticket with the digest of theta.

*Without*, on the same actors, is what a program does that only wants the sum. `as they come`: the same blocks, each
added to the sum when it arrives. `one share each`: as many equal parts of the meta-batch as there are workers, added as
they come. Neither has tickets, digests, or a second try; theta travels as it does with.

The contenders take turns, step by step, and each goes its own way: whole outer steps are timed, Adam included.
Deterministic kernels are no part of it; on CPUs torch has no others for what is computed here.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

from benchmarks import workloads
from benchmarks.service import embedded
from meta_service.job import JobSpec, Resources
from meta_service.objective import MetaGradient, Objective
from meta_service.params import Params, flatten, unflatten
from meta_service.pool import Blocks

WORKLOADS = ("W2-1", "W3")
WORKERS = 2
WARM = 3  # steps of each that are not counted
INSIDE = "BENCH_INSIDE"  # set where Ray, MLflow and S3 are there


@dataclass(frozen=True)
class AsTheyCome:
    """The sum of the blocks in the order in which they happen to arrive."""

    workers: list[Any]
    blocks: Blocks

    def gradient(self, params: Params) -> MetaGradient:
        import ray  # reads how to authenticate when it is imported

        from cluster.pool import shared

        theta = shared(params)
        waiting, free = deque(self.blocks), list(self.workers)
        running: dict[Any, Any] = {}
        vector, loss = flatten(params) * 0, 0.0
        while waiting or running:
            while waiting and free:
                worker = free.pop()
                running[worker.meta_gradient.remote(theta, waiting.popleft())] = worker
            (ref,), _ = ray.wait(list(running))
            free.append(running.pop(ref))
            part, part_loss = ray.get(ref)
            vector, loss = vector + part, loss + part_loss
        return MetaGradient(unflatten(vector, params), loss, sum(map(len, self.blocks)))


def shares(blocks: Blocks, workers: int) -> Blocks:
    """All tasks again, in as many parts as there are workers."""
    seeds = [seed for block in blocks for seed in block]
    return [seeds[start::workers] for start in range(workers)]


def measure(job: JobSpec, steps: int) -> dict[str, float]:
    """The median time of a step of each contender, in ms."""
    from cluster.pool import RayPool  # as above

    pool = RayPool(job, job.init().params, partial(print, file=sys.stderr))
    try:
        while pool.crew.starting:
            pool.objective(job.blocks("train", 0, job.meta_batch_size)).gradient(job.init().params)
        actors = [member.actor for member in pool.crew.members]
        contenders: dict[str, Callable[[Blocks], Objective]] = {
            "with": pool.objective,
            "as they come": partial(AsTheyCome, actors),
            "one share each": lambda blocks: AsTheyCome(actors, shares(blocks, WORKERS)),
        }
        states = dict.fromkeys(contenders, job.init())
        times: dict[str, list[float]] = {name: [] for name in contenders}
        turns = deque(contenders)
        for number in range(WARM + steps):
            turns.rotate()
            for name in turns:
                blocks = job.blocks("train", number, job.meta_batch_size)
                since = time.perf_counter()
                states[name], _ = job.outer.step(states[name], contenders[name](blocks))
                times[name].append(time.perf_counter() - since)
        return {name: 1000 * median(found[WARM:]) for name, found in times.items()}
    finally:
        pool.close()


def row(name: str, job: JobSpec, found: dict[str, float]) -> str:
    """Of the table: what it costs is beside the faster of those without."""
    cost = found["with"] / min(found["as they come"], found["one share each"]) - 1
    blocks = job.blocks("train", 0, job.meta_batch_size)
    cells = [f"{name}, {len(blocks)} blocks of {len(blocks[0])}", *(f"{ms:.1f}" for ms in found.values())]
    return f"| {' | '.join(cells)} | {100 * cost:+.1f} % |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.determinism")
    parser.add_argument("--steps", type=int, default=100, help="counted steps of each contender (100)")
    asked = parser.parse_args()
    if INSIDE not in os.environ:
        with embedded(partial(print, file=sys.stderr)) as env:
            command = [sys.executable, "-m", "benchmarks.determinism", *sys.argv[1:]]
            return subprocess.run(command, env=os.environ | env | {INSIDE: "1"}).returncode
    print("| workload | with, ms | as they come | one share each | determinism costs |\n|---|---|---|---|---|")
    for name in WORKLOADS:
        job = replace(workloads.find(name), resources=Resources(workers=WORKERS))
        print(row(name, job, measure(job, asked.steps)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
