"""A policy: a Gaussian over actions whose mean is a fully connected network and whose width depends on nothing."""

import math
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import linear

from meta_service.episode import Signature
from meta_service.errors import UserError
from meta_service.params import Params


@dataclass(frozen=True)
class GaussianPolicy:
    """pi(a | o) = N(mean(o), diag(exp(2 log_std))), with ReLU between the layers; log_std is adapted, too.

    Initialised as in the paper's code: Glorot's uniform weights, biases zero.
    """

    hidden: tuple[int, ...] = (100, 100)
    """Units of each hidden layer."""
    init_std: float = 1.0
    """The initial standard deviation of every action."""
    min_std: float = 1e-6
    """No standard deviation falls below it."""

    def __post_init__(self) -> None:
        if min(self.hidden, default=1) < 1 or not 0 < self.min_std <= self.init_std:
            raise UserError(f"model: hidden units >= 1 and 0 < min_std <= init_std are expected, {self} came")

    def init(self, seed: int, signature: Signature) -> Params:
        """theta for observations and actions of these sizes, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        params: Params = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise([prod(signature.inputs), *self.hidden, signature.outputs])):
            weight = torch.empty(fan_out, fan_in)
            torch.nn.init.xavier_uniform_(weight, generator=generator)
            params[f"linear{layer}.weight"] = weight
            params[f"linear{layer}.bias"] = torch.zeros(fan_out)
        params["log_std"] = torch.full((signature.outputs,), math.log(self.init_std))
        return params

    def apply(self, params: Params, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The mean action: [n, observations] -> [n, actions]."""
        h = x
        for layer in range(len(self.hidden)):
            h = linear(h, params[f"linear{layer}.weight"], params[f"linear{layer}.bias"]).relu()
        last = len(self.hidden)
        return linear(h, params[f"linear{last}.weight"], params[f"linear{last}.bias"])

    def log_std(self, params: Params) -> Tensor:
        """[actions], not below log(min_std)."""
        return params["log_std"].clamp(min=math.log(self.min_std))

    def log_prob(self, params: Params, x: Tensor, actions: Tensor) -> Tensor:
        """log pi(a | o), summed over the actions' dimensions: [n]."""
        log_std = self.log_std(params)
        z = (actions - self.apply(params, x)) * torch.exp(-log_std)
        return -0.5 * z.square().sum(-1) - log_std.sum() - 0.5 * math.log(2 * math.pi) * actions.shape[-1]

    def act_together(self, params: Params, observations: Tensor, noise: Tensor) -> Tensor:
        """Actions of many policies at once: params with a first axis [tasks], [tasks, K, o] and noise [tasks, K, a]."""
        h = observations
        for layer in range(len(self.hidden) + 1):
            weight, bias = params[f"linear{layer}.weight"], params[f"linear{layer}.bias"]
            h = torch.baddbmm(bias.unsqueeze(1), h if layer == 0 else h.relu_(), weight.transpose(1, 2))
        return torch.addcmul(h, self.log_std(params).exp().unsqueeze(1), noise)
