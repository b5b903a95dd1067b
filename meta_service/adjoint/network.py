"""A network of layers, differentiated by hand: loss, gradient, and Hessian-vector product, of many tasks at once.

Parameters carry a task axis: [1, ...] the same for all tasks, [T, ...] each task's own. A prefix g marks a gradient, d
the tangent in a direction v: the derivative of the same thing at params + e v by e (Pearlmutter, 1994).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from meta_service.adjoint import normalization
from meta_service.adjoint.affine import Images, Vectors, arranged
from meta_service.losses import OutputLoss
from meta_service.params import Params

CACHE_ENTRIES = 1_000_000  # of a layer's activations: 4 MB of float32
MEMORY_ENTRIES = 256_000_000  # on a GPU
ENTRIES_OF_AN_INPUT = 16  # activations for each entry of an image, in the first layer of the paper's networks


@dataclass(frozen=True)
class Layer:
    """A product with `name.weight` plus `name.bias`; then batch normalisation with the parameter `norm`, ReLU, pooling.

    With a norm the bias has no effect, and its gradient is zero. Only convolutions with a norm are pooled.
    """

    name: str
    norm: str | None = None
    convolution: bool = False
    stride: int = 1
    pool: bool = False


class Data(NamedTuple):
    """Examples of T tasks. The first `context` rows of x give the statistics; without any, all rows do."""

    x: Tensor
    """[T, context + N, H, W, C], channels last, or [T, context + N, features]."""
    targets: Tensor
    """[T, N] or [T, N, outputs]."""
    context: int = 0

    def parts(self) -> list[slice]:
        """Runs of tasks that are best computed together: as many small ones as fill the cache, large ones one by one.

        A function of the shapes alone, so that the same block gives the same bits everywhere.
        """
        entries = self.x[0].numel() * (ENTRIES_OF_AN_INPUT if self.x.dim() == 5 else 1)
        most = max(1, (CACHE_ENTRIES if self.x.device.type == "cpu" else MEMORY_ENTRIES) // entries)
        tasks = self.x.shape[0]
        size = -(-tasks // -(-tasks // most))  # as many parts as needed, of even size
        return [slice(start, start + size) for start in range(0, tasks, size)]

    def part(self, tasks: slice) -> "Data":
        return Data(self.x[tasks], self.targets[tasks], self.context)


class Kept(NamedTuple):
    """What a layer's forward pass leaves for the others."""

    into: Images | Vectors
    norm: normalization.Forward | None
    p: Tensor
    """What comes out: [T, N, ...]."""


class Sent(NamedTuple):
    """What a layer's backward pass leaves for its tangent."""

    gz: Tensor
    norm: normalization.Backward | None


class Pass(NamedTuple):
    """A gradient, and what a Hessian-vector product at the same place needs."""

    losses: Tensor
    """[T]"""
    grads: Params
    """[T, ...] each, or [1, ...], the sum over tasks."""
    data: Data
    params: Params
    kept: tuple[Kept, ...]
    sent: tuple[Sent, ...]
    head: Vectors
    outputs: Tensor
    g_outputs: Tensor


