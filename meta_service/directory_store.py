"""Bytes under a name, as files of a folder."""

import fcntl
import hashlib
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

from meta_service.storage import Conflict, MissingArtifact, StorageError, Unsupported, Version, checked, probe

TEMPORARY = ".tmp"  # ends the names of files that are being written


class DirectoryStore:
    """A folder of this machine, or one all machines mount."""

    def __init__(self, path: str | Path) -> None:
        self._root = Path(path).expanduser().resolve()

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        # a reader, and this process after a crash, sees the whole file or none
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                _lock(file.fileno())  # until it is closed: nobody tidies it away
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._error(name, error) from error

    def write_if(self, name: str, data: bytes, version: Version | None) -> Version:
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY)
        except OSError as error:
            raise self._error(name, error) from error
        try:
            if not _lock(folder):
                raise Unsupported(f"{self.address()} is on a file system without locks")
            kept = _version(path.read_bytes()) if path.exists() else None
            if kept not in (version, _version(data)):
                raise Conflict(f"{self.address(name)} was changed by somebody else")
            self.write(name, data)
        except OSError as error:
            raise self._error(name, error) from error
        finally:
            os.close(folder)
        return _version(data)

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingArtifact(f"{self.address(name)} does not exist") from error
        except OSError as error:
            raise self._error(name, error) from error

    def read_versioned(self, name: str) -> tuple[bytes, Version]:
        data = self.read(name)
        return data, _version(data)

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def list(self, prefix: str = "") -> list[str]:
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self._root
        files = (path for path in start.rglob("*") if path.is_file() and not path.name.endswith(TEMPORARY))
        names = (path.relative_to(self._root).as_posix() for path in files)
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise self._error(name, error) from error

    def address(self, name: str = "") -> str:
        return str(self._root / name)

    def under(self, prefix: str) -> "DirectoryStore":
        return DirectoryStore(self._path(prefix.strip("/")))

    def check(self) -> None:
        probe(self)

    def tidy(self) -> None:
        for path in self._root.rglob(f".*{TEMPORARY}"):
            with suppress(OSError):  # another one's at work, or gone
                if time.time() - path.stat().st_mtime > 1:  # else its writer may be about to lock it
                    with path.open("rb") as file:
                        if _lock(file.fileno(), fcntl.LOCK_NB):
                            path.unlink()

    def _path(self, name: str) -> Path:
        path = self._root / checked(name)
        if not path.resolve().is_relative_to(self._root):  # through a symbolic link
            raise StorageError(f"artifact names inside {self._root} are expected, '{name}' leads out of it")
        return path

    def _error(self, name: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.address(name)}: {error.strerror or error}; check the folder's rights and free space"
        )


def _lock(descriptor: int, how: int = 0) -> bool:
    """Takes the lock of an open file or folder, which goes with its being open; False where there is none to get."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except OSError:
        return False
    return True


def _version(data: bytes) -> Version:
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable: it is a change of the folder, not of the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
