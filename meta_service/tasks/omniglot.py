"""Omniglot: handwritten characters; section 5.2 of Finn, Abbeel, Levine (2017)."""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from meta_service.data import omniglot
from meta_service.data.cache import Images, once_per_process
from meta_service.episode import Signature, Split
from meta_service.errors import UserError
from meta_service.tasks.few_shot import ClassTable, FewShot, LossScale, class_table

CharacterSplit = Literal["code", "paper", "vinyals"]

VINYALS_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TEST = (
    *("Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti"),
    *("Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG"),
)
"""The alphabets of the split; and of Gurmukhi, alone divided, the characters from 42 on."""


@dataclass(frozen=True)
class Omniglot(FewShot):
    """Tells characters apart: 28 x 28, ink = 1."""

    ways: int = 5
    """N: classes of a task."""
    shots: int = 1
    """K: support examples of a class."""
    query_shots: int | None = None
    """Query examples of a class; as many as `shots` where not given, as in the paper."""
    split: CharacterSplit = "code"
    """Which characters are for training, validation and test, drawn irrespective of alphabet: `code` 1,100 / 100 / 423
    (the authors' code); `paper` 1,200 / 100 / 423, whose validation characters are 100 of the training ones, as the
    paper names none, and whose test characters are those of `code`; `vinyals` 1,028 / 172 / 423 by alphabets (Vinyals
    et al. 2016). The authors' order depended on their file system; here it is that of the SHA-256 of the names."""
    rotations: bool = True
    """Whether a character turned by 90, 180 or 270 degrees is a class of its own, in every split; a task never has the
    same character twice."""
    loss_scale: LossScale = "sum_over_k"
    """`sum_over_k` (the authors' code) or `mean`; see `loss`."""
    transductive: bool = True
    """Whether query examples are normalised by their own statistics (the authors' code), or by the support set's."""

    title = "Omniglot"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in get_args(CharacterSplit):
            raise UserError(f"tasks.split is {self.split!r}, expected one of {', '.join(get_args(CharacterSplit))}")

    @property
    def signature(self) -> Signature:
        return Signature((1, omniglot.SIZE, omniglot.SIZE), self.ways)

    @property
    def queries(self) -> int:
        return self.shots if self.query_shots is None else self.query_shots

    def images(self) -> Images:
        return _images()

    def table(self, split: Split) -> ClassTable:
        return _table(self.split, split)

    def turns(self) -> int:
        return 4 if self.rotations else 1


@once_per_process
def _images() -> Images:
    return omniglot.images()


@once_per_process
def _table(kind: CharacterSplit, split: Split) -> ClassTable:
    images = _images()
    return class_table(images, characters(list(images.classes), kind)[split])


def characters(names: list[str], kind: CharacterSplit) -> dict[Split, list[str]]:
    """The characters `<background or evaluation>/<alphabet>/<character>` of each split; see `Omniglot.split`."""
    if kind == "vinyals":
        parts: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
        for name in names:
            parts[_vinyals(name)].append(name)
        return parts
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return {"train": order[: 1100 if kind == "code" else 1200], "validation": order[1100:1200], "test": order[1200:]}


def _vinyals(name: str) -> Split:
    _, alphabet, character = name.split("/")
    if alphabet in VINYALS_VALIDATION:
        return "validation"
    gurmukhi = alphabet == "Gurmukhi" and character >= "character42"
    return "test" if alphabet in VINYALS_TEST or gurmukhi else "train"
