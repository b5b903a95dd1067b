"""The plain loop: `torch.autograd`, one task after the other, each with a `backward` of its own."""

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.contenders.torch_network import Params, loss, normalize, tensors
from benchmarks.problem import Method, Problem, Step


def prepare(problem: Problem) -> Step:
    method = problem.method
    theta, tasks = tensors(problem)
    adapted_names = [name for name in theta if not name.startswith("norm")]

    def step() -> Params:
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        for support_x, support_y, query_x, query_y in tasks:
            adapted = dict(leaves)
            for _ in range(method.inner_steps):
                support_loss = loss(method, apply(method, adapted, support_x), support_y)
                grads = torch.autograd.grad(support_loss, [adapted[n] for n in adapted_names], create_graph=True)
                for name, gradient in zip(adapted_names, grads, strict=True):
                    adapted[name] = adapted[name] - method.inner_lr * gradient
            loss(method, apply(method, adapted, query_x), query_y).backward()  # type: ignore[no-untyped-call]
        return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}

    return step


def apply(method: Method, params: Params, x: Tensor) -> Tensor:
    if method.network == "mlp":
        for layer in range(method.layers):
            x = F.linear(x, params[f"linear{layer}.weight"], params[f"linear{layer}.bias"])
            x = F.relu(x) if layer < method.layers - 1 else x
        return x
    for block in range(method.layers):
        x = F.conv2d(x, params[f"conv{block}.weight"], params[f"conv{block}.bias"], method.stride, 1)
        x = F.relu(normalize(method, x, params[f"norm{block}.shift"]))
        x = x if method.stride == 2 else F.max_pool2d(x, 2)
    return F.linear(
        x.mean((2, 3)) if method.stride == 2 else x.flatten(1), params["linear.weight"], params["linear.bias"]
    )
