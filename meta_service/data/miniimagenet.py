"""The MiniImageNet images (Vinyals et al. 2016) in the class split of Ravi and Larochelle (2017)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from meta_service.data import archive, labelled
from meta_service.data.cache import Contents, Images, Source, cache_root, data_root, prepared
from meta_service.data.download import DownloadError, download
from meta_service.data.pickled import load_arrays
from meta_service.errors import UserError

ADDRESS = "https://zenodo.org/record/7978538/files/"
CLASSES = {"train": 64, "validation": 16, "test": 20}
IMAGES = 600  # of each class
SIZE = 84  # pixels
CHANNELS = 3
FOLDERS = ("miniimagenet", "mini-imagenet", "")
"""Where in DATA_ROOT they may stand; the last is DATA_ROOT itself."""


def images() -> Images:
    """All images [60,000, 3, 84, 84], RGB; classes are `<split>/<class>`.

    Sought in DATA_ROOT, else downloaded. Raises UserError where there is neither, or the archives are not whole.
    """
    return prepared(f"miniimagenet-{SIZE}", "MiniImageNet", _find, _fetch)


def pickle_name(split: str) -> str:
    return f"mini-imagenet-cache-{split}.pkl"


def _find() -> Source | None:
    """`{train,val,test}` as archive or folder, or the three pickle files, in DATA_ROOT/miniimagenet or DATA_ROOT."""
    root = data_root()
    for folder in (root / name for name in FOLDERS) if root else ():
        for options, source in ((_archives, _files), (_pickles, _arrays)):
            found = {split: next(filter(Path.exists, options(folder, split)), None) for split in CLASSES}
            places = {split: path for split, path in found.items() if path is not None}
            missing = [split for split in CLASSES if split not in places]
            if places and missing:
                wanted = " or ".join(path.name for path in options(folder, missing[0]))
                raise UserError(f"MiniImageNet in {folder} has no split '{missing[0]}'; put {wanted} there")
            if places:
                return source(places)
    return None


def _archives(folder: Path, split: str) -> list[Path]:
    names = ("val", "validation") if split == "validation" else (split,)
    return [folder / f"{name}{suffix}" for name in names for suffix in (*archive.SUFFIXES, "")]


def _pickles(folder: Path, split: str) -> list[Path]:
    return [folder / pickle_name(name) for name in (("val", split) if split == "validation" else (split,))]


def _fetch() -> Source:
    folder = cache_root() / "downloads"
    places = {split: folder / pickle_name(split) for split in CLASSES}
    try:
        for path in places.values():
            download(f"{ADDRESS}{path.name}", path)
    except DownloadError as error:
        files = ", ".join(f"{ADDRESS}{path.name}" for path in places.values())
        raise UserError(
            f"MiniImageNet is not on this machine and cannot be downloaded ({error}); fetch {files} into a folder and "
            "set DATA_ROOT=<that folder>, or set it to a folder with train.tar.gz, val.tar.gz and test.tar.gz "
            "or train/, val/ and test/, each of <class>/<image>"
        ) from error
    source = _arrays(places)

    def read() -> Contents:
        try:
            return source.read()
        except UserError:  # no checksum of these files is published that could have told earlier
            for path in places.values():
                path.unlink(missing_ok=True)
            raise

    return Source(source.fingerprint, read)


def _files(places: dict[str, Path]) -> Source:
    return labelled.source("MiniImageNet", places, _label, _check(places), SIZE, CHANNELS)


def _label(name: str) -> str | None:
    parts = name.split("/")
    return f"{parts[0]}/{parts[-2]}" if len(parts) > 2 else None


def _arrays(places: dict[str, Path]) -> Source:
    """The published pickle files: {'image_data': uint8 [N, 84, 84, 3], 'class_dict': {class: indices [600]}}."""

    def read() -> Contents:
        found = {split: _table(path) for split, path in places.items()}
        classes = {
            f"{split}/{known}": len(indices)
            for split, (_, table) in sorted(found.items())
            for known, indices in sorted(table.items())
        }
        _check(places)(classes)
        return Contents(classes, (CHANNELS, SIZE, SIZE), pixels(found))

    def pixels(found: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]) -> Iterator[tuple[int, np.ndarray]]:
        position = 0
        for _, (array, table) in sorted(found.items()):
            for _, indices in sorted(table.items()):
                for index in indices:
                    yield position, array[index].transpose(2, 0, 1)
                    position += 1

    return Source(labelled.fingerprint(places), read)


def _table(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    content = load_arrays(path)
    try:
        array, table = content["image_data"], content["class_dict"]
        if array.dtype != np.uint8 or array.shape[1:] != (SIZE, SIZE, CHANNELS):
            raise ValueError(f"image_data is {array.dtype} {list(array.shape)}")
        indices = {str(known): np.asarray(chosen, np.int64) for known, chosen in table.items()}
        every = np.concatenate([*indices.values(), np.empty(0, np.int64)])
        if not ((every >= 0) & (every < len(array))).all() or len(np.unique(every)) != len(every):
            raise ValueError("class_dict points outside image_data or at one image twice")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        expected = f"'image_data' uint8 [N, {SIZE}, {SIZE}, {CHANNELS}] and 'class_dict' of its indices"
        raise UserError(f"{path} is not a MiniImageNet pickle ({error}); expected {expected}") from error
    return array, indices


def _check(places: dict[str, Path]) -> Callable[[dict[str, int]], None]:
    def check(classes: dict[str, int]) -> None:
        for split, expected in CLASSES.items():
            came = sum(known.startswith(f"{split}/") for known in classes)
            if came != expected:
                raise UserError(
                    f"MiniImageNet split '{split}' has {came} classes, expected {expected} (in {places[split]})"
                )
        for known, count in classes.items():
            if count != IMAGES:
                place = places[known.split("/")[0]]
                raise UserError(f"MiniImageNet class {known!r} has {count} images, expected {IMAGES} (in {place})")

    return check
