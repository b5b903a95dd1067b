"""A process that is asked to end: after what it does, or without it where that takes too long."""

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import pytest
import ray

from cluster import stopping as module
from cluster.stopping import Stopping, impatient, stopping
from meta_service.driver import Stopped


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_S", 0.3)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass
class Slow:
    """A pool whose every answer takes a minute, or as long as it says."""

    seconds: float = 60.0

    def objective(self, blocks: Any) -> "Slow":
        return self

    def gradient(self, params: Any) -> str:
        time.sleep(self.seconds)
        return "gradient"


def given_up(pool: Any, asked: Stopping, within_s: float) -> Any:
    """The objective whose gradient was given up, soon enough after somebody asked for the end."""
    objective: Any = impatient(pool, asked).objective([])
    ask()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        objective.gradient({})
    assert time.monotonic() - begin < within_s
    return objective


def test_a_signal_is_only_noted_where_nothing_takes_long() -> None:
    with stopping() as asked:
        assert not asked()
        ask()
        assert asked()


def test_an_outer_step_that_takes_too_long_is_given_up() -> None:
    pool: Any = Slow()
    with stopping() as asked:
        objective = given_up(pool, asked, 30)
        with pytest.raises(Stopped):  # and none is begun any more
            objective.gradient({})


def test_an_outer_step_that_ends_soon_counts() -> None:
    pool: Any = Slow(0.01)
    with stopping() as asked:
        ask()
        objective: Any = impatient(pool, asked).objective([])
        assert objective.gradient({}) == "gradient"


def test_what_writes_is_never_given_up() -> None:
    with stopping() as asked:
        ask()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            time.sleep(0.01)
        assert asked()


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("ray_cluster")
def test_waiting_for_ray_is_given_up_too() -> None:
    @ray.remote(num_cpus=0)
    def sleep() -> None:
        time.sleep(600)

    reference = sleep.remote()

    class OnRay(Slow):
        def gradient(self, params: Any) -> str:
            ray.wait([reference], timeout=600)
            return "gradient"

    pool: Any = OnRay()
    with stopping() as asked:
        given_up(pool, asked, 60)
    ray.cancel(reference, force=True)
