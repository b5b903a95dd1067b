"""The checkpoints in a store: parts named by their SHA-256, then a manifest, then a pointer to it.

    parts/<sha256>.safetensors              all tensors
    manifests/<iteration>-<sha256>.json     iteration, metrics, and size and SHA-256 of every part
    LATEST, BEST                            the name of a manifest, sealed

Whatever the moment of death, the pointers name something complete. Names tell what the bytes must be, so that damage is
found before use. One thread writes a store's checkpoints: of the process that owns the run, where it is owned.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from safetensors.torch import load, save

from meta_service import history
from meta_service.ownership import Owner
from meta_service.pointer import BEST, LATEST, MANIFEST, Pointer
from meta_service.state import MetaState
from meta_service.storage import ArtifactStore, MissingArtifact, StorageError


class Commit(NamedTuple):
    """A checkpoint as bytes, ready to be written."""

    iteration: int
    best: bool
    part_name: str
    part: bytes
    manifest_name: str
    manifest: bytes

    def state(self) -> MetaState:
        return MetaState.from_tensors(self.iteration, load(self.part))


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


class Commits:
    """Writes and reads the checkpoints of one store."""

    def __init__(
        self,
        store: ArtifactStore,
        say: Callable[[str], None],
        keep: int,
        owner: Owner | None = None,
        recorded: bool = False,
    ) -> None:
        """`say` is told, in a line each, of damage found; `keep`: how many, beside the best.

        `recorded`: these are the checkpoints of a run, and no baseline's: its history tells of them.
        """
        self.store, self._say, self._keep, self._owner = store, say, keep, owner
        self._recorded = recorded and history.wanted()

    def write(self, commit: Commit, newest: bool = True) -> None:
        """Stores it. Raises StorageError, and Superseded where another driver owns the run."""
        self.store.write(commit.part_name, commit.part)
        self.store.write(commit.manifest_name, commit.manifest)
        if commit.best:
            self._point(BEST, commit.manifest_name)
        if newest:
            self._point(LATEST, commit.manifest_name)  # the commit point: from here on it counts
        if self._recorded:
            state = json.loads(commit.manifest)["state_sha256"]
            history.record("committed", step=commit.iteration, state=state, where=self.store.address())
        self._prune()

    def load(self, name: str) -> Commit | None:
        """The newest intact checkpoint that pointer leads to; None where nothing was ever saved."""
        candidates = self._candidates(name)
        for manifest in candidates:
            try:
                return self._proven(manifest)
            except Damaged as damage:
                self._say(f"{damage}; the newest intact checkpoint beside it is taken")
        if candidates:  # not None: that would begin again without a word
            raise StorageError(
                f"{self.store.address()}: all {len(candidates)} checkpoints are damaged; start a new run"
            )
        return None

    def at(self, name: str) -> int | None:
        """The iteration that a pointer names."""
        pointer = self._pointer(name)
        return pointer.iteration if pointer else None

    def clear(self) -> None:
        """Deletes all; the pointers first: what lies there without them counts for nothing."""
        for name in (LATEST, BEST):
            self.store.delete(name)
        for name in (*self.store.list("manifests/"), *self.store.list("parts/")):
            self.store.delete(name)

    def sweep(self) -> None:
        """Deletes parts of which no manifest knows: of a writer that died. Only for the one writer, as it begins."""
        needed = {part["name"] for name in self._manifests() for part in self._parts_of(name)}
        for name in self.store.list("parts/"):
            if name not in needed:
                self.store.delete(name)

    # writing

    def _point(self, name: str, manifest: str) -> None:
        if self._owner:
            self._owner.point(name, manifest)
        else:
            self.store.write(name, Pointer(0, manifest).to_bytes(name))

    def _prune(self) -> None:
        """Deletes all but the newest, the best and what the pointers name, and the parts that only they needed.

        Manifests first: none lacks its parts. No other parts: a new owner may be about to write their manifest.
        """
        names = self._manifests()
        pointed = {self._named(LATEST), best := self._named(BEST)}
        kept = {name for name in names if name in pointed or name in names[: self._keep]}
        if best not in names:  # none was the best yet, or the pointer is damaged
            kept |= set(filter(self._was_best, names))
        dropped = [name for name in names if name not in kept]
        needed = {part["name"] for name in kept for part in self._parts_of(name)} if dropped else set()
        parts = {part["name"] for name in dropped for part in self._parts_of(name)} - needed
        for name in (*dropped, *sorted(parts)):
            self.store.delete(name)

    def _parts_of(self, name: str) -> list[dict[str, Any]]:
        with suppress(Damaged):
            return list(self._manifest(name)["parts"])
        return []  # nobody can load it any more

    # reading

    def _candidates(self, pointer: str) -> list[str]:
        """The manifest a pointer names, then the others, newest first; for BEST first those once saved as the best."""
        named = self._named(pointer)
        others = [name for name in self._manifests() if name != named]
        if pointer == BEST:
            others.sort(key=lambda name: not self._was_best(name))
            if not named and not (others and self._was_best(others[0])):
                return []  # nothing was ever the best
        if others and not named:
            self._say(f"{self.store.address(pointer)} is missing or damaged; the newest intact checkpoint is taken")
        return [named, *others] if named else others

    def _was_best(self, name: str) -> bool:
        with suppress(Damaged):
            return bool(self._manifest(name)["best"])
        return False

    def _manifests(self) -> list[str]:
        return [name for name in reversed(self.store.list("manifests/")) if MANIFEST.fullmatch(name)]

    def _named(self, name: str) -> str | None:
        """The manifest a pointer names; None where there is no pointer or it is damaged."""
        pointer = self._pointer(name)
        return pointer.manifest if pointer and pointer.iteration is not None else None

    def _pointer(self, name: str) -> Pointer | None:
        with suppress(MissingArtifact):
            return Pointer.from_bytes(name, self.store.read(name))
        return None

    def _manifest(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self._manifest_bytes(name))
        return record

    def _manifest_bytes(self, name: str) -> bytes:
        data = self._read(name)
        match = MANIFEST.fullmatch(name)
        if not match or not hashlib.sha256(data).hexdigest().startswith(match[2]):
            raise Damaged(f"{self.store.address(name)} is damaged: its SHA-256 is not the one in its name")
        return data

    def _proven(self, name: str) -> Commit:
        """The checkpoint of a manifest, once it is seen that each of its bytes is as it was written."""
        manifest = self._manifest_bytes(name)
        record = json.loads(manifest)
        (part,) = record["parts"]
        data = self._read(part["name"])
        if len(data) != part["size"] or hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise Damaged(f"{self.store.address(part['name'])} is damaged: {len(data)} bytes with another SHA-256")
        commit = Commit(record["iteration"], record["best"], part["name"], data, name, manifest)
        if commit.state().sha256() != record["state_sha256"]:
            raise Damaged(f"{self.store.address(name)} names another state than its parts hold")
        return commit

    def _read(self, name: str) -> bytes:
        try:
            return self.store.read(name)
        except MissingArtifact as error:
            raise Damaged(str(error)) from error
