"""The Omniglot images (Lake, Salakhutdinov, Tenenbaum 2015): 1,623 characters, each drawn by 20 people."""

from collections.abc import Iterable
from pathlib import Path

from meta_service.data import labelled
from meta_service.data.cache import Images, Source, cache_root, data_root, prepared
from meta_service.data.download import DownloadError, download
from meta_service.errors import UserError

ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
SHA256 = {
    "images_background.zip": "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    "images_evaluation.zip": "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
}
CHARACTERS = {"background": 964, "evaluation": 659}
DRAWINGS = 20
SIZE = 28  # pixels; the originals have 105


def images() -> Images:
    """All drawings [32,460, 1, 28, 28], ink = 255; classes are `<background or evaluation>/<alphabet>/<character>`.

    Sought in DATA_ROOT, else downloaded. Raises UserError where there is neither, or the archives are not whole.
    """
    return prepared(f"omniglot-{SIZE}", "Omniglot", _find, _fetch)


def _find() -> Source | None:
    """`images_background` and `images_evaluation`, zipped or unpacked, in DATA_ROOT/omniglot or DATA_ROOT."""
    root = data_root()
    for folder in (root / "omniglot", root) if root else ():
        options = {part: (folder / f"images_{part}.zip", folder / f"images_{part}") for part in CHARACTERS}
        found = {part: next((path for path in paths if path.exists()), None) for part, paths in options.items()}
        places = {part: path for part, path in found.items() if path is not None}
        if places:
            missing = [f"images_{part}.zip" for part in CHARACTERS if part not in places]
            if missing:
                raise UserError(f"Omniglot in {folder} has no {missing[0]}; fetch it from {ADDRESS}{missing[0]}")
            return _source(places)
    return None


def _fetch() -> Source:
    folder = cache_root() / "downloads"
    try:
        for name, digest in SHA256.items():
            download(f"{ADDRESS}{name}", folder / name, digest)
    except DownloadError as error:
        files = " and ".join(f"{ADDRESS}{name}" for name in SHA256)
        raise UserError(
            f"Omniglot is not on this machine and cannot be downloaded ({error}); fetch {files} "
            "into a folder and set DATA_ROOT=<that folder>"
        ) from error
    return _source({part: folder / f"images_{part}.zip" for part in CHARACTERS})


def _source(places: dict[str, Path]) -> Source:
    return labelled.source("Omniglot", places, _label, lambda classes: _check(classes, places), SIZE, 1, negative=True)


def _label(name: str) -> str | None:
    parts = name.split("/")
    return f"{parts[0]}/{parts[-3]}/{parts[-2]}" if len(parts) > 3 else None


def _check(classes: dict[str, int], places: dict[str, Path]) -> None:
    for part, expected in CHARACTERS.items():
        came = _count(classes, part)
        if came != expected:
            raise UserError(f"Omniglot's '{part}' has {came} characters, expected {expected} (in {places[part]})")
    for known, count in classes.items():
        if count != DRAWINGS:
            place = places[known.split("/")[0]]
            raise UserError(f"Omniglot's {known!r} has {count} drawings, expected {DRAWINGS} (in {place})")


def _count(classes: Iterable[str], part: str) -> int:
    return sum(known.startswith(f"{part}/") for known in classes)
