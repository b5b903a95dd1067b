"""The state of a run in its store: parts named by their SHA-256, then a manifest, then a pointer to it.

    parts/<sha256>.safetensors              all tensors
    manifests/<iteration>-<sha256>.json     iteration, metrics, and size and SHA-256 of every part
    LATEST, BEST                            the name of a manifest

Whatever the moment of death, the pointers name something complete. Names tell what the bytes must be, so that damage is
found before use. One process at a time writes a run's checkpoints.
"""

import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

from meta_service.artifacts import ArtifactStore, MissingArtifact, StorageError
from meta_service.state import MetaState

_LOG = logging.getLogger(__name__)
_MANIFEST = re.compile(r"manifests/(\d{9})-([0-9a-f]{16})\.json")


class Commit(NamedTuple):
    """A checkpoint as bytes, ready to be written."""

    iteration: int
    best: bool
    part_name: str
    part: bytes
    manifest_name: str
    manifest: bytes


class Damaged(Exception):
    """A part, manifest or pointer is not what was written."""


def pack(state: MetaState, metrics: Mapping[str, float], best: bool = False) -> Commit:
    """The state's bits and what is needed to prove them."""
    # clones: safetensors refuses views of shared memory, and the caller may go on with its tensors
    part = save({name: value.detach().cpu().clone().contiguous() for name, value in state.tensors().items()})
    digest = hashlib.sha256(part).hexdigest()
    record = {
        "iteration": state.iteration,
        "best": best,
        "state_sha256": state.sha256(),
        "parts": [{"name": f"parts/{digest}.safetensors", "size": len(part), "sha256": digest}],
        "metrics": dict(metrics),
        "time": time.time(),
    }
    manifest = json.dumps(record, indent=1).encode()
    name = f"manifests/{state.iteration:09d}-{hashlib.sha256(manifest).hexdigest()[:16]}.json"
    return Commit(state.iteration, best, f"parts/{digest}.safetensors", part, name, manifest)


class Checkpoints:
    """The checkpoints of one run. Writing is done by one background thread, in order."""

    def __init__(self, store: ArtifactStore, say: Callable[[str], None] = _LOG.warning, keep: int = 3) -> None:
        """`say` is told, in a line each, of damage found and of failed uploads; `keep`: how many, beside the best."""
        self._store, self._say, self._keep = store, say, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._lock = threading.Lock()
        self._waiting: dict[str, Commit] = {}  # the newest of all and the newest best one, until they are stored
        self._last: Commit | None = None
        self.durable: int | None = None
        """The iteration the store holds for certain, of those saved here."""
        self.failure: StorageError | None = None
        """Why the last attempt to save failed; None once it worked."""

    def save(self, state: MetaState, metrics: Mapping[str, float] | None = None, best: bool = False) -> str:
        """Stores the state and returns its manifest's name. Raises StorageError; it is still tried with the next."""
        name = self.save_async(state, metrics, best)
        self.wait()
        return name

    def save_async(self, state: MetaState, metrics: Mapping[str, float] | None = None, best: bool = False) -> str:
        """Takes a copy of the state's bits now (milliseconds) and stores it in the background.

        Where that fails `say` is told, and it is tried again with the next one. `best`: this is the state to test
        with, until a better one comes. The same outer step is not stored twice. Returns the manifest's name.
        """
        last = self._last
        if last and last.iteration == state.iteration and (last.best or not best):
            self._thread.submit(self._drain)
            return last.manifest_name
        commit = self._last = pack(state, metrics or {}, best)
        with self._lock:
            self._waiting |= {"LATEST": commit} | ({"BEST": commit} if best else {})
        self._thread.submit(self._drain)
        return commit.manifest_name

    def wait(self, timeout: float | None = None) -> None:
        """Returns when all that was saved is stored; raises StorageError where it cannot be, even at a last attempt."""
        last: Future[None] = self._thread.submit(self._drain)
        try:
            last.result(timeout)
        except TimeoutError as error:
            raise StorageError(f"{self._store.address()} did not take the checkpoint within {timeout:g} s") from error
        if self.failure:
            raise self.failure

    def latest(self) -> MetaState | None:
        """The newest intact state; None where nothing was ever saved."""
        return self._load("LATEST")

    def best(self) -> MetaState | None:
        """The newest intact state saved with `best`; None where none was."""
        return self._load("BEST")

    # writing, on the background thread

    def _drain(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        try:
            for commit in sorted(set(waiting.values()), key=lambda commit: commit.iteration):
                self._write(commit)
                waiting = {pointer: other for pointer, other in waiting.items() if other is not commit}
            self.failure = None
        except StorageError as error:
            if not self.failure:
                self._say(f"checkpoint not stored, training goes on and it is tried again: {error}")
            self.failure = error
        finally:
            with self._lock:
                self._waiting = waiting | self._waiting  # what came meanwhile is newer

    def _write(self, commit: Commit) -> None:
        self._store.write(commit.part_name, commit.part)
        self._store.write(commit.manifest_name, commit.manifest)
        if commit.best:
            self._store.write("BEST", commit.manifest_name.encode())
        self._store.write("LATEST", commit.manifest_name.encode())  # the commit point: from here on it counts
        self.durable = commit.iteration
        self._prune()

    def _prune(self) -> None:
        """Deletes all but the newest, the best and what the pointers name; manifests first: none lacks its parts."""
        names = self._manifests()
        pointed = {self._pointer("LATEST"), self._pointer("BEST")}
        kept = {name for name in names if name in pointed or name in names[: self._keep]}
        if self._pointer("BEST") not in names:  # none was the best yet, or the pointer is damaged
            kept |= set(filter(self._was_best, names))
        for name in names:
            if name not in kept:
                self._store.delete(name)
        needed = {part["name"] for name in kept for part in self._parts_of(name)}
        for name in self._store.list("parts/"):
            if name not in needed:
                self._store.delete(name)

    def _parts_of(self, name: str) -> list[dict[str, Any]]:
        try:
            return list(self._manifest(name)["parts"])
        except Damaged:
            return []  # nobody can load it any more

    # reading

    def _load(self, pointer: str) -> MetaState | None:
        self._thread.submit(self._drain).result()
        with self._lock:
            unstored = self._waiting.get(pointer)
        if unstored:
            return MetaState.from_tensors(unstored.iteration, load(unstored.part))
        candidates = self._candidates(pointer)
        for name in candidates:
            try:
                return self._state(name)
            except Damaged as damage:
                self._say(f"{damage}; the newest intact checkpoint beside it is taken")
        if candidates:  # not None: that would begin again without a word
            raise StorageError(
                f"{self._store.address()}: all {len(candidates)} checkpoints are damaged; start a new run"
            )
        return None

    def _candidates(self, pointer: str) -> list[str]:
        """The manifest a pointer names, then the others, newest first; for BEST first those once saved as the best."""
        named = self._pointer(pointer)
        others = [name for name in self._manifests() if name != named]
        if pointer == "BEST":
            others.sort(key=lambda name: not self._was_best(name))
            if not named and not (others and self._was_best(others[0])):
                return []  # nothing was ever the best
        if others and not named:
            self._say(f"{self._store.address(pointer)} is missing or damaged; the newest intact checkpoint is taken")
        return [named, *others] if named else others

    def _was_best(self, name: str) -> bool:
        try:
            return bool(self._manifest(name)["best"])
        except Damaged:
            return False

    def _manifests(self) -> list[str]:
        return [name for name in reversed(self._store.list("manifests/")) if _MANIFEST.fullmatch(name)]

    def _pointer(self, pointer: str) -> str | None:
        """The manifest a pointer names; None where there is no pointer or it is damaged."""
        try:
            name = self._store.read(pointer).decode(errors="replace")
        except MissingArtifact:
            return None
        return name if _MANIFEST.fullmatch(name) else None

    def _manifest(self, name: str) -> dict[str, Any]:
        data = self._read(name)
        match = _MANIFEST.fullmatch(name)
        if not match or not hashlib.sha256(data).hexdigest().startswith(match[2]):
            raise Damaged(f"{self._store.address(name)} is damaged: its SHA-256 is not the one in its name")
        record: dict[str, Any] = json.loads(data)
        return record

    def _state(self, name: str) -> MetaState:
        record = self._manifest(name)
        tensors: dict[str, Tensor] = {}
        for part in record["parts"]:
            data = self._read(part["name"])
            if len(data) != part["size"] or hashlib.sha256(data).hexdigest() != part["sha256"]:
                raise Damaged(f"{self._store.address(part['name'])} is damaged: {len(data)} bytes with another SHA-256")
            tensors |= load(data)
        state = MetaState.from_tensors(record["iteration"], tensors)
        if state.sha256() != record["state_sha256"]:
            raise Damaged(f"{self._store.address(name)} names another state than its parts hold")
        return state

    def _read(self, name: str) -> bytes:
        try:
            return self._store.read(name)
        except MissingArtifact as error:
            raise Damaged(str(error)) from error
