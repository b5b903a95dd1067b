"""A user's own images, `<split>/<class>/<image>` in a folder or archive."""

import hashlib
from pathlib import Path

from meta_service.data import archive, labelled
from meta_service.data.cache import Images, Source, prepared
from meta_service.errors import UserError

SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def images(path: str, size: int, channels: int) -> Images:
    """All images [images, channels, size, size]; classes are `<split>/<class>`, `val` spelled `validation`.

    Prepared anew when a file's name, size or time of change differs. Raises UserError where a split is missing.
    """
    if not path:
        raise UserError("tasks.path is empty; set it to a folder or archive of <split>/<class>/<image>")
    place = Path(path)
    if not place.is_dir() and not (place.is_file() and place.name.endswith(archive.SUFFIXES)):
        suffixes = ", ".join(archive.SUFFIXES)
        raise UserError(f"tasks.path={path} is neither a folder nor an archive ({suffixes}) of <split>/<class>/<image>")
    source = labelled.source(
        f"image folder {path}", {"": place}, _label, lambda found: _check(found, path), size, channels
    )
    source = Source(_fingerprint(place), source.read)
    name = hashlib.sha256(f"{place.resolve()} {size} {channels}".encode()).hexdigest()[:16]
    return prepared(f"image_folder-{name}", f"image folder {path}", lambda: source, lambda: source)


def _label(name: str) -> str | None:
    split, known, _ = ("", "", *name.split("/"))[-3:]
    return f"{SPLITS[split]}/{known}" if split in SPLITS else None


def _check(classes: dict[str, int], path: str) -> None:
    for split in dict.fromkeys(SPLITS.values()):
        if not any(known.startswith(f"{split}/") for known in classes):
            raise UserError(f"image folder has no split '{split}' (in {path}); expected <split>/<class>/<image>")


def _fingerprint(place: Path) -> str:
    files = [place / name for name in archive.names(place)] if place.is_dir() else [place]
    states = ((file, file.stat()) for file in files)
    facts = "\n".join(f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in states)
    return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()
