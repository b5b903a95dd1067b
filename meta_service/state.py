"""All that meta-training carries from one outer step to the next."""

from typing import NamedTuple

from torch import Tensor

from meta_service.params import Params, sha256


class MetaState(NamedTuple):
    """theta, the outer optimiser's memory and the number of outer steps taken: the one place of state."""

    iteration: int
    params: Params
    optimizer: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under one name: what a checkpoint keeps."""
        theta = {f"params/{name}": value for name, value in self.params.items()}
        return theta | {f"optimizer/{name}": value for name, value in self.optimizer.items()}

    @staticmethod
    def from_tensors(iteration: int, tensors: dict[str, Tensor]) -> "MetaState":
        """The inverse of `tensors`."""
        params = {name.removeprefix("params/"): t for name, t in tensors.items() if name.startswith("params/")}
        optimizer = {name.removeprefix("optimizer/"): t for name, t in tensors.items() if name.startswith("optimizer/")}
        return MetaState(iteration, params, optimizer)

    def sha256(self) -> str:
        """The digest two runs share if and only if they are the same, bit by bit."""
        return sha256(self.tensors())
