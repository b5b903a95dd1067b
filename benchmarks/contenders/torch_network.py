"""The networks as a user of PyTorch writes them, for the plain loop and the libraries; apart from this project's."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.device import here
from benchmarks.problem import Method, Problem

Params = dict[str, Tensor]


def tensors(problem: Problem) -> tuple[Params, list[tuple[Tensor, ...]]]:
    """theta, and (support x, support y, query x, query y) of each task."""
    theta = {name: here(value.copy()) for name, value in problem.theta.items()}
    data = [here(array) for array in problem[3:]]
    return theta, [tuple(array[task] for array in data) for task in range(problem.tasks)]


def loss(method: Method, outputs: Tensor, y: Tensor) -> Tensor:
    if method.loss == "mse":
        return F.mse_loss(outputs, y)
    return F.cross_entropy(outputs, y, reduction="sum") / method.loss_divisor


class Network(nn.Module):
    """All but the batch normalisation's shifts, which are given along: they are not adapted."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.method = problem.method
        theta, _ = tensors(problem)
        for name, weight in theta.items():
            if name.endswith(".weight"):
                out, into, *kernel = weight.shape
                layer = nn.Conv2d(into, out, 3, self.method.stride, 1) if kernel else nn.Linear(into, out)
                self.add_module(name.removesuffix(".weight"), layer)
        self.to(next(iter(theta.values())))  # type and device
        self.load_state_dict({name: value for name, value in theta.items() if not name.startswith("norm")})
        self.shifts = [value.requires_grad_() for name, value in theta.items() if name.startswith("norm")]

    def forward(self, x: Tensor) -> Tensor:
        method: Method = self.method
        if method.network == "mlp":
            for layer in range(method.layers - 1):
                x = F.relu(self.get_submodule(f"linear{layer}")(x))
            return self.get_submodule(f"linear{method.layers - 1}")(x)  # type: ignore[no-any-return]
        for block in range(method.layers):
            x = self.get_submodule(f"conv{block}")(x)
            x = F.relu(normalize(method, x, self.shifts[block]))
            x = x if method.stride == 2 else F.max_pool2d(x, 2)
        return self.get_submodule("linear")(x.mean((2, 3)) if method.stride == 2 else x.flatten(1))  # type: ignore[no-any-return]

    def gradient(self) -> dict[str, Any]:
        """What `backward` has added up, by the names of theta; empties it."""
        names = [f"norm{block}.shift" for block in range(len(self.shifts))]
        leaves = dict(self.named_parameters()) | dict(zip(names, self.shifts, strict=True))
        found = {name: leaf.grad for name, leaf in leaves.items()}
        for leaf in leaves.values():
            leaf.grad = None
        return found


def normalize(method: Method, x: Tensor, shift: Tensor) -> Tensor:
    """Batch statistics; a shift and no scale."""
    return F.batch_norm(x, None, None, None, shift, True, 0.0, method.epsilon)
