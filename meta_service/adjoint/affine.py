"""The products of a layer: 3x3 convolutions and matrix products of many tasks, with one weight for all or one each.

h: [T, N, H, W, C] images, channels last, or [T, N, I] vectors. Weights carry a task axis: [1, ...] shared, [T, ...] one
for each task; a convolution's is [., O, C, 3, 3], a matrix [., O, I]. A shared weight makes one large batch of all
tasks. Own weights, of few small images (larger ones come one task at a time), make one batched product of patches: in
memory they lie as its matrices do, [., 3, 3, C, O], and so do their gradients (`arranged`).

Convolutions may multiply shorter numbers, `products`: both factors are rounded to them, and so is each result.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from meta_service.adjoint import native, primitives


@dataclass(eq=False)
class Images:
    """The input of a convolution with a border of one; remembers its patches, which several products share."""

    h: Tensor
    stride: int
    products: torch.dtype | None = None
    """What is multiplied; none: what h has."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width behind the convolution."""
        height, width = self.h.shape[2:4]
        return (height - 1) // self.stride + 1, (width - 1) // self.stride + 1

    def like(self, h: Tensor) -> "Images":
        """Another input of the same convolution."""
        return Images(h, self.stride, self.products)

    def multiplying(self, products: torch.dtype | None) -> "Images":
        """The same input, multiplied as `products` say."""
        return self if products == self.products else Images(self.h, self.stride, products)

    @cached_property
    def factor(self) -> Tensor:
        """h, as it is multiplied."""
        return self._rounded(self.h)

    @cached_property
    def patches(self) -> Tensor:
        """[T, N * h * w, 9 C], the entries of a patch in the order row, column, channel."""
        tasks, images, _, _, channels = self.h.shape
        padded = pad(self.factor, (0, 0, 1, 1, 1, 1))
        of_task, of_image, of_row, of_column, one = padded.stride()
        strides = (of_task, of_image, self.stride * of_row, self.stride * of_column, of_row, of_column, one)
        view = padded.as_strided((tasks, images, *self.size, 3, 3, channels), strides)
        return view.reshape(tasks, -1, 9 * channels)

    def direct(self, weight: Tensor) -> bool:
        """Whether torch's convolution does it: not with own weights, and slower than patches for a single channel."""
        return weight.shape[0] == 1 and self.h.shape[-1] > 1

    def forward(self, weight: Tensor) -> Tensor:
        """h * weight: [T, N, h, w, O]."""
        if self.direct(weight):
            z = conv2d(_nchw(self.factor), _channels_last(self._rounded(weight[0])), None, self.stride, 1)
            return _nhwc(z, self.h.shape[0]).to(self.h.dtype)
        product = _product(self.patches, self._rounded(_matrix(weight))).to(self.h.dtype)
        return product.view(*self.h.shape[:2], *self.size, -1)

    def input_gradient(self, weight: Tensor, g: Tensor) -> Tensor:
        """The gradient of h, where g is that of the result."""
        tasks, _, height, width, channels = self.h.shape
        if self.direct(weight):
            return _nhwc(self._backward(weight[0], g, (True, False, False)), tasks)
        rows = self._rounded(g.flatten(1, 3))
        matrix = self._rounded(_matrix(weight)).transpose(1, 2).expand(tasks, -1, -1)
        shape = (-1, *self.size, 3, 3, channels)
        if not native.suits(g):
            patches = _product(rows, matrix).to(g.dtype).view(shape)
            return primitives.fold(patches, height, width, self.stride).view_as(self.h)
        out = torch.empty_like(self.h)
        patches = rows.new_empty(rows.shape[1], matrix.shape[2])  # of one task after the other: they stay in the cache
        for task in range(tasks):
            torch.mm(rows[task], matrix[task], out=patches)
            native.fold(patches.to(g.dtype).view(shape), self.stride, out[task])
        return out

    def weight_gradient(self, g: Tensor, total: bool) -> Tensor:
        """The gradient of the weights: [T, O, C, 3, 3], or [1, O, C, 3, 3], their sum over tasks."""
        tasks, channels, outputs = self.h.shape[0], self.h.shape[-1], g.shape[-1]
        if channels > 1 and (total or tasks == 1):
            like = g.new_empty(outputs, channels, 3, 3)
            return self._backward(like, g, (False, True, False))[None]
        patches, g = self.patches, self._rounded(g.flatten(1, 3))
        if total:
            patches, g = patches.flatten(0, 1)[None], g.flatten(0, 1)[None]
        gradient = (patches.transpose(1, 2) @ g).to(self.h.dtype)
        return gradient.view(-1, 3, 3, channels, outputs).permute(0, 4, 3, 1, 2)

    def _backward(self, weight: Tensor, g: Tensor, which: tuple[bool, bool, bool]) -> Tensor:
        backward = torch.ops.aten.convolution_backward
        s, one = [self.stride] * 2, [1, 1]
        factors = _nchw(self._rounded(g)), _nchw(self.factor), _channels_last(self._rounded(weight))
        of: tuple[Tensor | None, ...] = backward(*factors, None, s, one, one, False, [0, 0], 1, which)
        return next(x for x in of if x is not None).to(g.dtype)

    def _rounded(self, x: Tensor) -> Tensor:
        return x.to(self.products or x.dtype)


