"""MiniImageNet: photographs of 100 classes; section 5.2 of Finn, Abbeel, Levine (2017)."""

from dataclasses import dataclass

from meta_service.data import miniimagenet
from meta_service.data.cache import Images, once_per_process
from meta_service.episode import Signature, Split
from meta_service.tasks.few_shot import ClassTable, FewShot, LossScale, class_table


@dataclass(frozen=True)
class MiniImageNet(FewShot):
    """Tells photographs apart: 84 x 84 RGB in [0, 1], classes split 64 / 16 / 20 (Ravi, Larochelle 2017)."""

    ways: int = 5
    """N: classes of a task; at most 16, the classes for validation."""
    shots: int = 1
    """K: support examples of a class."""
    query_shots: int = 15
    """Query examples of a class; the paper trains with 15, and its code tests with K."""
    loss_scale: LossScale = "sum_over_k"
    """`sum_over_k` (the authors' code) or `mean`; see `loss`."""
    transductive: bool = True
    """Whether query examples are normalised by their own statistics (the authors' code), or by the support set's."""

    title = "MiniImageNet"

    @property
    def signature(self) -> Signature:
        return Signature((miniimagenet.CHANNELS, miniimagenet.SIZE, miniimagenet.SIZE), self.ways)

    @property
    def queries(self) -> int:
        return self.query_shots

    def images(self) -> Images:
        return _images()

    def table(self, split: Split) -> ClassTable:
        return _table(split)


@once_per_process
def _images() -> Images:
    return miniimagenet.images()


@once_per_process
def _table(split: Split) -> ClassTable:
    images = _images()
    return class_table(images, [name for name in images.classes if name.startswith(f"{split}/")])
