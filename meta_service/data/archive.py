"""Files out of folders and archives, read in place: nothing is ever unpacked to disk."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from meta_service.errors import UserError

SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_FILE = 64 * 2**20  # bytes: no image of a data set is near it
MAX_RATIO = 100  # what unpacks to more than this is a bomb: images hardly compress
MAX_DEPTH = 3  # <split>/<class>/<image>, <alphabet>/<character>/<image>

Wanted = Callable[[str], bool]


def files(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """The name and content of every regular file in a folder or archive; b"" for those that are not `wanted`.

    A folder gives names sorted, an archive its own order. In a folder links are followed (they are the user's own);
    in an archive a link, a path that leads outside, or an absurd size raises UserError, and so does damage.
    """
    if path.is_dir():
        return _folder(path, wanted)
    return _zip(path, wanted) if path.name.endswith(".zip") else _tar(path, wanted)


def names(path: Path) -> list[str]:
    """The names of all regular files, as `files` gives them."""
    return [name for name, _ in files(path, lambda name: False)]


def _folder(root: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with _reading(root):
        for name in _below(root, "", MAX_DEPTH):
            yield name, (root / name).read_bytes() if wanted(name) else b""


def _below(root: Path, prefix: str, depth: int) -> Iterator[str]:
    for entry in sorted(os.scandir(root / prefix), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        if entry.is_file():
            yield name
        elif entry.is_dir() and depth > 1:
            yield from _below(root, f"{name}/", depth - 1)


def _zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        _check_total(path, sum(member.file_size for member in members), _limit(path))
        for member in members:
            # 0 where the archive was made on a system without such modes
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check_member(path, member.filename, member.file_size, kind in (0, stat.S_IFREG))
            yield member.filename, archive.read(member) if wanted(member.filename) else b""


def _tar(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    compressed = not path.name.endswith(".tar")
    with (
        _reading(path),
        open(path, "rb") as file,
        tarfile.open(fileobj=_Limited(path, file, compressed), mode="r:") as archive,
    ):
        for member in archive:
            if member.isdir():
                continue
            _check_member(path, member.name, member.size, member.isreg() and not member.issparse())
            content = archive.extractfile(member) if wanted(member.name) else None
            yield member.name, content.read() if content else b""


class _Limited(io.RawIOBase):
    """A tar's bytes, in sane amounts: tarfile itself would believe a header that announces terabytes of header."""

    def __init__(self, path: Path, file: io.BufferedReader, compressed: bool) -> None:
        self._path, self._limit = path, _limit(path)
        self._stream = gzip.GzipFile(fileobj=file) if compressed else file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_FILE:
            raise UserError(f"{self._path} announces a part of {size:,} bytes, at most {MAX_FILE:,} are read")
        content = self._stream.read(size)
        _check_total(self._path, self._stream.tell(), self._limit)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


def _limit(path: Path) -> int:
    return MAX_FILE + MAX_RATIO * path.stat().st_size


def _check_total(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise UserError(
            f"{path} unpacks to more than {limit:,} bytes, {MAX_RATIO} times its size: not an image archive"
        )


def _check_member(path: Path, name: str, size: int, regular: bool) -> None:
    inside = PurePosixPath(name.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts:
        raise UserError(f"{path} has a member that leads outside the archive: {name!r}; use another archive")
    if not regular:
        raise UserError(f"{path} has a member that is not a plain file: {name!r}; use an archive without links")
    if size > MAX_FILE:
        raise UserError(f"{path} has a member of {size:,} bytes: {name!r}; an image has at most {MAX_FILE:,}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    # RuntimeError and NotImplementedError are zipfile's words for encryption and unknown methods
    damage = (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
    try:
        yield
    except damage as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): it may be cut off or damaged; fetch it again") from error
