"""The checkpoints of one run: taken in milliseconds, kept on this machine at once, and in the run's store when it can.

A driver's training waits for neither. What the store does not take is kept here meanwhile, by the same protocol
(`commits.py`), and delivered when it takes things again: by this driver, the next one on this machine, or `make sync`.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from meta_service.background import Background
from meta_service.commits import Commit, Commits, pack
from meta_service.ownership import Owner, Superseded
from meta_service.pointer import BEST, LATEST
from meta_service.state import MetaState
from meta_service.storage import ArtifactStore, StorageError

_LOG = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run. Writing is done in the background, in order."""

    def __init__(
        self,
        store: ArtifactStore,
        say: Callable[[str], None] = _LOG.warning,
        keep: int = 3,
        owner: Owner | None = None,
        rescue: ArtifactStore | None = None,
    ) -> None:
        """`say` is told, in a line each, of damage found and of failed uploads; `keep`: how many, beside the best.

        `owner`: who alone may write here, else nobody asks. `rescue`: where on this machine they are kept, too; what
        lies there from an earlier driver is delivered first.
        """
        self._say, self._owner = say, owner
        recorded = owner is not None
        self._there = Commits(store, say, keep, owner, recorded)
        self._here = Commits(rescue, say, 1, recorded=recorded) if rescue else None
        self._sending, self._keeping = Background("checkpoint"), Background("rescue")
        self._lock, self._lock_here = threading.Lock(), threading.Lock()
        self._waiting: dict[str, Commit] = {}  # the newest of all and the newest best one, until they are stored
        self._last: Commit | None = None
        self.durable = self._there.at(LATEST)
        """The iteration of the newest checkpoint in the store."""
        self.local: int | None = None
        """The iteration of the newest one on this machine."""
        self.failure: StorageError | None = None
        """Why the last attempt to save failed; None once it worked."""
        self._full: StorageError | None = None  # the same of this machine's disk
        if owner:
            self._there.sweep()
        if self._here:
            self._inherit(self._here)

    def save(
        self,
        state: MetaState,
        metrics: Mapping[str, float] | None = None,
        best: bool = False,
        timeout: float | None = None,
    ) -> str:
        """Stores the state and returns its manifest's name.

        Raises StorageError where the store did not take it (in time): then it is kept on this machine, if it can be.
        """
        name = self.save_async(state, metrics, best)
        self.wait(timeout)
        return name

    def save_async(self, state: MetaState, metrics: Mapping[str, float] | None = None, best: bool = False) -> str:
        """Takes a copy of the state's bits now (milliseconds) and stores it in the background.

        Where that fails `say` is told, and it is tried again with the next one. `best`: this is the state to test
        with, until a better one comes. The same outer step is not stored twice. Returns the manifest's name. Raises
        Superseded where the run is another driver's by now.
        """
        self.check()
        last = self._last
        if last and last.iteration == state.iteration and (last.best or not best):
            self._sending.submit(self._send)
            return last.manifest_name
        commit = self._last = pack(state, metrics or {}, best)
        with self._lock:
            self._waiting |= {LATEST: commit} | ({BEST: commit} if best else {})
        if self._here:
            self._keeping.submit(partial(self._keep, commit))
        self._sending.submit(self._send)
        return commit.manifest_name

    def check(self) -> None:
        """Raises Superseded where it is known that the run is another driver's by now; costs nothing."""
        if self._owner:
            self._owner.check()

    def wait(self, timeout: float | None = None) -> None:
        """Returns when all that was saved is stored; raises StorageError where it cannot be, even at a last attempt."""
        if self._here:
            with suppress(TimeoutError):
                self._keeping.submit(lambda: None).result(timeout)
        try:
            self._sending.submit(self._send).result(timeout)
        except TimeoutError as error:
            raise StorageError(
                f"{self._there.store.address()} did not take the checkpoint within {timeout:g} s"
            ) from error
        self.check()
        if self.failure:
            raise self.failure

    def latest(self) -> MetaState | None:
        """The newest intact state; None where nothing was ever saved."""
        return self._load(LATEST)

    def best(self) -> MetaState | None:
        """The newest intact state saved with `best`; None where none was."""
        return self._load(BEST)

    def forget(self) -> None:
        """Deletes what is kept on this machine, where the store has all of it."""
        with self._lock, self._lock_here:
            if self._here and not self._waiting:
                self._here.clear()
                self.local = None

    # in the background

    def _keep(self, commit: Commit) -> None:
        if commit is not self._last and not commit.best:
            return  # a newer one is waiting
        try:
            with self._lock_here:
                assert self._here
                self._here.write(commit)
            self.local, self._full = commit.iteration, None
        except StorageError as error:
            if not self._full:
                self._say(f"checkpoints are not kept on this machine, only in the run's store: {error}")
            self._full = error

    def _send(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        try:
            for commit in sorted(set(waiting.values()), key=lambda commit: commit.iteration):
                newest = commit == waiting.get(LATEST) or commit.iteration > (self.durable or 0)
                self._there.write(commit, newest)
                self.durable = commit.iteration if newest else self.durable
                waiting = {pointer: other for pointer, other in waiting.items() if other != commit}
            if self.failure:
                self._say(f"{self._there.store.address()} takes checkpoints again")
            self.failure = None
        except StorageError as error:
            if not self.failure:
                self._say(f"checkpoint not stored, training goes on and it is tried again: {error}")
            self.failure = error
        except Superseded:
            waiting = {}  # the owner of the run knows why, and tells whoever asks next
        finally:
            with self._lock:
                self._waiting = waiting | self._waiting  # what came meanwhile is newer

    # reading

    def _load(self, pointer: str) -> MetaState | None:
        self._sending.submit(self._send).result()
        with self._lock:
            unstored = self._waiting.get(pointer)
        found = unstored or self._there.load(pointer)
        if found and pointer == LATEST and found.iteration == self._there.at(LATEST):
            self._last = found  # which need not be stored again
        return found.state() if found else None

    def _inherit(self, here: Commits) -> None:
        """Takes what an earlier driver kept on this machine, if the store has nothing newer."""
        here.store.tidy()
        for pointer in (LATEST, BEST):
            kept, stored = here.at(pointer), self._there.at(pointer)
            if kept is not None and (stored is None or kept > stored):
                with suppress(StorageError):  # all of them damaged, which was said: the store's own are there
                    if commit := here.load(pointer):
                        self._waiting[pointer] = commit
        if self._waiting:
            self.local = max(commit.iteration for commit in self._waiting.values())
        else:
            here.clear()
