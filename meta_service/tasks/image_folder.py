"""A user's own images as few-shot tasks."""

from dataclasses import dataclass
from pathlib import Path

from meta_service.data import image_folder
from meta_service.data.cache import Images, once_per_process
from meta_service.episode import Signature, Split
from meta_service.errors import UserError
from meta_service.tasks.few_shot import ClassTable, FewShot, LossScale, class_table


@dataclass(frozen=True)
class ImageFolder(FewShot):
    """Tells apart the classes of a folder or archive `<split>/<class>/<image>`: train, validation (or val), test."""

    path: str = ""
    """The folder, .zip or .tar.gz; made absolute, and to be reachable from every worker."""
    size: int = 84
    """Height and width in pixels that images are resized to; the aspect ratio is not kept."""
    channels: int = 3
    """3 for RGB, 1 for grey."""
    ways: int = 5
    """N: classes of a task."""
    shots: int = 1
    """K: support examples of a class."""
    query_shots: int = 15
    """Query examples of a class."""
    loss_scale: LossScale = "sum_over_k"
    """`sum_over_k` (the authors' code) or `mean`; see `loss`."""
    transductive: bool = True
    """Whether query examples are normalised by their own statistics (the authors' code), or by the support set's."""

    title = "image folder"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise UserError(f"tasks.channels is {self.channels}, expected 3 (RGB) or 1 (grey)")
        if not 1 <= self.size <= 1024:
            raise UserError(f"tasks.size is {self.size}, expected 1 to 1024 pixels")
        if self.path:
            # a worker's current folder is another one
            object.__setattr__(self, "path", str(Path(self.path).expanduser().absolute()))

    @property
    def signature(self) -> Signature:
        return Signature((self.channels, self.size, self.size), self.ways)

    @property
    def queries(self) -> int:
        return self.query_shots

    def images(self) -> Images:
        return _images(self.path, self.size, self.channels)

    def table(self, split: Split) -> ClassTable:
        return _table(self.path, self.size, self.channels, split)


@once_per_process
def _images(path: str, size: int, channels: int) -> Images:
    return image_folder.images(path, size, channels)


@once_per_process
def _table(path: str, size: int, channels: int, split: Split) -> ClassTable:
    images = _images(path, size, channels)
    return class_table(images, [name for name in images.classes if name.startswith(f"{split}/")])
