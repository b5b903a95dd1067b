"""What tests share: the embedded services, started once."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported

from cluster import local
from cluster.local import Surroundings
from tests.loopback import CONFIGURING


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The test that takes the services down comes after all that use them, and last the one that waits for a soak."""
    items.sort(key=lambda item: ("soak" in item.fixturenames, item.get_closest_marker("last") is not None))


@pytest.fixture(scope="session")
def session_environment() -> Iterator[pytest.MonkeyPatch]:
    """Changes to the environment that last as long as the services do."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CONFIGURING:  # a developer's shell must not send the tests to a real cluster
            patch.delenv(name, raising=False)
        yield patch


@pytest.fixture(scope="session")
def surroundings(session_environment: pytest.MonkeyPatch) -> Iterator[Surroundings]:
    """Real S3, MLflow and Ray on loopback, in a state folder of their own; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="meta-test-"))  # short: Unix sockets lie in it
    session_environment.setenv("META_STATE", str(folder))
    try:
        yield local.bring_up(print)
    finally:
        local.take_down(print)
        shutil.rmtree(folder)


@pytest.fixture
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No address configured, no service running, an empty state folder."""
    for name in (*CONFIGURING, "DATA_ROOT", "DATA_CACHE", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("META_STATE", str(tmp_path / "state"))
    yield tmp_path / "state"
    monkeypatch.setenv("META_STATE", str(tmp_path / "state"))
    local.take_down(print)
