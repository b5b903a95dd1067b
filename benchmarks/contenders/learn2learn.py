"""learn2learn 0.2.0, as its examples use it: a clone of the network adapts, and `backward` reaches the original."""

from typing import Any

from learn2learn.algorithms.maml import MAML

from benchmarks.contenders.torch_network import Network, loss, tensors
from benchmarks.problem import Problem, Step


def prepare(problem: Problem) -> Step:
    method = problem.method
    _, tasks = tensors(problem)
    network = Network(problem)
    maml = MAML(network, lr=method.inner_lr, first_order=False)

    def step() -> dict[str, Any]:
        for support_x, support_y, query_x, query_y in tasks:
            learner = maml.clone()
            for _ in range(method.inner_steps):
                learner.adapt(loss(method, learner(support_x), support_y))
            loss(method, learner(query_x), query_y).backward()  # type: ignore[no-untyped-call]
        return network.gradient()

    return step
