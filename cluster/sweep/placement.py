"""How many trials a cluster has room for at once."""

from collections.abc import Mapping, Sequence

from meta_service.errors import UserError
from meta_service.sweep.settings import Sweep

Bundle = dict[str, float]
ENOUGH = 1_000  # nobody asks for more trials at once


def bundles(sweep: Sweep) -> list[Bundle]:
    """What one trial needs: a bundle for its own process, and one for each worker."""
    resources = sweep.job.resources
    worker = {"CPU": float(resources.cpus_per_worker)}
    if resources.gpus_per_worker:
        worker["GPU"] = float(resources.gpus_per_worker)
    if sweep.tune.workers == 0:
        return [{"CPU": float(resources.cpus_per_worker)}]
    return [{"CPU": float(sweep.tune.cpus_per_driver)}, *([worker] * sweep.tune.workers)]


def capacity(nodes: Sequence[Mapping[str, float]], needed: Sequence[Bundle]) -> int:
    """How many groups of these bundles the empty nodes can hold; a bundle lies on one node, a group on any."""
    free = [dict(node) for node in nodes]
    largest_first = sorted(needed, key=lambda bundle: -sum(bundle.values()))
    for count in range(ENOUGH):
        for bundle in largest_first:
            node = next((node for node in free if all(node.get(k, 0) >= v for k, v in bundle.items())), None)
            if node is None:
                return count
            for kind, amount in bundle.items():
                node[kind] = round(node.get(kind, 0) - amount, 6)
    return ENOUGH


def at_once(sweep: Sweep, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many trials are to run at once. Raises UserError where not even one can ever be placed."""
    needed = bundles(sweep)
    room = capacity(nodes, needed)
    if room == 0:
        raise UserError(
            f"a trial needs {_wording(needed)}, and no such place is in a cluster of {_wording(nodes)}; lower "
            "tune.workers, tune.cpus_per_driver, resources.cpus_per_worker or resources.gpus_per_worker"
        )
    learning = max(sweep.size // 4, 1)  # of more at once, too few would learn from the others
    return sweep.tune.concurrent or min(room, learning)


def _wording(parts: Sequence[Mapping[str, float]]) -> str:
    """`1 x (0.5 CPU) + 2 x (1 CPU, 1 GPU)`."""
    texts = [", ".join(f"{part[kind]:g} {kind}" for kind in ("CPU", "GPU") if part.get(kind)) for part in parts]
    return " + ".join(f"{texts.count(text)} x ({text or 'no CPU'})" for text in dict.fromkeys(texts)) or "no nodes"
