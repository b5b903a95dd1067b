"""What the tests of chaos share: one scene on the shared services."""

from collections.abc import Iterator

import pytest

from cluster import ports
from cluster.local import Surroundings
from cluster.services import Place
from cluster.surroundings import state_folder
from tests.chaos.scene import Scene, raylets_of


@pytest.fixture(scope="session")
def scene(surroundings: Surroundings) -> Iterator[Scene]:
    """Real drivers on the shared services, and proxies of their own before them."""
    address, temp = f"127.0.0.2:{ports.remembered(state_folder())['ray.gcs']}", Place(state_folder()).temp
    found = Scene(surroundings, address, lambda: raylets_of(temp))
    yield found
    found.close()
