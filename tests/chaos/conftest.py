"""What the tests of chaos share: one scene on the shared services, and a soak beside them."""

from collections.abc import Iterator

import pytest

from cluster import ports
from cluster.local import Surroundings
from cluster.services import Place
from cluster.surroundings import state_folder
from tests.chaos.beside import Soak
from tests.chaos.scene import Scene, raylets_of

SOAK = pytest.StashKey[Soak]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """The soak is begun before the first test, where one waits for it."""
    if not session.config.option.collectonly and any("soak" in item.fixturenames for item in session.items):
        session.config.stash[SOAK] = Soak()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A session that ends early does not leave it behind."""
    if soak := session.config.stash.get(SOAK, None):
        soak.close()


@pytest.fixture
def soak(pytestconfig: pytest.Config) -> Soak:
    """The one that runs beside all other tests."""
    return pytestconfig.stash[SOAK]


@pytest.fixture(scope="session")
def scene(surroundings: Surroundings) -> Iterator[Scene]:
    """Real drivers on the shared services, and proxies of their own before them."""
    address, temp = f"127.0.0.2:{ports.remembered(state_folder())['ray.gcs']}", Place(state_folder()).temp
    found = Scene(surroundings, address, lambda: raylets_of(temp))
    yield found
    found.close()
