import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from meta_service.data.cache import forget


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    forget()
    yield
    forget()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """An image file of pixels [height, width] or [height, width, 3], or of one grey value."""

    def make(pixels: np.ndarray | int = 0, suffix: str = "png", **options) -> bytes:
        array = np.full((8, 8), pixels, np.uint8) if isinstance(pixels, int) else pixels
        file = io.BytesIO()
        Image.fromarray(array).save(file, {"jpg": "JPEG"}.get(suffix, suffix.upper()), **options)
        return file.getvalue()

    return make
