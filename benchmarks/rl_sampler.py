"""How fast trajectories and a trust-region update are, beside peers and the limit of the machine, in one run.

    python -m benchmarks.rl_sampler            all of it, 4 to 5 minutes; leave the machine alone meanwhile
    python -m benchmarks.rl_sampler --quick    a minute
    python -m benchmarks.rl_sampler update     one part of it
    python -m benchmarks.rl_sampler --cores 2  by the clock, with as many processes of ours as cores

Steps a second of one process on one core, in seconds of its CPU, so that a busy machine matters little
(AsyncVectorEnv's, whose work is in other processes, are the clock's). With --cores all are the clock's: the sampler is
that of so many workers, and the others are one process that uses the cores it can. The limit is MuJoCo's own batch
simulation with actions drawn before: no policy, no observation, no reward. They take turns; the best of each counts.
"""

import argparse
import io
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import ray
import torch

import jobs
from benchmarks.process import PEERS, ROOT
from cluster.workplace import pool_of
from meta_service.dotted import override
from meta_service.environments import GoalVectorEnv
from meta_service.outer.trpo import TRPO
from meta_service.policy_learner import PolicyLearner
from meta_service.pool import LocalPool
from meta_service.rl.physics import Ant, HalfCheetah
from meta_service.rl.rollout import roll_out
from meta_service.tasks.locomotion import Locomotion

POLICIES, TRAJECTORIES = 40, 20
SIMULATIONS = POLICIES * TRAJECTORIES
SECOND_ORDER = ["algorithm.first_order=false"]  # the paper's update, which costs more
Contender = Callable[[], int]
"""Makes some steps, and says how many."""


def limit(tasks: Locomotion, steps: int) -> Contender:
    """MuJoCo alone: the physics of so many steps of all simulations."""
    robot: Any = (HalfCheetah if tasks.robot == "cheetah" else Ant)(SIMULATIONS, tasks.variant)
    actions = np.random.default_rng(0).normal(size=(steps, SIMULATIONS, robot.action_size)).clip(-1, 1)

    def run() -> int:
        robot.batch.reset(stage=0)
        for action in actions:
            robot.ctrl[:] = action
            robot.batch.step(nstep=robot.substeps)
        return steps * SIMULATIONS

    return run


def ours(tasks: Locomotion, steps: int) -> Contender:
    """The sampler: 40 policies, each with weights of its own, on 20 trajectories each, all of which are kept."""
    tasks = replace(tasks, horizon=steps, shots=TRAJECTORIES)
    policy = jobs.find("cheetah_direction").model
    params = policy.init(0, tasks.signature)
    stacked = {name: torch.stack([value] * POLICIES) for name, value in params.items()}

    def run() -> int:
        roll_out(policy, stacked, tasks, list(range(POLICIES)), 0)  # type: ignore[arg-type]
        return steps * SIMULATIONS

    return run


def vector_of_ours(tasks: Locomotion, steps: int) -> Contender:
    """Our Gymnasium vector environment, actions drawn before."""
    envs = GoalVectorEnv(replace(tasks, horizon=10 * steps), SIMULATIONS, 1.0)
    return _stepped(envs, SIMULATIONS, steps)


def gymnasium_vector(tasks: Locomotion, steps: int) -> Contender:
    """Gymnasium's own SyncVectorEnv of 16 of its robots, actions drawn before; no policy."""
    name = {"cheetah": "HalfCheetah-v5", "ant": "Ant-v5"}[tasks.robot]
    envs = gymnasium.make_vec(name, num_envs=16, vectorization_mode="sync")
    return _stepped(envs, 16, steps)


def gymnasium_processes(tasks: Locomotion, steps: int) -> Contender:
    """Gymnasium's AsyncVectorEnv: 2 processes."""
    name = {"cheetah": "HalfCheetah-v5", "ant": "Ant-v5"}[tasks.robot]
    envs = gymnasium.make_vec(name, num_envs=2, vectorization_mode="async")
    return _stepped(envs, 2, steps)


