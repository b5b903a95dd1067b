import json

import numpy as np
import pytest

from meta_service.data import cache
from meta_service.data.cache import Contents, Source, cache_root, data_root, prepared
from meta_service.errors import UserError

CLASSES = {"train/a": 2, "train/b": 3}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), np.uint8)


class Reads:
    """A source that counts how often it is read."""

    def __init__(self, pixels=PIXELS, fingerprint="one", order=(3, 1, 4, 0, 2), fails=None):
        self.count, self.pixels, self.fingerprint, self.order, self.fails = 0, pixels, fingerprint, order, fails

    def source(self) -> Source:
        return Source(self.fingerprint, self.read)

    def read(self) -> Contents:
        self.count += 1
        return Contents(CLASSES, (1, 4, 4), self.images())

    def images(self):
        for i in self.order:
            yield i, self.pixels[i]
        if self.fails:
            raise self.fails


def opened(reads: Reads):
    return prepared("set", "Set", reads.source, reads.source)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "set"


def test_pixels_and_classes_come_back_whatever_order_they_came_in():
    images = opened(Reads())
    np.testing.assert_array_equal(images.pixels, PIXELS)
    assert images.classes == CLASSES
    assert list(images.classes) == list(CLASSES)


def test_a_second_opening_reads_nothing():
    reads = Reads()
    assert opened(reads).sha256 == opened(reads).sha256
    assert reads.count == 1


def test_pixels_are_mapped_and_read_only():
    pixels = opened(Reads()).pixels
    assert isinstance(pixels.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_the_digest_names_the_content():
    changed = PIXELS.copy()
    changed[4, 0, 3, 3] ^= 1
    digests = [
        prepared(f"set{i}", "Set", reads.source, reads.source).sha256
        for i, reads in enumerate([Reads(), Reads(order=range(5), fingerprint="two"), Reads(changed)])
    ]
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


@pytest.mark.parametrize(
    "damage", ["cut", "grown", "no index", "broken index", "other format", "other classes", "empty"]
)
def test_a_damaged_cache_is_prepared_anew(folder, damage):
    reads = Reads()
    opened(reads)
    index, array = folder / "index.json", folder / "images.npy"
    match damage:
        case "cut":
            array.write_bytes(array.read_bytes()[:-1])
        case "grown":
            np.save(array, np.zeros((6, 1, 4, 4), np.uint8))
        case "no index":
            index.unlink()
        case "broken index":
            index.write_text(index.read_text()[:-5])
        case "other format":
            index.write_text(json.dumps({**json.loads(index.read_text()), "format": 0}))
        case "other classes":
            index.write_text(json.dumps({**json.loads(index.read_text()), "classes": {"train/a": 2}}))
        case "empty":
            array.write_bytes(b"")
    np.testing.assert_array_equal(opened(reads).pixels, PIXELS)
    assert reads.count == 2


def test_an_array_still_open_survives_its_replacement():
    old = opened(Reads()).pixels
    new = opened(Reads(255 - PIXELS, fingerprint="two")).pixels
    np.testing.assert_array_equal(old, PIXELS)
    np.testing.assert_array_equal(new, 255 - PIXELS)


def test_another_source_is_prepared_anew():
    opened(Reads())
    np.testing.assert_array_equal(opened(Reads(255 - PIXELS, fingerprint="two")).pixels, 255 - PIXELS)


def test_without_a_source_what_is_there_is_used():
    opened(Reads())
    images = prepared("set", "Set", lambda: None, lambda: pytest.fail("nothing is to be downloaded"))
    np.testing.assert_array_equal(images.pixels, PIXELS)


def test_without_a_source_and_a_cache_it_is_fetched():
    np.testing.assert_array_equal(prepared("set", "Set", lambda: None, Reads().source).pixels, PIXELS)


@pytest.mark.parametrize("error", [UserError("broken"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_nothing(folder, error):
    with pytest.raises(type(error)):
        opened(Reads(fails=error))
    assert [path.name for path in folder.parent.iterdir()] == ["set.lock"]


def test_a_failure_while_replacing_keeps_the_old_cache(folder):
    opened(Reads())
    with pytest.raises(UserError):
        opened(Reads(fingerprint="two", fails=UserError("broken")))
    np.testing.assert_array_equal(opened(Reads()).pixels, PIXELS)


def test_what_a_killed_process_left_is_cleared_away(folder):
    (folder.parent / ".set.partial").mkdir(parents=True)
    (folder.parent / ".set.partial" / "images.npy").write_bytes(b"half")
    np.testing.assert_array_equal(opened(Reads()).pixels, PIXELS)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["set", "set.lock"]


def test_fewer_images_than_announced_are_refused():
    with pytest.raises(UserError, match="5 images were announced and 4 came"):
        opened(Reads(order=range(4)))


def test_a_full_disk_is_one_error_that_says_where(folder):
    with pytest.raises(UserError, match=r"No space left on device.*set DATA_CACHE") as error:
        opened(Reads(fails=OSError(28, "No space left on device")))
    assert str(folder.parent) in str(error.value)
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Set cannot be prepared in .*file.*; set DATA_CACHE to a folder"):
        opened(Reads())


def test_a_prepared_cache_needs_no_lock(folder):
    opened(Reads())
    (folder.parent / "set.lock").unlink(missing_ok=True)
    opened(Reads())
    assert not (folder.parent / "set.lock").exists()


def test_the_cache_stands_where_data_cache_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "there"))
    assert cache_root() == tmp_path / "there"


def test_the_cache_stands_in_the_users_cache_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("DATA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "meta_service"


def test_a_data_root_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"DATA_ROOT=.*nowhere is not a folder"):
        data_root()


def test_results_are_remembered_until_forgotten_or_the_environment_changes(tmp_path, monkeypatch):
    calls = []
    remembered = cache.once_per_process(calls.append)
    remembered(1), remembered(1)
    assert calls == [1]
    monkeypatch.setenv("DATA_CACHE", str(tmp_path / "other"))
    remembered(1)
    assert calls == [1, 1]
    cache.forget()
    remembered(1)
    assert calls == [1, 1, 1]


def test_preparing_says_so_once_at_each_end(capsys):
    opened(Reads()), opened(Reads())
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert out == ""
    assert first == "Preparing Set: 5 images, once"
    assert last.startswith("Preparing Set: 5 images, once: done in ")
