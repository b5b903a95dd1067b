import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from meta_service.data.cache import forget

REAL_DATA_ROOT = os.environ.get("DATA_ROOT")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    forget()
    yield
    forget()


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("real_cache")
    yield folder
    shutil.rmtree(folder)  # 1.3 GB, which pytest would keep for three sessions


@pytest.fixture
def real_data(own_cache, real_cache, monkeypatch) -> None:
    """The real archives, prepared once for all tests of a session."""
    if REAL_DATA_ROOT is None:
        pytest.skip("the real archives are needed: set DATA_ROOT to their folder")
    monkeypatch.setenv("DATA_ROOT", REAL_DATA_ROOT)
    monkeypatch.setenv("DATA_CACHE", str(real_cache))
    forget()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """An image file of one value, grey or RGB."""

    def make(value: int, size: int = 84, channels: int = 3) -> bytes:
        file = io.BytesIO()
        shape = (size, size, 3) if channels == 3 else (size, size)
        Image.fromarray(np.full(shape, value, np.uint8)).save(file, "PNG")
        return file.getvalue()

    return make
