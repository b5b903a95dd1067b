"""A thread that does one thing after another, and that a process does not wait for at its end."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Thread

LINGER_S = 1.0  # for which a thread waits for more: to start one takes as long as a small file


class Background:
    """Work in its order. Who needs it done asks its future: at the end of the process what is left is dropped."""

    def __init__(self, name: str) -> None:
        self._name, self._changed = name, Condition()
        self._queue: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._running = False

    def submit(self, work: Callable[[], None]) -> "Future[None]":
        """Does the work after all that was submitted before it; what it raises is the future's."""
        future: Future[None] = Future()
        with self._changed:
            self._queue.append((work, future))
            start, self._running = not self._running, True
            self._changed.notify()
        if start:  # a thread while there is work: nothing has to be closed
            Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._changed.wait(LINGER_S)
                if not self._queue:
                    self._running = False
                    return
                work, future = self._queue.popleft()
            try:
                work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
