"""First and second derivatives of the policy's network, by hand: products with vectors, from activations kept once.

With h_0 = o and h_l = relu(W_l h_{l-1} + b_l), a change v of the parameters changes the activations by `along`, and a
change of the mean action goes back to the parameters by `back`; `back_along` is the derivative of `back` along v
(Pearlmutter 1994, the R operator). ReLU is piecewise linear: its own second derivative is zero.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from meta_service.params import Params

_through_relu = torch.ops.aten.threshold_backward  # (g, h, 0): g where h > 0, else 0


class Network:
    """The network of one policy on one set of observations [n, o]: its activations, and products with its Jacobian.

    A `Params` here may hold `log_std`, too; it is not looked at.
    """

    def __init__(self, params: Params, observations: Tensor) -> None:
        self.layers = sum(name.endswith(".weight") for name in params)
        self.params = params
        self.inputs = [observations]  # of each layer [n, ·]
        for layer in range(self.layers - 1):
            self.inputs.append(linear(self.inputs[-1], *self._of(params, layer)).relu_())
        self.mean = linear(self.inputs[-1], *self._of(params, self.layers - 1))
        """[n, a]"""

    def along(self, v: Params) -> tuple[list[Tensor], Tensor]:
        """The changes of the layers' inputs (of the first: none, so left out) and of the mean [n, a] along v."""
        changes: list[Tensor] = []
        change: Tensor | None = None
        for layer, h in enumerate(self.inputs):
            out = linear(h, *self._of(v, layer))
            if change is not None:
                out.addmm_(change, self.params[f"linear{layer}.weight"].t())
            if layer == self.layers - 1:
                return changes, out
            change = _through_relu(out, self.inputs[layer + 1], 0)
            changes.append(change)
        raise AssertionError("a network has a last layer")

    def back(self, g: Tensor) -> tuple[Params, list[Tensor]]:
        """J' g for g [n, a], and what arrived at each layer's output on the way [n, ·]."""
        grads: Params = {}
        arrived = [g]
        for layer in range(self.layers - 1, -1, -1):
            h = self.inputs[layer]
            grads[f"linear{layer}.weight"], grads[f"linear{layer}.bias"] = g.t() @ h, g.sum(0)
            if layer:
                g = _through_relu(g @ self.params[f"linear{layer}.weight"], h, 0)
                arrived.insert(0, g)
        return grads, arrived

    def back_along(self, v: Params, changes: list[Tensor], arrived: list[Tensor], dg: Tensor) -> Params:
        """The change of `back(g)` along v while g changes by dg [n, a]; `changes` and `arrived` are from there."""
        grads: Params = {}
        for layer in range(self.layers - 1, -1, -1):
            h, g = self.inputs[layer], arrived[layer]
            weight = dg.t() @ h
            if layer:
                weight.addmm_(g.t(), changes[layer - 1])
            grads[f"linear{layer}.weight"], grads[f"linear{layer}.bias"] = weight, dg.sum(0)
            if layer:
                dg = dg @ self.params[f"linear{layer}.weight"]
                dg = _through_relu(dg.addmm_(g, v[f"linear{layer}.weight"]), h, 0)
        return grads

    @staticmethod
    def _of(params: Params, layer: int) -> tuple[Tensor, Tensor]:
        return params[f"linear{layer}.weight"], params[f"linear{layer}.bias"]