@dataclass(eq=False)
class Vectors:
    """The input of a matrix product."""

    h: Tensor

    def like(self, h: Tensor) -> "Vectors":
        """Another input of the same product."""
        return Vectors(h)

    def multiplying(self, products: torch.dtype | None) -> "Vectors":
        """The same: only convolutions are worth it."""
        return self

    def forward(self, weight: Tensor) -> Tensor:
        """h weight^T: [T, N, O]."""
        return _product(self.h, weight.transpose(1, 2))

    def input_gradient(self, weight: Tensor, g: Tensor) -> Tensor:
        """The gradient of h, where g is that of the result."""
        return _product(g, weight)

    def weight_gradient(self, g: Tensor, total: bool) -> Tensor:
        """The gradient of the weights: [T, O, I], or [1, O, I], their sum over tasks."""
        if total:
            return (g.flatten(0, 1).t() @ self.h.flatten(0, 1))[None]
        return g.transpose(1, 2) @ self.h


def arranged(weight: Tensor) -> Tensor:
    """A convolution's weight as products need it in memory, and as their gradients are; a matrix as it is."""
    return weight.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2) if weight.dim() == 5 else weight


def over_tasks(value: Tensor) -> Tensor:
    """The sum over tasks, [1, ...], of what is arranged: in memory order, tens of times faster than torch by itself."""
    if value.dim() == 5:
        return value.permute(0, 3, 4, 2, 1).sum(0, keepdim=True).permute(0, 4, 3, 1, 2)
    return value.sum(0, keepdim=True)


def _product(h: Tensor, matrix: Tensor) -> Tensor:
    """[T, N, I] times [., I, O]; one large product where the matrix is shared."""
    return h @ matrix[0] if matrix.shape[0] == 1 else torch.bmm(h, matrix)


def _matrix(weight: Tensor) -> Tensor:
    """[., O, C, 3, 3] -> [., 9 C, O], as `patches` are ordered; nothing moves where it is arranged."""
    return weight.permute(0, 3, 4, 2, 1).reshape(weight.shape[0], -1, weight.shape[1])


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _nchw(h: Tensor) -> Tensor:
    """[T, N, H, W, C] as torch's [T N, C, H, W], without moving anything."""
    return h.flatten(0, 1).permute(0, 3, 1, 2)


def _nhwc(x: Tensor, tasks: int) -> Tensor:
    rows = x.permute(0, 2, 3, 1).contiguous()
    return rows.view(tasks, -1, *rows.shape[1:])