def envpool_vector(tasks: Locomotion, steps: int) -> Contender:
    """envpool, where `make bench` could install it: 800 of its robots, actions drawn before."""
    sys.path.append(str(PEERS))
    import envpool  # type: ignore[import-not-found]

    name, threads = {"cheetah": "HalfCheetah-v4", "ant": "Ant-v4"}[tasks.robot], len(os.sched_getaffinity(0))
    return _stepped(envpool.make_gymnasium(name, num_envs=SIMULATIONS, num_threads=threads), SIMULATIONS, steps)


def rllib_runner(tasks: Locomotion, steps: int) -> Contender:
    """RLlib's environment runner with PPO's policy of the same size, on 16 of Gymnasium's robots."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    name = {"cheetah": "HalfCheetah-v5", "ant": "Ant-v5"}[tasks.robot]
    config = (
        PPOConfig()
        .environment(name)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16)
        .rl_module(model_config=DefaultModelConfig(fcnet_hiddens=[100, 100], fcnet_activation="relu"))
        .debugging(log_level="ERROR")
    )
    runner: Any = SingleAgentEnvRunner(config=config)

    def run() -> int:
        runner.sample(num_timesteps=16 * steps)
        return 16 * steps

    return run


def _stepped(envs: Any, count: int, steps: int) -> Contender:
    size = envs.action_space.shape[-1]
    actions = np.random.default_rng(0).normal(size=(steps, count, size)).clip(-1, 1).astype(np.float32)
    envs.reset()

    def run() -> int:
        for action in actions:
            envs.step(action)
        return steps * count

    return run


CONTENDERS: dict[str, Callable[[Locomotion, int], Contender]] = {
    "limit": limit,
    "ours": ours,
    "our vector env": vector_of_ours,
    "gymnasium sync": gymnasium_vector,
    "gymnasium async": gymnasium_processes,
    "envpool": envpool_vector,
    "rllib": rllib_runner,
}
WORKLOADS = {
    "HalfCheetah, 0.05 s (Gymnasium)": (Locomotion("cheetah", variant="gymnasium"), 50),
    "HalfCheetah, 0.01 s (paper)": (Locomotion("cheetah"), 100),
    "Ant, 0.05 s (Gymnasium)": (Locomotion("ant", variant="gymnasium"), 10),
    "Ant, 0.02 s (paper)": (Locomotion("ant"), 20),
}
TAKES_A_PROCESS_A_CORE = {"limit", "ours", "our vector env"}
ONLY_AT_GYMNASIUM_S_STEP = {"gymnasium sync", "gymnasium async", "envpool", "rllib"}


class Crew:
    """Processes that all do the same: one, or one for each core."""

    def __init__(self, make: Callable[[Locomotion, int], Contender], tasks: Locomotion, steps: int, size: int) -> None:
        context = multiprocessing.get_context("fork")
        self._pipes = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            context.Process(target=_member, args=(make, tasks, steps, theirs)).start()
            self._pipes.append(ours)
        reasons = [reason for pipe in self._pipes if (reason := pipe.recv())]
        self.missing: str = next(iter(reasons), "")

    def turn(self) -> tuple[float, float]:
        """(steps a second of CPU, steps a second of the clock)."""
        start = time.perf_counter()
        for pipe in self._pipes:
            pipe.send("turn")
        counts, seconds = zip(*(pipe.recv() for pipe in self._pipes), strict=True)
        return sum(counts) / sum(seconds), sum(counts) / (time.perf_counter() - start)

    def end(self) -> None:
        for pipe in self._pipes:
            pipe.send("end")


def _member(make: Callable[[Locomotion, int], Contender], tasks: Locomotion, steps: int, pipe: Any) -> None:
    sys.stderr = io.StringIO()  # what AsyncVectorEnv's processes have to say when this one ends
    try:
        run = make(tasks, steps)
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send("")
    while pipe.recv() == "turn":
        start = time.process_time()
        pipe.send((run(), time.process_time() - start))
    os._exit(0)  # RLlib and the processes of AsyncVectorEnv take their time


def contest(tasks: Locomotion, steps: int, rounds: int, cores: int) -> Iterator[tuple[str, float]]:
    """(name, best steps a second) of everyone who can be had here."""
    present: dict[str, Crew] = {}
    for name, make in CONTENDERS.items():
        if name in ONLY_AT_GYMNASIUM_S_STEP and tasks.variant == "finn2017":
            continue
        crew = Crew(make, tasks, steps, cores if name in TAKES_A_PROCESS_A_CORE else 1)
        if crew.missing:
            print(f"  {name:<16} not installed: {crew.missing}")
        else:
            present[name] = crew
    best = dict.fromkeys(present, 0.0)
    for _ in range(rounds):
        for name, crew in present.items():
            by_cpu, by_clock = crew.turn()
            best[name] = max(best[name], by_clock if cores > 1 or name == "gymnasium async" else by_cpu)
    for crew in present.values():
        crew.end()
    yield from best.items()


def update() -> Iterator[tuple[str, float]]:
    """CPU seconds of the parts of one update of the paper's size: 40 tasks x 20 x 200 steps, before and after."""
    job = override(jobs.find("cheetah_direction"), SECOND_ORDER)
    learner, theta = PolicyLearner(job), job.init().params
    blocks = job.blocks("train", 0, job.meta_batch_size)

    def clock(call: Callable[[], Any]) -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    yield "trajectories, baseline, adaptation", clock(lambda: [learner._block(theta, seeds) for seeds in blocks])
    gradient = learner.meta_gradient(theta, blocks[0]).grads
    yield "meta-gradient", clock(lambda: [learner.meta_gradient(theta, seeds) for seeds in blocks])
    yield "one curvature product, all data", clock(lambda: [learner.curvature(theta, s, gradient) for s in blocks])
    other = {name: value + 1e-3 for name, value in theta.items()}
    yield "one length of the line search", clock(lambda: [learner.value(theta, seeds, other) for seeds in blocks])
    assert isinstance(job.outer, TRPO)
    objective = LocalPool(learner).objective(blocks)  # the trajectories are there already
    yield "the whole update, trajectories apart", clock(lambda: job.outer.step(job.init(), objective))


