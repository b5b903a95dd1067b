"""What every contender is given: theta and the drawn tasks as NumPy arrays, and the few numbers of the method.

Imports NumPy alone, so that a contender's process holds nothing but the contender.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

DATA = ("support_x", "support_y", "query_x", "query_y")
Arrays = dict[str, np.ndarray]
Step = Callable[[], Mapping[str, Any]]
"""Computes the sum over the tasks of the meta-gradients: name -> array, as the contender's library has them."""


class Method(NamedTuple):
    """The network, the loss and the inner loop."""

    network: Literal["mlp", "conv4"]
    layers: int
    """Linear layers of an MLP; convolutions of a Conv4, which has one linear layer more."""
    stride: int
    """Of the convolutions; 1 means that 2x2 max-pooling follows each."""
    epsilon: float
    """Of the batch normalisation: by batch statistics, with a learned shift that is not adapted, without a scale."""
    loss: Literal["mse", "cross_entropy"]
    loss_divisor: float
    """The cross-entropy is summed over a batch and divided by this: the shots K."""
    inner_lr: float
    inner_steps: int


class Problem(NamedTuple):
    """A meta-batch of tasks, and theta. Every contender's answer is the sum over its tasks, second order."""

    workload: str
    """As `workloads.find` knows it; for this project alone, which is given its job and not the method below."""
    method: Method
    theta: Arrays
    support_x: np.ndarray
    """[tasks, examples, features or channels, height, width]"""
    support_y: np.ndarray
    """[tasks, examples] int64 classes, or [tasks, examples, outputs] values"""
    query_x: np.ndarray
    query_y: np.ndarray

    @property
    def tasks(self) -> int:
        return len(self.support_x)

    def astype(self, dtype: str) -> "Problem":
        """The same in another floating-point type; classes stay integers."""

        def cast(a: np.ndarray) -> np.ndarray:
            return a.astype(dtype) if a.dtype.kind == "f" else a

        theta = {name: cast(value) for name, value in self.theta.items()}
        data: dict[str, Any] = {name: cast(getattr(self, name)) for name in DATA}
        return self._replace(theta=theta, **data)


def vector(arrays: Mapping[str, Any]) -> np.ndarray:
    """All entries, in the order of the names."""
    return np.concatenate([np.asarray(arrays[name]).ravel() for name in sorted(arrays)])


def save(problem: Problem, file: Path) -> None:
    theta = {f"theta/{name}": value for name, value in problem.theta.items()}
    arrays: dict[str, Any] = theta | {name: getattr(problem, name) for name in DATA}
    with file.open("wb") as out:
        np.savez(out, about=json.dumps((problem.workload, problem.method)), **arrays)


def load(file: Path) -> Problem:
    with np.load(file) as kept:
        arrays = dict(kept)
    theta = {name.removeprefix("theta/"): value for name, value in arrays.items() if name.startswith("theta/")}
    workload, method = json.loads(str(arrays["about"]))
    return Problem(workload, Method(*method), theta, *(arrays[name] for name in DATA))
