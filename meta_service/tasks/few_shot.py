"""Few-shot classification: N classes, K examples of each to adapt on, and others to judge by."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from meta_service.data.cache import Images, forget_unless_fresh
from meta_service.data.labelled import starts
from meta_service.episode import Batch, Predict, Signature, Split
from meta_service.errors import UserError
from meta_service.losses import CrossEntropy

LossScale = Literal["sum_over_k", "mean"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class ClassTable(NamedTuple):
    """The classes of one split."""

    pixels: np.ndarray
    """[images, channels, height, width] uint8: all images of the data set, of which the classes are blocks."""
    starts: np.ndarray
    """[classes] the first image of each class."""
    counts: np.ndarray
    """[classes] how many images each class has."""
    names: tuple[str, ...]


def class_table(images: Images, names: Iterable[str]) -> ClassTable:
    """The named classes of a prepared data set, in the order given."""
    chosen, first = tuple(names), starts(images.classes)
    return ClassTable(
        images.pixels,
        np.array([first[name] for name in chosen], np.int64),
        np.array([images.classes[name] for name in chosen], np.int64),
        chosen,
    )


class FewShot(ABC):
    """What all image tasks share; each adds its fields, its images and its class split."""

    # the fields of the frozen dataclasses below, which document them
    ways: int
    shots: int
    loss_scale: LossScale
    transductive: bool

    title = "images"
    """What messages call the data set."""

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            if (value := getattr(self, name)) < least:
                name = name.replace("queries", "query_shots")
                raise UserError(f"tasks.{name} is {value}, expected at least {least}")
        if self.loss_scale not in ("sum_over_k", "mean"):
            raise UserError(f"tasks.loss_scale is {self.loss_scale!r}, expected 'sum_over_k' or 'mean'")

    @property
    def metric_name(self) -> str:
        return "accuracy"

    @property
    @abstractmethod
    def signature(self) -> Signature: ...

    @property
    @abstractmethod
    def queries(self) -> int:
        """How many query examples a class has."""

    @abstractmethod
    def images(self) -> Images:
        """The prepared data set; prepares it where it is not yet."""

    @abstractmethod
    def table(self, split: Split) -> ClassTable:
        """The classes of a split; remembered in this process."""

    def turns(self) -> int:
        """By how many quarter turns a class may be turned to be another class: 1 for none, or 4."""
        return 1

    def prepare(self) -> str:
        """Makes the images ready on this machine, once, and returns the SHA-256 of their content.

        Data that have changed are noticed, if not within the seconds after they were read. Raises UserError where data
        are missing, broken or too few for `ways`, `shots` and the query examples.
        """
        forget_unless_fresh()
        digest = self.images().sha256
        for split in SPLITS:
            table = self.table(split)
            if len(table.counts) < self.ways:
                raise UserError(
                    f"tasks.ways: {self.title} split '{split}' has {len(table.counts)} classes, {self.ways} asked; "
                    f"use tasks.ways <= {len(table.counts)}"
                )
            least, asked = int(table.counts.min()), self.shots + self.queries
            if least < asked:
                raise UserError(
                    f"tasks.shots: {self.title} class {table.names[int(table.counts.argmin())]!r} has {least} images, "
                    f"{self.shots} shots + {self.queries} query examples asked; use at most {least} together"
                )
        return digest

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        """The task that `seed` names: x float32 [ways * shots, channels, height, width] in [0, 1], y int64.

        Examples stand class by class, the classes 0 .. ways - 1 in the order they were drawn. No image is in both
        sets. The query's inputs are (x,), or (x, support x) where the mode is inductive.
        """
        table, rng = self.table(split), np.random.default_rng(seed)
        chosen = rng.choice(len(table.counts), self.ways, replace=False)
        size = self.shots + self.queries
        drawn = np.stack([table.starts[i] + rng.choice(table.counts[i], size, replace=False) for i in chosen])
        # drawn last, so that tasks with and without turning consist of the same images
        turns = rng.integers(self.turns(), size=self.ways)
        support, support_y = _examples(table.pixels, drawn[:, : self.shots], turns)
        query, query_y = _examples(table.pixels, drawn[:, self.shots :], turns)
        inputs = (query,) if self.transductive else (query, support)
        return Batch((support,), support_y), Batch(inputs, query_y)

    @property
    def output_loss(self) -> CrossEntropy:
        """Cross-entropy.

        `mean`: over all examples. `sum_over_k`: the sum over examples divided by `shots`, as in the authors' code. On
        the support set that is `ways` times the mean, so a step of alpha is one of ways * alpha on the mean: 5-way 0.4
        is 2.0, 20-way 0.1 is 2.0, MiniImageNet's 0.01 is 0.05.
        """
        return CrossEntropy(None if self.loss_scale == "mean" else self.shots)

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        """`output_loss` of f_theta; scalar []."""
        return self.output_loss.value(predict(*batch.inputs), batch.targets)

    def metric(self, predict: Predict, batch: Batch) -> Tensor:
        """The share of examples whose class has the largest logit; scalar [] in [0, 1]."""
        logits = predict(*batch.inputs)
        return (logits.argmax(-1) == batch.targets).to(logits.dtype).mean()


def _examples(pixels: np.ndarray, indices: np.ndarray, turns: np.ndarray) -> tuple[Tensor, Tensor]:
    """The images at `indices` [ways, examples], those of each class turned, and their classes."""
    ways, examples = indices.shape
    taken = pixels[indices.ravel()]
    for i in np.flatnonzero(turns):
        block = slice(i * examples, (i + 1) * examples)
        taken[block] = np.rot90(taken[block], turns[i], axes=(-2, -1)).copy()
    x = np.divide(taken, np.float32(255), dtype=np.float32)
    return torch.from_numpy(x), torch.from_numpy(np.repeat(np.arange(ways), examples))
