"""Arrays out of a pickle file without executing what the file says.

A pickle is a program: it names functions and calls them. Here each of the few names that NumPy's own pickles use stands
for a harmless record of this file, and every other name is refused before anything is called.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from meta_service.errors import UserError

_TYPES = ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8")


def load_arrays(path: Path) -> Any:
    """The plain containers, texts, numbers and arrays of numbers in a pickle file.

    Raises UserError where it names any other function or type, is cut off, or announces an array it does not hold.
    """
    try:
        with open(path, "rb") as file:
            # latin1: Python 2 wrote the bytes of an array as text
            return _plain(_Unpickler(file, encoding="latin1").load())
    except _RefusedError as error:
        raise UserError(f"{path} is refused: it would run {error}, and only arrays are read; fetch it again") from error
    except Exception as error:  # a damaged pickle can end in nearly any error; nothing of it has been run
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is not a readable pickle of arrays ({reason}); fetch it again") from error


class _RefusedError(Exception):
    pass


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _TYPES:
            raise ValueError(f"an array of type {code!r}")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.numpy = self.numpy.newbyteorder(">")


class _Array:
    """Stands for an array under construction."""

    def __init__(self, *_: object) -> None:
        self.numpy = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        self.numpy = _array(content, dtype, shape, "F" if fortran else "C")


def _array(content: bytes | str, dtype: _Dtype, shape: tuple[int, ...], order: Any = "C") -> np.ndarray:
    raw = content.encode("latin1") if isinstance(content, str) else content
    flat: np.ndarray = np.frombuffer(raw, dtype.numpy)
    return flat.reshape(shape, order=order)


def _frombuffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    result = _Array()
    result.numpy = _array(content, dtype, shape, order)
    return result


def _scalar(dtype: _Dtype, content: bytes | str) -> int | float:
    number: int | float = _array(content, dtype, (1,)).tolist()[0]
    return number


def _encode(text: str, _: str = "latin1") -> bytes:
    return text.encode("latin1")


_NUMPY = ("numpy.core", "numpy._core")  # before and since NumPy 2
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _NUMPY},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _frombuffer for core in _NUMPY},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise _RefusedError(f"{module}.{name}")
        return _ADMITTED[module, name]


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
