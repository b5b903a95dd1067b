"""What normalised layers do to every pixel, in torch: the reference for `native`, and what runs where that cannot.

z, dz, gz: [T, N, H, W, C], tasks and images, channels last. p, g, gy, dp: the same, or [T, N, H / 2, W / 2, C] behind a
2x2 max-pooling. Statistics and shifts: [T, C]. A prefix d marks a tangent, g a gradient.
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

EPSILON = 1e-3  # the authors' code (tf.contrib.layers.batch_norm)
_PIXELS = (1, 2, 3)


def statistics(z: Tensor, reference: int) -> tuple[Tensor, Tensor]:
    """(mean, 1 / sqrt(variance + epsilon)) of the first `reference` images of each task: [T, C] each."""
    z = z[:, :reference]
    mean = z.mean(_PIXELS, keepdim=True)
    return mean[:, 0, 0, 0], torch.rsqrt((z - mean).square().mean(_PIXELS) + EPSILON)


def activate(z: Tensor, mean: Tensor, rstd: Tensor, shift: Tensor, pool: bool) -> tuple[Tensor, Tensor | None]:
    """(p, place): p = relu(rstd (z - mean) + shift), of the first largest entry of each window where it is pooled.

    `place` says which that is, in a form of its own, and is None without pooling. Pooling first is the same, because
    rstd > 0, and cheaper.
    """
    place = None
    if pool:
        images = z.flatten(0, 1).permute(0, 3, 1, 2)
        best, place = max_pool2d(images, 2, return_indices=True)
        shape = (*z.shape[:2], *best.shape[2:], z.shape[4])
        z, place = (v.permute(0, 2, 3, 1).reshape(shape) for v in (best, place))
    return (_wide(rstd) * (z - _wide(mean)) + _wide(shift)).relu(), place


def masked(g: Tensor, p: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(gy, sum of gy, sum of gy xhat): gy is g where p > 0, else 0; there xhat = p - shift."""
    gy = torch.where(p > 0, g, 0)
    return gy, gy.sum(_PIXELS), (gy * (p - _wide(shift))).sum(_PIXELS)


def masked_tangent(
    dg: Tensor, gy: Tensor, p: Tensor, dp: Tensor, shift: Tensor, dshift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dgy, sum of dgy, sum of dgy xhat + gy dxhat): the tangents of what `masked` gives."""
    dgy = torch.where(p > 0, dg, 0)
    dot = dgy * (p - _wide(shift)) + gy * (dp - _wide(dshift))
    return dgy, dgy.sum(_PIXELS), dot.sum(_PIXELS)


def tangent_statistics(z: Tensor, dz: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """(mean of dz, mean of xhat dz), with xhat = rstd (z - mean)."""
    return dz.mean(_PIXELS), rstd * ((z - _wide(mean)) * dz).mean(_PIXELS)


def activate_tangent(
    dz: Tensor,
    p: Tensor,
    place: Tensor | None,
    rstd: Tensor,
    shift: Tensor,
    mean_dz: Tensor,
    along: Tensor,
    dshift: Tensor,
) -> Tensor:
    """dp = rstd (dz - mean_dz - xhat along) + dshift where p > 0, else 0."""
    if place is not None:
        dz = dz.flatten(2, 3).gather(2, place.flatten(2, 3)).view_as(p)
    xhat = p - _wide(shift)
    return torch.where(p > 0, _wide(rstd) * (dz - _wide(mean_dz) - xhat * _wide(along)) + _wide(dshift), 0)


def spread(
    z: Tensor,
    dz: Tensor | None,
    a: Tensor,
    b: Tensor,
    c: Tensor | None,
    r: Tensor,
    e: Tensor,
    s: Tensor | None,
    f: Tensor | None,
    place: Tensor | None,
    reference: int,
) -> Tensor:
    """a + b z + c dz in the first `reference` images, 0 in the others; plus r e + s f at the places they came from."""
    out = torch.zeros_like(z)
    out[:, :reference] = _wide(a) + _wide(b) * z[:, :reference]
    if dz is not None and c is not None:
        out[:, :reference] += _wide(c) * dz[:, :reference]
    e = _wide(r) * e
    if s is not None and f is not None:
        e += _wide(s) * f
    if place is None:
        return out.add_(e)
    out.flatten(2, 3).scatter_add_(2, place.flatten(2, 3), e.flatten(2, 3))
    return out


def fold(patches: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Adds patches [images, h, w, 3, 3, C], cut with a border of one, into images [images, height, width, C]."""
    images, h, w, _, _, channels = patches.shape
    out = patches.new_zeros(images, height + 2, width + 2, channels)
    for i in range(3):
        for j in range(3):
            out[:, i : i + stride * h : stride, j : j + stride * w : stride] += patches[:, :, :, i, j]
    return out[:, 1:-1, 1:-1].contiguous()


def _wide(x: Tensor) -> Tensor:
    """[T, C] -> [T, 1, 1, 1, C]."""
    return x[:, None, None, None]
