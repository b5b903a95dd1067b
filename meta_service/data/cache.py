"""Images prepared once into a memory-mapped array, which all processes of a machine share."""

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

import filelock
import numpy as np

from meta_service.data.progress import progress, say
from meta_service.errors import UserError

FRESH_S = 5.0  # so long what was read counts as unchanged: a job prepares its data once for each evaluation
FORMAT = 1  # of the cache's files; another number makes older caches be prepared anew

Ts = TypeVarTuple("Ts")
T = TypeVar("T")
_forgettable: list[Callable[[], None]] = []
_read_at = -FRESH_S  # when a remembered result was last computed


class Contents(NamedTuple):
    """What a source holds, known before its pixels are read."""

    classes: dict[str, int]
    """How many images each class has; a class is a path such as `train/n01532829`."""
    shape: tuple[int, int, int]
    """[channels, height, width] of every image."""
    images: Iterator[tuple[int, np.ndarray]]
    """(position, pixels uint8 [channels, height, width]) of every image once; classes stand in the order of `classes`,
    each a contiguous block."""


class Source(NamedTuple):
    """Where a data set's images come from."""

    fingerprint: str
    """Changes when the source does: a cache made from another source is prepared anew."""
    read: Callable[[], Contents]
    """Raises UserError where the source is broken."""


class Images(NamedTuple):
    """A prepared data set."""

    pixels: np.ndarray
    """[images, channels, height, width] uint8, memory-mapped and read-only."""
    classes: dict[str, int]
    """How many images each class has; each class is a contiguous block, in this order."""
    sha256: str
    """Of the classes, the shape and all pixels."""


def cache_root() -> Path:
    """The folder of all caches: DATA_CACHE, else `meta_service` under XDG_CACHE_HOME or ~/.cache."""
    if os.environ.get("DATA_CACHE"):
        return Path(os.environ["DATA_CACHE"]).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "meta_service"


def data_root() -> Path | None:
    """The user's own folder of data, DATA_ROOT; None where it is not set. Raises UserError where it does not exist."""
    if not os.environ.get("DATA_ROOT"):
        return None
    root = Path(os.environ["DATA_ROOT"]).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"DATA_ROOT={root} is not a folder; set it to the folder that holds the data sets, or unset it")
    return root


def once_per_process(function: Callable[[*Ts], T]) -> Callable[[*Ts], T]:
    """Remembers results by the arguments, DATA_ROOT and DATA_CACHE, until `forget` is called."""

    @functools.cache
    def remembered(environment: tuple[str | None, ...], *args: Any) -> T:
        global _read_at
        result = function(*args)
        _read_at = time.monotonic()
        return result

    @functools.wraps(function)
    def call(*args: *Ts) -> T:
        get = os.environ.get
        return remembered((get("DATA_ROOT"), get("DATA_CACHE"), get("XDG_CACHE_HOME")), *args)

    _forgettable.append(remembered.cache_clear)
    return call


def forget() -> None:
    """Makes this process look at its caches anew."""
    for clear in _forgettable:
        clear()


def forget_unless_fresh() -> None:
    """The same, unless this process has just read something: looking at a folder with many files takes long."""
    if time.monotonic() - _read_at >= FRESH_S:
        forget()


def prepared(name: str, title: str, find: Callable[[], Source | None], fetch: Callable[[], Source]) -> Images:
    """The data set `name`, prepared first where it is not yet, damaged, or made from another source.

    `find` gives the user's own source, if there is one; `fetch` downloads, and is asked only where nothing else is
    there. Processes that come at the same time wait for the one that prepares. A cache appears whole or not at all.
    Raises UserError where there are no data, they are broken, or the cache cannot be written.
    """
    folder, source = cache_root() / name, find()
    images = _opened(folder, source)
    if images is not None:
        return images
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder, title):
            images = _opened(folder, source)  # another process may have prepared it meanwhile
            if images is None:
                _prepare(folder, title, source or fetch())
                images = _opened(folder, None)
    except OSError as error:
        what = f"{title} cannot be prepared in {folder.parent} ({error})"
        raise UserError(f"{what}; set DATA_CACHE to a folder with room that can be written") from error
    if images is None:
        raise UserError(f"{title} was prepared in {folder} and cannot be read back; delete that folder and try again")
    return images


@contextmanager
def _locked(folder: Path, title: str) -> Iterator[None]:
    lock = filelock.FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0.1)
    except filelock.Timeout:
        say(f"Waiting for another process that prepares {title}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _opened(folder: Path, source: Source | None) -> Images | None:
    """The cache in a folder; None where there is none, or it is half-written, damaged or of another source."""
    try:
        index = json.loads((folder / "index.json").read_text())
        if index["format"] != FORMAT or (source is not None and index["source"] != source.fingerprint):
            return None
        mapped = np.load(folder / "images.npy", mmap_mode="r")
        classes: dict[str, int] = index["classes"]
        expected = (sum(classes.values()), *index["shape"])
        if mapped.shape != expected or mapped.dtype != np.uint8:
            return None
        # a plain view: np.memmap's own indexing is several times slower
        return Images(mapped.view(np.ndarray), classes, index["sha256"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _prepare(folder: Path, title: str, source: Source) -> None:
    partial = folder.with_name(f".{folder.name}.partial")  # whoever left one is gone: the lock is ours
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        classes, shape, images = source.read()
        total = sum(classes.values())
        with progress(f"Preparing {title}: {total:,} images, once", total) as advance:
            digest = _write(partial / "images.npy", (total, *shape), images, advance)
        digest.update(json.dumps([classes, shape]).encode())
        index = {"format": FORMAT, "source": source.fingerprint, "sha256": digest.hexdigest(), "shape": shape}
        (partial / "index.json").write_text(json.dumps({**index, "classes": classes}))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    path: Path, shape: tuple[int, ...], images: Iterator[tuple[int, np.ndarray]], advance: Callable[[int], object]
) -> "hashlib._Hash":
    """Writes images as they come, each to its place, and returns the digest of all in order."""
    with open(path, "w+b") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        )
        start, size, written = file.tell(), int(np.prod(shape[1:])), 0
        for position, pixels in images:
            # not through a memory map: a full disk is then an error, not a signal that kills the process
            file.seek(start + position * size)
            file.write(pixels.tobytes())
            advance(1)
            written += 1
        if written != shape[0]:
            raise UserError(f"{shape[0]:,} images were announced and {written:,} came; give the whole source again")
        file.flush()
        os.fsync(file.fileno())
        file.seek(start)
        digest = hashlib.sha256()
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest
