"""Fully connected networks: sinusoid regression, and the paper's Omniglot network without convolutions."""

from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import linear

from meta_service.adjoint.network import Layer, Network
from meta_service.episode import Signature
from meta_service.errors import UserError
from meta_service.models.normalization import normalize
from meta_service.params import Params


@dataclass(frozen=True)
class MLP:
    """Linear layers with ReLU between them.

    Initialised as in the authors' code: weights from a normal distribution cut off at two sigma, biases zero.
    """

    hidden: tuple[int, ...] = (40, 40)
    """Units of each hidden layer."""
    batch_norm: bool = False
    """Normalise before each ReLU by batch statistics."""
    init_std: float = 0.01
    """Sigma of the initial weights."""

    def __post_init__(self) -> None:
        if min(self.hidden, default=1) < 1 or self.init_std <= 0:
            raise UserError(f"model: hidden units >= 1 and init_std > 0 are expected, {self} came")

    def init(self, seed: int, signature: Signature) -> Params:
        """theta for inputs and outputs of these shapes, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        widths = [prod(signature.inputs), *self.hidden, signature.outputs]
        params: Params = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            weight = torch.empty(fan_out, fan_in)
            std = self.init_std
            torch.nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std, generator=generator)
            params[f"linear{layer}.weight"] = weight
            params[f"linear{layer}.bias"] = torch.zeros(fan_out)
            if self.batch_norm and layer < len(self.hidden):
                params[f"norm{layer}.shift"] = torch.zeros(fan_out)
        return params

    def apply(self, params: Params, x: Tensor, context: Tensor | None = None) -> Tensor:
        """f_theta(x): [examples, ...] -> [examples, outputs]; normalised by the statistics of `context`, if given."""
        rows = 0 if context is None or not self.batch_norm else context.shape[0]
        h = (x if context is None or not rows else torch.cat((context, x))).flatten(1)
        for layer in range(len(self.hidden)):
            h = linear(h, params[f"linear{layer}.weight"], params[f"linear{layer}.bias"])
            if self.batch_norm:
                h = normalize(h, params[f"norm{layer}.shift"], rows)
            h = h.relu()
        last = len(self.hidden)
        return linear(h[rows:], params[f"linear{last}.weight"], params[f"linear{last}.bias"])

    @property
    def network(self) -> Network:
        """The same function, differentiated by hand."""
        norms = [f"norm{layer}.shift" if self.batch_norm else None for layer in range(len(self.hidden))]
        return Network(
            tuple(Layer(f"linear{layer}", norm) for layer, norm in enumerate(norms)), f"linear{len(self.hidden)}"
        )
