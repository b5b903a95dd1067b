"""The end somebody asked a driver for: after the outer step at work, or without it where that takes too long.

A step that is given up is lost and nothing else: the state before it is the good one, and who makes the step again
comes to the same bits. The signal meets the main thread wherever it is, so only what is inside of `abandoning` is given
up: computation, and never what writes.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from meta_service.driver import Stopped
from meta_service.job import JobSpec
from meta_service.params import Params
from meta_service.pool import WorkerPool
from meta_service.ppo import PPO, Trained

STEP_S = 2.0  # what the outer step at work may still take


class Stopping:
    """Whether somebody asked this process to end. Use `stopping`."""

    def __init__(self) -> None:
        self.asked, self._late, self._inside = False, False, False
        self._timer = threading.Timer(STEP_S, self._give_up)
        self._timer.daemon = True

    def __call__(self) -> bool:
        return self.asked

    def listen(self) -> dict[int, Any]:
        """From here on the signals are this one's; whose they were. Again after Ray was joined, which takes SIGTERM."""
        return {number: signal.signal(number, self.signalled) for number in (signal.SIGTERM, signal.SIGINT)}

    def signalled(self, number: int, frame: Any) -> None:
        """The signals' handler: does as little as it can, for the program may be in the middle of writing a line."""
        if self._late and self._inside:
            self._inside = False
            raise KeyboardInterrupt  # the one exception that Ray lets through where it waits
        if self._late:
            return
        if self.asked:  # the second time means: now
            sys.exit(128 + number)
        self.asked = True
        self._timer.start()

    @contextmanager
    def abandoning(self) -> Iterator[None]:
        """What is done inside ends by Stopped where it takes too long for a process that was asked to end."""
        if self._late:
            raise Stopped
        try:
            self._inside = True
            yield
        except KeyboardInterrupt:
            raise Stopped from None
        finally:
            self._inside = False

    def close(self) -> None:
        self._timer.cancel()

    def _give_up(self) -> None:
        self._late = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Whether somebody asked this process to end: SIGTERM from `make stop`, SIGINT from Ctrl-C."""
    asked = Stopping()
    before = asked.listen()
    try:
        yield asked
    finally:
        asked.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Abandoning:
    """A pool, or an objective of one, whose answers are waited for only as long as the process may."""

    def __init__(self, inner: Any, asked: Stopping) -> None:
        self._inner, self._asked = inner, asked

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            with self._asked.abandoning():
                result = found(*arguments, **options)
            return _Abandoning(result, self._asked) if name == "objective" else result

        return call


def impatient(pool: WorkerPool, asked: Stopping) -> WorkerPool:
    """The pool, each of whose computations is given up where the process has to end before it does."""
    return cast(WorkerPool, _Abandoning(pool, asked))


def impatient_ppo(train: PPO, asked: Stopping) -> PPO:
    """The same of RLlib's training."""

    def trained(job: JobSpec, params: Params) -> Iterator[Trained]:
        steps = iter(train(job, params))
        while True:
            with asked.abandoning():
                step = next(steps, None)
            if step is None:
                return
            yield step

    return trained
