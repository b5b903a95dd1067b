"""Batch normalisation, ReLU and pooling of all tasks' images: forward, backward, and the tangent of both.

With xhat = (z - mean) rstd and <v> the mean of v over a task's examples and pixels, the layer is
p = relu(xhat + shift), pooled or not. Its backward pass and its tangent are one projection, of gy and of dz:

    gz    = rstd (gy - <gy> - xhat <gy xhat>)                  gy = g where p > 0, else 0
    dxhat = rstd (dz - <dz> - xhat <dz xhat>)

and the tangent of the backward pass, with k = <dz xhat>, q = <gy xhat>, dq = <dgy xhat + gy dxhat>, is

    dgz   = -rstd k gz + rstd (dgy - <dgy> - dxhat q - xhat dq)

Where p > 0, xhat is p - shift, so all means but those of z and dz are taken over p's pixels, a quarter behind pooling.
"""

from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from meta_service.adjoint import native, primitives


class Forward(NamedTuple):
    """What the forward pass leaves for the others; shapes as in `primitives`."""

    z: Tensor
    """[T, N, H, W, C], or [T, N, C] seen as images of one pixel."""
    mean: Tensor
    rstd: Tensor
    shift: Tensor
    p: Tensor
    place: Tensor | None
    reference: int
    """The first so many images of each task give the statistics."""


class Backward(NamedTuple):
    gz: Tensor
    gshift: Tensor
    gy: Tensor
    a: Tensor
    b: Tensor
    """gz = a + b z + rstd gy at the places gy came from."""
    q: Tensor


class Tangent(NamedTuple):
    dz: Tensor
    dp: Tensor
    dshift: Tensor
    mean_dz: Tensor
    along: Tensor
    """<dz xhat>"""


def forward(z: Tensor, shift: Tensor, reference: int, pool: bool) -> Forward:
    """z: [T, N, H, W, C] or [T, N, C]; shift: [T, C]."""
    do, pixels = _doing(z), _pixels(z)
    mean, rstd = do.statistics(pixels, reference)
    p, place = do.activate(pixels, mean, rstd, shift, pool)
    return Forward(pixels, mean, rstd, shift, _as(z, p), place, reference)


def backward(f: Forward, g: Tensor) -> Backward:
    """From g, the gradient of p."""
    do = _doing(g)
    gy, gshift, dot = do.masked(_pixels(g), _pixels(f.p), f.shift)
    count = f.reference * f.z.shape[2] * f.z.shape[3]
    q = dot / count
    b = -f.rstd.square() * q
    a = -f.rstd * gshift / count - b * f.mean
    gz = do.spread(f.z, None, a, b, None, f.rstd, gy, None, None, f.place, f.reference)
    return Backward(_as(g, gz), gshift, gy, a, b, q)


def tangent(f: Forward, dz: Tensor, dshift: Tensor) -> Tangent:
    """dp, where all examples are their own reference."""
    do, pixels = _doing(dz), _pixels(dz)
    mean_dz, along = do.tangent_statistics(f.z, pixels, f.mean, f.rstd)
    dp = do.activate_tangent(pixels, _pixels(f.p), f.place, f.rstd, f.shift, mean_dz, along, dshift)
    return Tangent(pixels, _as(dz, dp), dshift, mean_dz, along)


def tangent_backward(f: Forward, back: Backward, t: Tangent, dg: Tensor) -> tuple[Tensor, Tensor]:
    """(dgz, dgshift) from dg, the tangent of g."""
    do = _doing(dg)
    dgy, dgshift, dot = do.masked_tangent(_pixels(dg), back.gy, _pixels(f.p), _pixels(t.dp), f.shift, t.dshift)
    count = f.z.shape[1] * f.z.shape[2] * f.z.shape[3]
    rstd, k = f.rstd, t.along
    c = -rstd.square() * back.q  # of dz
    x = -rstd * dot / count - c * k  # of xhat
    a = -rstd * (k * back.a + dgshift / count) - c * t.mean_dz - x * rstd * f.mean
    b = -rstd * k * back.b + x * rstd
    s = -rstd.square() * k  # of gy
    return _as(dg, do.spread(f.z, t.dz, a, b, c, rstd, dgy, s, back.gy, f.place, f.z.shape[1])), dgshift


def _doing(x: Tensor) -> ModuleType:
    return native if native.suits(x) else primitives


def _pixels(x: Tensor) -> Tensor:
    """Vectors as images of one pixel."""
    return x if x.dim() == 5 else x[:, :, None, None]


def _as(like: Tensor, pixels: Tensor) -> Tensor:
    """The inverse."""
    return pixels if like.dim() == 5 else pixels[:, :, 0, 0]
