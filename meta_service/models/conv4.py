"""The paper's convolutional network for few-shot classification."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear, max_pool2d

from meta_service.adjoint.network import Layer, Network
from meta_service.episode import Signature
from meta_service.errors import UserError
from meta_service.models.normalization import normalize
from meta_service.params import Params

BLOCKS = 4


@dataclass(frozen=True)
class Conv4:
    """Four blocks of [3x3 convolution, batch normalisation, ReLU], then one linear layer.

    Initialised as Glorot and Bengio (2010), uniform, biases zero.
    """

    filters: int = 64
    """Channels of each block: 64 for Omniglot, 32 for MiniImageNet."""
    downsample: Literal["stride", "max_pool"] = "stride"
    """How a block halves its image: by a stride of 2 (Omniglot, and the mean over the image before the linear layer),
    or by 2x2 max-pooling (MiniImageNet, and all positions go into the linear layer)."""

    def __post_init__(self) -> None:
        if self.filters < 1:
            raise UserError(f"model.filters: at least 1 is expected, {self.filters} came")

    def init(self, seed: int, signature: Signature) -> Params:
        """theta for images [channels, height, width], the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        channels, height, width = signature.inputs
        if min(height, width) < 2**BLOCKS:
            raise UserError(
                f"model: images of at least {2**BLOCKS} x {2**BLOCKS} are expected, {signature.inputs} came"
            )
        params: Params = {}
        for block in range(BLOCKS):
            weight = torch.empty(self.filters, channels if block == 0 else self.filters, 3, 3)
            params[f"conv{block}.weight"] = torch.nn.init.xavier_uniform_(weight, generator=generator)
            params[f"conv{block}.bias"] = torch.zeros(self.filters)
            params[f"norm{block}.shift"] = torch.zeros(self.filters)
        positions = 1 if self.downsample == "stride" else (height >> BLOCKS) * (width >> BLOCKS)
        weight = torch.empty(signature.outputs, self.filters * positions)
        params["linear.weight"] = torch.nn.init.xavier_uniform_(weight, generator=generator)
        params["linear.bias"] = torch.zeros(signature.outputs)
        return params

    def apply(self, params: Params, x: Tensor, context: Tensor | None = None) -> Tensor:
        """f_theta(x): [examples, channels, height, width] -> logits [examples, outputs].

        Normalised by the statistics of `context` where given, else by those of x.
        """
        rows = 0 if context is None else context.shape[0]
        h = x if context is None else torch.cat((context, x))
        stride = 2 if self.downsample == "stride" else 1
        for block in range(BLOCKS):
            h = conv2d(h, params[f"conv{block}.weight"], params[f"conv{block}.bias"], stride, padding=1)
            h = normalize(h, params[f"norm{block}.shift"], rows).relu()
            if self.downsample == "max_pool":
                h = max_pool2d(h, 2)
        h = h[rows:]
        h = h.mean((2, 3)) if self.downsample == "stride" else h.flatten(1)
        return linear(h, params["linear.weight"], params["linear.bias"])

    @property
    def network(self) -> Network:
        """The same function, differentiated by hand."""
        strided = self.downsample == "stride"
        layers = [
            Layer(f"conv{block}", f"norm{block}.shift", convolution=True, stride=2 if strided else 1, pool=not strided)
            for block in range(BLOCKS)
        ]
        return Network(tuple(layers), "linear", "mean" if strided else "flatten")
