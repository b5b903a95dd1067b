"""theta: named tensors, and their arithmetic."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Params = dict[str, Tensor]


def add(a: Params, b: Params) -> Params:
    return {name: a[name] + b[name] for name in a}


def add_scaled(a: Params, b: Params, factor: float) -> Params:
    """a + factor * b."""
    return {name: torch.add(value, b[name], alpha=factor) for name, value in a.items()}


def scale(a: Params, factor: float) -> Params:
    return {name: factor * value for name, value in a.items()}


def zeros_like(a: Params) -> Params:
    return {name: torch.zeros_like(value) for name, value in a.items()}


def shapes(a: Params) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in a.items()}


def norm(a: Params) -> float:
    """The Euclidean norm of all entries together."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in a.values()))


def is_finite(a: Params) -> bool:
    return all(bool(np.isfinite(value.detach().cpu().numpy()).all()) for value in a.values())  # NumPy's is 3 x faster


def flatten(a: Params) -> np.ndarray:
    """One vector [P] in the order of the names: the form in which theta and its gradient travel."""
    return np.concatenate([a[name].detach().cpu().numpy().ravel() for name in sorted(a)])


def unflatten(vector: np.ndarray, like: Params) -> Params:
    """The inverse of `flatten`, with the names, shapes and device of `like`."""
    values, start = {}, 0
    for name in sorted(like):
        shape, size = like[name].shape, like[name].numel()
        # a copy: what arrives from shared memory is read-only
        part = torch.from_numpy(vector[start : start + size].copy())
        values[name], start = part.view(shape).to(like[name].device), start + size
    if start != vector.size:
        raise ValueError(f"a vector of {start} entries was expected, {vector.size} came")
    return {name: values[name] for name in like}


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """Names, types, shapes and bits of all tensors, as one hexadecimal digest."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