@dataclass(frozen=True)
class Network:
    """Layers; then the mean over pixels, or all pixels in a row; then a matrix product, the `head`."""

    layers: tuple[Layer, ...]
    head: str
    summary: Literal["mean", "flatten"] = "flatten"
    curvature: torch.dtype | None = None
    """What convolutions multiply in a Hessian-vector product; none: what they do elsewhere. A product is linear in v,
    so it only loses what rounding takes; a gradient at rounded activations is that of another place."""

    def data(self, inputs: tuple[Tensor, ...], targets: Tensor) -> Data:
        """From what f_theta is called with, for T tasks: (x [T, N, C, H, W] or [T, N, ...],), or (x, context)."""
        context = inputs[1].shape[1] if len(inputs) > 1 else 0
        x = torch.cat(inputs[::-1], 1) if context else inputs[0]
        convolution = bool(self.layers) and self.layers[0].convolution
        x = x.permute(0, 1, 3, 4, 2).contiguous() if convolution else x.flatten(2)
        return Data(x, targets, context)

    @staticmethod
    def shared(params: Params) -> Params:
        """The same parameters for all tasks, as the other methods take them: [1, ...] each."""
        return {name: arranged(value[None]) for name, value in params.items()}

    def outputs(self, params: Params, data: Data) -> Tensor:
        """f_theta(x): [T, N, outputs]."""
        return self._forward(params, data)[2]

    def gradient(self, loss: OutputLoss, params: Params, data: Data, total: bool = False) -> Pass:
        """The loss and its gradient for each task, or (`total`) the sum of the gradients over tasks."""
        kept, head, outputs = self._forward(params, data)
        g_outputs = loss.gradient(outputs, data.targets)
        grads = self._head_gradient(head, g_outputs, total)
        sent: list[Sent] = []
        g = head.input_gradient(params[self._weight], g_outputs)
        if kept:
            g = self._to_pixels(g, kept[-1].p, data.context)
        for layer, k in zip(reversed(self.layers), reversed(kept), strict=True):
            if k.norm:
                norm = normalization.backward(k.norm, g)
                s = Sent(norm.gz, norm)
            else:
                s = Sent(_passed(g, k.p), None)
            sent.insert(0, s)
            grads |= _layer_gradient(layer, params, k.into, s.gz, s.norm.gshift if s.norm else None, total)
            if layer is not self.layers[0]:
                g = k.into.input_gradient(params[f"{layer.name}.weight"], s.gz)
        losses = loss.value(outputs, data.targets)
        return Pass(losses, grads, data, params, kept, tuple(sent), head, outputs, g_outputs)

    def gradient_in_parts(self, loss: OutputLoss, params: Params, data: Data) -> tuple[Params, Tensor]:
        """(gradients [T, ...] each, losses [T]), a part of the tasks after the other."""
        parts = data.parts()
        if len(parts) == 1:
            at = self.gradient(loss, params, data)
            return at.grads, at.losses
        passes = [self.gradient(loss, tasks_of(params, part), data.part(part)) for part in parts]
        grads = {name: torch.cat([of.grads[name] for of in passes]) for name in params}
        return grads, torch.cat([of.losses for of in passes])

    def hessian_product(self, loss: OutputLoss, at: Pass, v: Params, total: bool = False) -> Params:
        """The Hessian at `at`, a pass without context, times v: for each task, or (`total`) the sum over tasks."""
        params, tasks = at.params, at.outputs.shape[0]
        into = [k.into.multiplying(self.curvature) for k in at.kept]
        d_into: list[Images | Vectors] = []  # the tangent of each layer's input but the first's: x has none
        tangents: list[normalization.Tangent | None] = []
        d = None
        for layer, x, k in zip(self.layers, into, at.kept, strict=True):
            dz = x.forward(v[f"{layer.name}.weight"])
            if d is not None:
                d_into.append(x.like(d))
                dz += d_into[-1].forward(params[f"{layer.name}.weight"])
            if k.norm and layer.norm:
                t = normalization.tangent(k.norm, dz, each_task(v[layer.norm], tasks))
                tangents.append(t)
                d = t.dp
            else:
                tangents.append(None)
                d = _passed(dz.add_(v[f"{layer.name}.bias"][:, None]), k.p)

        d_outputs = at.head.forward(v[self._weight]) + v[self._bias][:, None]
        d_head = None if d is None else at.head.like(self._summarize(d))
        if d_head:
            d_outputs += d_head.forward(params[self._weight])
        dg_outputs = loss.curvature(at.outputs, at.data.targets, d_outputs)
        product = self._head_gradient(at.head, dg_outputs, total)
        if not d_head:
            return product
        product[self._weight] = product[self._weight] + d_head.weight_gradient(at.g_outputs, total)
        dg = at.head.input_gradient(params[self._weight], dg_outputs)
        dg += at.head.input_gradient(v[self._weight], at.g_outputs)
        dg = self._to_pixels(dg, at.kept[-1].p, 0)

        each = zip(*map(reversed, (self.layers, into, at.kept, at.sent, tangents)), strict=True)
        for layer, x, k, s, tangent in each:
            weight = f"{layer.name}.weight"
            if k.norm and s.norm and tangent:
                dgz, dgshift = normalization.tangent_backward(k.norm, s.norm, tangent, dg)
            else:
                dgz, dgshift = _passed(dg, k.p), None
            product |= _layer_gradient(layer, params, x, dgz, dgshift, total)
            if d_into:
                product[weight] = product[weight] + d_into.pop().weight_gradient(s.gz, total)
                dg = x.input_gradient(params[weight], dgz)
                dg += x.input_gradient(v[weight], s.gz)
        return product

    def _forward(self, params: Params, data: Data) -> tuple[tuple[Kept, ...], Vectors, Tensor]:
        h, kept = data.x, []
        reference = data.context or h.shape[1]
        for layer in self.layers:
            into = Images(h, layer.stride) if layer.convolution else Vectors(h)
            z = into.forward(params[f"{layer.name}.weight"])
            norm = None
            if layer.norm:
                norm = normalization.forward(z, each_task(params[layer.norm], z.shape[0]), reference, layer.pool)
                h = norm.p
            else:
                h = z.add_(params[f"{layer.name}.bias"][:, None]).relu_()
            kept.append(Kept(into, norm, h))
        head = Vectors(self._summarize(h[:, data.context :]))
        outputs = head.forward(params[self._weight]) + params[self._bias][:, None]
        return tuple(kept), head, outputs

    def _head_gradient(self, head: Vectors, g: Tensor, total: bool) -> Params:
        bias = g.sum((0, 1))[None] if total else g.sum(1)
        return {self._weight: head.weight_gradient(g, total), self._bias: bias}

    def _summarize(self, p: Tensor) -> Tensor:
        """[T, N, h, w, C] -> [T, N, C], or [T, N, C h w] in the order of a flattened image."""
        if p.dim() == 3:
            return p
        return p.mean((2, 3)) if self.summary == "mean" else p.permute(0, 1, 4, 2, 3).flatten(2)

    def _to_pixels(self, g: Tensor, p: Tensor, context: int) -> Tensor:
        """The adjoint of `_summarize`, and of leaving out the context."""
        if p.dim() == 5:
            tasks, _, height, width, channels = p.shape
            if self.summary == "mean":
                g = (g / (height * width))[:, :, None, None].expand(-1, -1, height, width, -1)
            else:
                g = g.view(tasks, -1, channels, height, width).permute(0, 1, 3, 4, 2)
        if context:
            g = torch.cat((torch.zeros_like(p[:, :context]), g), 1)
        return g.contiguous()

    @property
    def _weight(self) -> str:
        return f"{self.head}.weight"

    @property
    def _bias(self) -> str:
        return f"{self.head}.bias"


def _passed(g: Tensor, p: Tensor) -> Tensor:
    """g where the ReLU's result p > 0, else 0."""
    passed: Tensor = torch.ops.aten.threshold_backward(g, p, 0)
    return passed


def tasks_of(params: Params, part: slice) -> Params:
    """The parameters of some tasks."""
    return {name: value if value.shape[0] == 1 else value[part] for name, value in params.items()}


def each_task(value: Tensor, tasks: int) -> Tensor:
    """[1, ...] or [T, ...] -> [T, ...]."""
    return value.expand(tasks, *value.shape[1:]).contiguous()


def _layer_gradient(
    layer: Layer, params: Params, into: Images | Vectors, gz: Tensor, gshift: Tensor | None, total: bool
) -> Params:
    grads = {f"{layer.name}.weight": into.weight_gradient(gz, total)}
    if layer.norm and gshift is not None:
        grads[layer.norm] = gshift.sum(0, keepdim=True) if total else gshift
        gbias = torch.zeros_like(params[f"{layer.name}.bias"])
    else:
        gbias = gz.sum(1)
    grads[f"{layer.name}.bias"] = gbias.sum(0, keepdim=True) if total else gbias
    return grads
