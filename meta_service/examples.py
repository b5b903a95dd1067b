"""A user's arrays as f_theta's tensors, with an error in one line where they cannot be."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from meta_service.episode import Signature
from meta_service.errors import UserError


def inputs(x: Any, signature: Signature, name: str) -> Tensor:
    """[n, *signature.inputs] float32, from an array or tensor.

    Images: uint8 in 0 ... 255 or floats in 0 ... 1; [n, C, H, W], [n, H, W, C], or [n, H, W] where C is 1.
    Others: [n, features], or [n] where there is one feature. Raises UserError.
    """
    tensor = _tensor(x, name)
    if len(signature.inputs) == 3:
        return _images(tensor, signature.inputs, name)
    features = int(np.prod(signature.inputs))
    tensor = tensor.unsqueeze(1) if tensor.dim() == 1 and features == 1 else tensor
    if tensor.dim() != 2 or tensor.shape[1] != features or not len(tensor):
        came = list(tensor.shape)
        raise UserError(f"{name}: [n, {features}]{' or [n]' if features == 1 else ''} is expected, {came} came")
    return _finite(tensor.float(), name)


def values(y: Any, examples: int, outputs: int) -> Tensor:
    """[examples, outputs] float32: what is to be learned in regression."""
    tensor = _tensor(y, "support_y").float()
    if list(tensor.shape) != [examples, outputs] and (list(tensor.shape) != [examples] or outputs != 1):
        raise UserError(f"support_y: [{examples}, {outputs}] is expected, {list(tensor.shape)} came")
    return _finite(tensor.reshape(examples, outputs), "support_y")


class Labels(NamedTuple):
    """Class labels of any kind, and the indices that stand for them."""

    classes: list[Hashable]
    """In order of their first appearance."""
    indices: Tensor
    """[examples] int64, positions in `classes`."""


def labels(y: Any, examples: int, ways: int) -> Labels:
    """The label of each support example; all classes of the model must be there. Raises UserError."""
    items: Sequence[Any] = y.tolist() if isinstance(y, np.ndarray | Tensor) else list(y)
    if len(items) != examples:
        raise UserError(f"support_y: {examples} labels are expected, one a support example, {len(items)} came")
    try:
        position: dict[Hashable, int] = {}
        indices = [position.setdefault(item, len(position)) for item in items]
    except TypeError as error:  # such as one-hot rows
        raise UserError(
            "support_y: one label an example is expected, lists came; take argmax of one-hot rows"
        ) from error
    if len(position) != ways:
        raise UserError(f"support_y: {ways} classes are expected, as the model was trained, {len(position)} came")
    return Labels(list(position), torch.tensor(indices))


def _tensor(x: Any, name: str) -> Tensor:
    """A tensor of the CPU that shares nothing with `x`."""
    try:
        tensor = x.detach().cpu().clone() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    except (TypeError, ValueError) as error:  # ragged lists, texts
        raise UserError(f"{name}: an array of numbers is expected, {type(x).__name__} came: {error}") from error
    return tensor


def _images(tensor: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    channels, height, width = shape
    came = tuple(tensor.shape)
    if channels == 1 and came[1:] == (height, width):
        tensor = tensor.unsqueeze(1)
    elif came[1:] == (height, width, channels) and came[1:] != shape:
        tensor = tensor.permute(0, 3, 1, 2)
    elif came[1:] != shape:
        plain = f", [n, {height}, {width}]" if channels == 1 else ""
        raise UserError(
            f"{name}: [n, {channels}, {height}, {width}], [n, {height}, {width}, {channels}]{plain} is expected, "
            f"{list(came)} came; resize the images and stack them"
        )
    if not came[0]:
        raise UserError(f"{name}: at least one image is expected, none came")
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if not tensor.dtype.is_floating_point:
        raise UserError(f"{name}: uint8 or floating-point images are expected, {tensor.dtype} came")
    tensor = _finite(tensor.float(), name)
    if tensor.min() < 0 or tensor.max() > 1:
        low, high = float(tensor.min()), float(tensor.max())
        raise UserError(f"{name}: floats in 0 ... 1 are expected, {low:g} ... {high:g} came; divide by 255")
    return tensor.contiguous()


def _finite(tensor: Tensor, name: str) -> Tensor:
    if not tensor.isfinite().all():
        raise UserError(f"{name}: finite numbers are expected, NaN or infinity came")
    return tensor
