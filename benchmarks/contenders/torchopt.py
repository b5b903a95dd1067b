"""TorchOpt 0.7.3 with its `MetaSGD`; `backward` task by task, which takes far less memory than one for all of them."""

from typing import Any

import torchopt

from benchmarks.contenders.torch_network import Network, loss, tensors
from benchmarks.problem import Problem, Step


def prepare(problem: Problem) -> Step:
    method = problem.method
    _, tasks = tensors(problem)
    network = Network(problem)
    inner = torchopt.MetaSGD(network, lr=method.inner_lr)
    start = [torchopt.extract_state_dict(part, by="reference") for part in (network, inner)]

    def step() -> dict[str, Any]:
        for support_x, support_y, query_x, query_y in tasks:
            for _ in range(method.inner_steps):
                inner.step(loss(method, network(support_x), support_y))
            loss(method, network(query_x), query_y).backward()  # type: ignore[no-untyped-call]
            for part, state in zip((network, inner), start, strict=True):
                torchopt.recover_state_dict(part, state)
        return network.gradient()

    return step
