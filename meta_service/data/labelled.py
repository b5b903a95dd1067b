"""Image files whose class is in their path, as the contents of a data set."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from meta_service.data import archive
from meta_service.data.cache import Contents, Source
from meta_service.data.picture import decode, is_picture
from meta_service.errors import UserError

Label = Callable[[str], str | None]
"""The class of an image by its name, `<place>/<path inside>`; None for what does not belong."""


def source(
    title: str,
    places: Mapping[str, Path],
    label: Label,
    check: Callable[[dict[str, int]], None],
    size: int,
    channels: int,
    negative: bool = False,
) -> Source:
    """The labelled images in several folders or archives.

    `check` sees the classes and how many images each has before any image is read, and raises what is wrong with
    them. Classes and the images of a class are sorted by name. `negative` turns black ink into 255.
    """

    def read() -> Contents:
        found: dict[str, list[str]] = {}
        for prefix, place in places.items():
            for name in archive.names(place):
                known = label(f"{prefix}/{name}") if is_picture(name) else None
                if known is not None:
                    found.setdefault(known, []).append(f"{prefix}/{name}")
        classes = {known: len(found[known]) for known in sorted(found)}
        order = [name for known in classes for name in sorted(found[known])]
        positions = {name: position for position, name in enumerate(order)}
        if len(positions) != len(order):
            twice = next(name for name, after in pairwise(order) if name == after)
            raise UserError(f"{title}: {twice!r} is there twice; use an archive with each image once")
        check(classes)
        return Contents(classes, (channels, size, size), pixels(positions))

    def pixels(positions: dict[str, int]) -> Iterator[tuple[int, np.ndarray]]:
        for prefix, place in places.items():
            for name, content in archive.files(place, lambda name, prefix=prefix: f"{prefix}/{name}" in positions):  # type: ignore[misc]
                position = positions.get(f"{prefix}/{name}")
                if position is not None:
                    image = decode(content, f"{title}: {name!r} in {place}", size, channels)
                    yield position, 255 - image if negative else image

    return Source(fingerprint(places), read)


def starts(classes: Mapping[str, int]) -> dict[str, int]:
    """The position of the first image of each class."""
    return dict(zip(classes, accumulate(classes.values(), initial=0), strict=False))


def fingerprint(places: Mapping[str, Path]) -> str:
    """Changes with the names and sizes of the archives, or the folders at the top of what is unpacked."""
    parts = [
        f"{prefix} {place.name} {sorted(os.listdir(place)) if place.is_dir() else place.stat().st_size}"
        for prefix, place in sorted(places.items())
    ]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()