def update_by(workers: int) -> Iterator[tuple[str, float]]:
    """Seconds of the clock of the same update by so many workers on Ray."""
    job = override(jobs.find("cheetah_direction"), SECOND_ORDER)
    job = replace(job, resources=replace(job.resources, workers=workers))
    ray.init(address="local", num_cpus=workers, logging_level=logging.ERROR)
    state, seconds = job.init(), []
    with pool_of(job) as pool:
        for _ in range(4):  # the first finds the workers still starting
            objective = pool.objective(job.blocks("train", state.iteration, job.meta_batch_size))
            start = time.perf_counter()
            objective.gradient(state.params)
            gathered = time.perf_counter()
            state, _ = job.outer.step(state, objective)
            seconds.append((gathered - start, time.perf_counter() - gathered))
    gathering, updating = zip(*seconds[1:], strict=True)
    yield "trajectories, adaptation, gradient", median(gathering)
    yield "the update", median(updating)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds, and no update")
    parser.add_argument("--cores", type=int, default=1, help="processes of the sampler, timed by the clock")
    parser.add_argument("only", nargs="*", help="parts by words in their titles: cheetah, ant, paper, update")
    arguments = parser.parse_args()
    quick = arguments.quick

    def wanted(title: str) -> bool:
        return not arguments.only or any(word.lower() in title.lower() for word in arguments.only)

    torch.set_num_threads(1)
    os.environ["PYTHONPATH"] = str(ROOT)  # for Ray's workers
    os.chdir(tempfile.mkdtemp())  # Gymnasium's models have MuJoCo write its warnings to a file where one stands
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # and to the terminal
    sys.stderr = sys.stdout
    for title, (tasks, steps) in WORKLOADS.items():
        if not wanted(title):
            continue
        print(f"\n{title}: environment steps a second on {arguments.cores} core(s)")
        figures = dict(contest(tasks, steps, 2 if quick else 4, arguments.cores))
        for name, value in figures.items():
            print(f"  {name:<16}{value:>10,.0f}   {value / figures['limit']:5.2f} of the limit", flush=True)
    if arguments.cores > 1 and wanted("update"):
        print(f"\nOne update of the paper's size, seconds of the clock with {arguments.cores} workers on Ray")
        for name, value in update_by(arguments.cores):
            print(f"  {name:<42}{value:6.2f}", flush=True)
    elif not quick and wanted("update"):
        print("\nOne update of the paper's size, CPU seconds on one core")
        for name, value in update():
            print(f"  {name:<38}{value:6.2f}", flush=True)


if __name__ == "__main__":
    main()
