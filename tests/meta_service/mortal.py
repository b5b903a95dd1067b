"""Processes that are killed in the middle of what they do, at a call of one's choice."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from meta_service.artifacts import ArtifactStore

T = TypeVar("T")
Deed = Callable[[], None]


class Countdown:
    """SIGKILL for this process at the n-th moment; counts on the way."""

    def __init__(self, moments: int) -> None:
        self.left, self.seen = moments, 0

    def __call__(self, last_act: Deed = lambda: None) -> None:
        """A moment; `last_act` is what the dying process still does."""
        self.seen += 1
        if self.left == 0:
            last_act()
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def killed_at(moment: int, life: Callable[[Countdown], None]) -> int | None:
    """Lives in a child process that is killed at this moment; None then, else how many moments there are."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            countdown = Countdown(moment)
            life(countdown)
            os.write(writer, str(countdown.seen).encode())
            os._exit(0)
        except BaseException as error:  # nothing of pytest may go on in here
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as answer:
        seen = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert os.WEXITSTATUS(status) == 0
    return int(seen)


class Mortal:
    """A store before each of whose calls there is a moment; which is that after the call before it, too."""

    def __init__(self, store: ArtifactStore, moment: Countdown) -> None:
        self._store, self._moment = store, moment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name in ("address", "under"):
            return found

        def call(*arguments: Any) -> Any:
            self._moment()
            return found(*arguments)

        return call


def endanger_files(moment: Countdown) -> None:
    """A moment before each thing this process does to a file from now on, and one with the file half written."""
    fsync = os.fsync

    def torn_fsync(descriptor: int) -> None:
        moment(lambda: _tear(descriptor))  # of what was written, half is on the disk
        fsync(descriptor)

    os.fsync = torn_fsync
    for name in ("mkdir", "replace", "unlink"):
        _guard(Path, name, moment)


def _guard(owner: Any, name: str, moment: Countdown) -> None:
    plain = getattr(owner, name)

    def guarded(*arguments: Any, **options: Any) -> Any:
        moment()
        return plain(*arguments, **options)

    setattr(owner, name, guarded)


def _tear(descriptor: int) -> None:
    path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)
