"""What a store of bytes does, and how it fails: the contract that S3 and a directory keep."""

import os
import uuid
from typing import Protocol

from meta_service.errors import UserError

Version = str
"""Names what is stored under a name: other bytes, another version."""


class StorageError(UserError):
    """The store could not do what was asked: the address, what happened and what to do, in one line."""


class MissingArtifact(StorageError):
    """The store answers, and has nothing under this name."""


class Conflict(StorageError):
    """What is stored under this name is not the version that was expected: somebody else has written it."""


class Unsupported(StorageError):
    """The store has no such operation."""


class ArtifactStore(Protocol):
    """A name -> bytes. Names are relative, parts joined by "/". Failures are StorageErrors; any thread may use it."""

    def write(self, name: str, data: bytes) -> None:
        """All of `data` or nothing: a reader never sees a part of it."""

    def read(self, name: str) -> bytes:
        """Raises MissingArtifact."""

    def read_versioned(self, name: str) -> tuple[bytes, Version]:
        """What is there, and the version of it. Raises MissingArtifact."""

    def write_if(self, name: str, data: bytes, version: Version | None) -> Version:
        """As `write`, but only over this version, or where nothing is (None); the new version. Raises Conflict.

        `data` that are there already count as written: they were, and only the answer got lost. So they must be
        nobody else's. Whether a store keeps this promise is for `honours_conditions` to say.
        """

    def exists(self, name: str) -> bool: ...

    def list(self, prefix: str = "") -> list[str]:
        """All names that begin with `prefix`, sorted."""

    def delete(self, name: str) -> None:
        """Nothing happens where there is none."""

    def address(self, name: str = "") -> str:
        """What a user would give to another program: s3://bucket/name or a path."""

    def under(self, prefix: str) -> "ArtifactStore":
        """The same store, all names beginning with `prefix`/."""

    def check(self) -> None:
        """Writes, reads and deletes a small object; StorageError within about 10 s where that fails."""

    def tidy(self) -> None:
        """Removes what killed writers left half written."""


def checked(name: str) -> str:
    """`name`, or StorageError where it could lead out of the store."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise StorageError(f"artifact names like 'folder/file' are expected, '{name}' came")
    return name


def probe(store: ArtifactStore) -> None:
    """A write, a read and a delete."""
    name, data = f"probe-{uuid.uuid4().hex}", os.urandom(64)
    store.write(name, data)
    if store.read(name) != data:
        raise StorageError(f"{store.address()} gives back other bytes than were written; use another store")
    store.delete(name)


def honours_conditions(store: ArtifactStore) -> bool:
    """Whether `write_if` refuses what it must: a second first write, and one over a version that is gone. Tried out."""
    name = f"probe-{uuid.uuid4().hex}"
    try:
        first = store.write_if(name, b"first", None)
        refuses = _refuses(store, name, None)
        second = store.write_if(name, b"second", first)
        return refuses and second != first and _refuses(store, name, first)
    except Unsupported:
        return False
    finally:
        store.delete(name)


def _refuses(store: ArtifactStore, name: str, version: Version | None) -> bool:
    try:
        store.write_if(name, os.urandom(16), version)
    except Conflict:
        return True
    return False
