"""What the tests of the cluster share."""

import logging
from collections.abc import Iterator

import pytest
import ray

from cluster import ports
from cluster.local import Surroundings
from cluster.surroundings import state_folder


@pytest.fixture(scope="session")
def ray_cluster(surroundings: Surroundings, session_environment: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a driver on the embedded Ray."""
    for name, value in surroundings.env.items():
        session_environment.setenv(name, value)
    gcs = ports.remembered(state_folder())["ray.gcs"]
    ray.init(f"127.0.0.2:{gcs}", logging_level=logging.WARNING, log_to_driver=False)
    yield
    ray.shutdown()
