"""What can happen to a run: a function for each kind of fault, done from outside wherever that is possible."""

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

from tests.chaos.disturbed import Disturbed
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.scene import parent_of

CALLS = 3  # so many of a driver's calls are made to fail
Act = Callable[[Disturbed, random.Random], None]


class Fault(NamedTuple):
    act: Act
    ends: bool = False
    """Whether it ends the driver;"""
    may_end: bool = False
    """or may do so. Of all others the run has to recover with the driver it has."""


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _victim(run: Disturbed, rng: random.Random) -> int:
    """A worker, rather one that is at work; waits until there is one."""
    found: dict[int, str] = {}
    while not found:
        run.until(lambda: bool(run.scene.workers()))
        found = run.scene.workers()
    busy = [pid for pid, title in found.items() if title != "ray::TaskWorker"]
    return rng.choice(sorted(busy or found))


def to_worker(number: signal.Signals) -> Act:
    return lambda run, rng: _signal(_victim(run, rng), number)


def ten_times_slower(run: Disturbed, rng: random.Random) -> None:
    """Of every 100 ms the worker gets 10, for three seconds."""
    victim = _victim(run, rng)

    def hold() -> None:
        for _ in range(30):
            _signal(victim, signal.SIGSTOP)
            time.sleep(0.09)
            _signal(victim, signal.SIGCONT)
            time.sleep(0.01)

    run.later(0, hold)


def in_worker(name: Literal["exception", "memory", "nan"]) -> Act:
    """One of the next blocks fails that way; waits until it has."""

    def act(run: Disturbed, rng: random.Random) -> None:
        file = run.folder / "faults" / name
        file.touch()
        run.until(lambda: not file.exists())

    return act


def to_driver(number: signal.Signals) -> Act:
    def act(run: Disturbed, rng: random.Random) -> None:
        if run.alive():
            _signal(run.pid, number)

    return act


def disk_full(run: Disturbed, rng: random.Random) -> None:
    """No file that the driver writes may grow, for two seconds."""
    pid = run.pid
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)

    def end() -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)

    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, limits[1]))
    run.later(2.0, end)


def network(which: Literal["s3", "mlflow"], mode: Mode, seconds: float) -> Act:
    def act(run: Disturbed, rng: random.Random) -> None:
        proxy: Proxy = getattr(run.scene, which)
        proxy.set(mode)
        run.later(seconds, lambda: proxy.set("fine"))

    return act


def raylet_lost(run: Disturbed, rng: random.Random) -> None:
    """A node goes with its workers, and another comes."""
    nodes = run.scene.nodes
    assert nodes, "a Ray of several nodes is expected"
    nodes.lose(rng, {parent_of(pid) for pid in run.scene.workers()})
    nodes.add()


def calls_fail(how: Literal["req", "resp", "in_flight"]) -> Act:
    """Calls of the next driver fail on their way to the worker, on their way back, or are done and fail."""

    def act(run: Disturbed, rng: random.Random) -> None:
        method = {"num_failures": CALLS, f"{how}_failure_prob": 10}
        run.next_env = {"RAY_testing_rpc_failure": json.dumps({"CoreWorkerService.grpc_client.PushTask": method})}
        to_driver(signal.SIGKILL)(run, rng)

    return act


FAULTS = {
    "worker SIGKILL": Fault(to_worker(signal.SIGKILL)),
    "worker SIGSEGV": Fault(to_worker(signal.SIGSEGV)),
    "worker SIGSTOP": Fault(to_worker(signal.SIGSTOP)),
    "worker out of memory": Fault(in_worker("memory")),
    "worker 10 x slower": Fault(ten_times_slower),
    "worker exception": Fault(in_worker("exception")),
    "worker's result not finite": Fault(in_worker("nan")),
    "driver SIGKILL": Fault(to_driver(signal.SIGKILL), ends=True),
    "driver SIGTERM": Fault(to_driver(signal.SIGTERM), ends=True),
    "S3 503": Fault(network("s3", "error", 2.0)),
    "S3 reset": Fault(network("s3", "reset", 2.0)),
    "S3 slow": Fault(network("s3", "slow", 2.0)),
    "S3 down": Fault(network("s3", "down", 2.0)),
    "MLflow 503": Fault(network("mlflow", "error", 2.0)),
    "MLflow reset": Fault(network("mlflow", "reset", 2.0)),
    "MLflow down": Fault(network("mlflow", "down", 2.0)),
    "disk full": Fault(disk_full, may_end=True),
    "raylet lost": Fault(raylet_lost),
    "RPC requests fail": Fault(calls_fail("req"), ends=True),
    "RPC responses fail": Fault(calls_fail("resp"), ends=True),
    "RPC in flight fail": Fault(calls_fail("in_flight"), ends=True),
}
