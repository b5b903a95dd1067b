"""A Ray of several nodes on this machine, which can be lost one by one. For a process of its own."""

import logging
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from tests.loopback import free_port

NODES = 2  # beside the head, on which nothing is computed


class Nodes:
    """Runs from its making until `close`."""

    def __init__(self) -> None:
        from ray._common.utils import get_ray_address_file
        from ray.cluster_utils import Cluster  # Ray reads how to authenticate when it is imported

        # Ray notes the cluster's address there, and makes the folder only where it is a node's own, too
        Path(get_ray_address_file(None)).parent.mkdir(parents=True, exist_ok=True)
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._temp = tempfile.mkdtemp(prefix="meta-nodes-")
        common = {"include_dashboard": False, "node_ip_address": "127.0.0.2"}
        self._common: dict[str, Any] = {"num_cpus": 4, "object_store_memory": 80_000_000, **common}
        head = self._common | {
            "num_cpus": 0,
            "gcs_server_port": free_port(),
            "dashboard_port": free_port(),
            "temp_dir": self._temp,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(NODES):
            self.add()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def raylets(self) -> set[int]:
        """The pids of the nodes' raylets."""
        return {_raylet(node) for node in self._cluster.worker_nodes}

    def add(self) -> None:
        self._cluster.add_node(**self._common)

    def lose(self, rng: random.Random, used: set[int]) -> None:
        """A node's raylet is killed, and what belonged to it goes with it; one of those in `used`, if it can be."""
        nodes = sorted(self._cluster.worker_nodes, key=_raylet)
        node = rng.choice([node for node in nodes if _raylet(node) in used] or nodes)
        os.kill(_raylet(node), signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._temp, ignore_errors=True)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)
