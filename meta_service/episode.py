"""The data of one task, as the algorithms see it."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from meta_service.params import Params

Split = Literal["train", "validation", "test"]


class Batch(NamedTuple):
    """Examples of one task. All that differs between tasks is in here, so that tasks can be stacked."""

    inputs: tuple[Tensor, ...]
    """What f_theta is called with: (x,), or (x, context) where x is to be normalised by the statistics of context.
    x: [examples, ...]."""
    targets: Tensor
    """[examples] class indices (int64), or [examples, outputs] values."""


class Episode(NamedTuple):
    """One task's data: D to adapt on, D' to judge the adapted parameters by."""

    support: tuple[Batch, ...]
    """One batch per inner step: a data set repeats it."""
    query: Batch


class Signature(NamedTuple):
    """What goes into f_theta, and what comes out."""

    inputs: tuple[int, ...]
    """The shape of one example: (features,) or (channels, height, width)."""
    outputs: int


Predict = Callable[..., Tensor]
"""f_theta with theta bound: (x [examples, ...]) or (x, context) -> [examples, outputs]."""

Loss = Callable[[Params, Batch], Tensor]
"""L(f_theta, D): scalar []."""


class Tasks(Protocol):
    """p(T), as far as a job has to know it. Frozen dataclasses; one file each in `tasks/`."""

    @property
    def shots(self) -> int:
        """K: support examples of a class (classification) or of a task (regression); trajectories of a policy."""

    @property
    def signature(self) -> Signature: ...

    @property
    def metric_name(self) -> str:
        """`accuracy` (in [0, 1], higher is better), `mse` (lower is better) or `return` (higher is better)."""

    def prepare(self) -> str:
        """Makes the data ready on this machine, once; returns the SHA-256 that names it ("" where nothing is stored).

        Raises UserError where data are missing, broken or too few for the settings.
        """


class TaskDistribution(Tasks, Protocol):
    """Tasks that are data sets, and the loss they share."""

    def sample(self, seed: int, split: Split) -> tuple[Batch, Batch]:
        """The support and query set of the task that `seed` names: the same data for the same seed, everywhere."""

    def loss(self, predict: Predict, batch: Batch) -> Tensor:
        """The training loss; scalar []."""

    def metric(self, predict: Predict, batch: Batch) -> Tensor:
        """What evaluation reports; scalar []."""


@runtime_checkable
class DrawsTogether(Protocol):
    """A task distribution that draws many tasks faster than one by one."""

    def sample_all(self, seeds: Sequence[int], split: Split) -> tuple[Batch, Batch]:
        """What `sample` gives for each seed, bit by bit, along a first axis [tasks, ...]."""
