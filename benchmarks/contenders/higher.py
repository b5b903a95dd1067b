"""higher 0.2.1, as its examples use it: a functional copy of the network and a differentiable optimiser a task."""

from typing import Any

import higher
import torch

from benchmarks.contenders.torch_network import Network, loss, tensors
from benchmarks.problem import Problem, Step


def prepare(problem: Problem) -> Step:
    method = problem.method
    _, tasks = tensors(problem)
    network = Network(problem)
    optimizer = torch.optim.SGD(network.parameters(), lr=method.inner_lr)

    def step() -> dict[str, Any]:
        for support_x, support_y, query_x, query_y in tasks:
            with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (learner, inner):
                for _ in range(method.inner_steps):
                    inner.step(loss(method, learner(support_x), support_y))
                loss(method, learner(query_x), query_y).backward()  # type: ignore[no-untyped-call]
        return network.gradient()

    return step
