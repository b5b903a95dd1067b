import io
import os
import pickle
import socket
import tarfile
import time
import zipfile

import numpy as np
import pytest

from meta_service.data import miniimagenet as data
from meta_service.errors import UserError
from meta_service.tasks.miniimagenet import MiniImageNet

SMALL = {"train": 4, "validation": 2, "test": 3}
NAMES = {"train": "train", "validation": "val", "test": "test"}
PICKLES = {split: f"mini-imagenet-cache-{split}.pkl" for split in SMALL}


@pytest.fixture(autouse=True)
def small(request, monkeypatch) -> None:
    """MiniImageNet has 9 classes of 3 images, except for the tests of the real one."""
    if "real_data" not in request.fixturenames:
        monkeypatch.setattr(data, "CLASSES", SMALL)
        monkeypatch.setattr(data, "IMAGES", 3)


def shade(split: str, known: int, image: int) -> int:
    """The value of all pixels of an image, by which a test knows it again."""
    return 80 * list(SMALL).index(split) + 10 * known + image


def contents(picture, classes=SMALL, images=3, size=84) -> dict[str, dict[str, bytes]]:
    return {
        split: {
            f"{NAMES[split]}/n{known:02}/n{known:02}{image:08}.png": picture(shade(split, known, image), size)
            for known in range(count)
            for image in range(images)
        }
        for split, count in classes.items()
    }


def write(root, contents, form) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, files in contents.items():
        if form == "folder":
            for name, content in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
        elif form == ".zip":
            with zipfile.ZipFile(root / f"{NAMES[split]}.zip", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            with tarfile.open(root / f"{NAMES[split]}{form}", "w" if form == ".tar" else "w:gz") as archive:
                for name, content in reversed(files.items()):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def arrays(classes=SMALL, images=3) -> dict[str, dict]:
    """What the published pickle files hold, the images of a class not side by side."""
    made = {}
    for split, count in classes.items():
        order = [(known, image) for image in range(images) for known in range(count)]
        pixels = np.stack([np.full((84, 84, 3), shade(split, *which), np.uint8) for which in order])
        table = {f"n{known:02}": [i for i, which in enumerate(order) if which[0] == known] for known in range(count)}
        made[split] = {"image_data": pixels, "class_dict": table}
    return made


def write_pickles(root, content) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, values in content.items():
        (root / PICKLES[split]).write_bytes(pickle.dumps(values))


def in_order(classes=SMALL) -> list[int]:
    """The shades of all images as the cache has them: splits sorted by name, then classes, then images."""
    return [shade(s, known, image) for s in sorted(classes) for known in range(classes[s]) for image in range(3)]


@pytest.mark.parametrize("form", [".tar.gz", ".tgz", ".tar", ".zip", "folder"])
def test_every_form_of_the_files_gives_the_same_images(tmp_path, monkeypatch, picture, form):
    write(tmp_path / "data", contents(picture), form)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    images = data.images()
    assert images.pixels.shape == (27, 3, 84, 84)
    assert images.pixels[:, 1, 5, 5].tolist() == in_order()
    assert list(images.classes) == [f"{split}/n{known:02}" for split in sorted(SMALL) for known in range(SMALL[split])]


def test_the_pickle_files_give_the_same_digest_as_the_images(tmp_path, monkeypatch, picture):
    write(tmp_path / "files", contents(picture), ".tar.gz")
    write_pickles(tmp_path / "pickles", arrays())
    digests = []
    for name in ("files", "pickles"):
        monkeypatch.setenv("DATA_ROOT", str(tmp_path / name))
        digests.append(data.images().sha256)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ["miniimagenet", "mini-imagenet"])
def test_a_folder_below_data_root_is_found(tmp_path, monkeypatch, picture, name):
    write(tmp_path / "data" / name, contents(picture), ".zip")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    assert len(data.images().classes) == 9


def test_images_of_another_size_are_resized(tmp_path, monkeypatch, picture):
    write(tmp_path / "data", contents(picture, size=100), ".zip")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    assert data.images().pixels[:, 1, 5, 5].tolist() == in_order()


def failure(root, monkeypatch) -> str:
    """The one line of the error, after which nothing is left."""
    monkeypatch.setenv("DATA_ROOT", str(root))
    with pytest.raises(UserError) as error:
        data.images()
    assert "\n" not in str(error.value)
    cache = root.parent / "cache"
    assert not cache.exists() or [path.name for path in cache.iterdir()] == ["miniimagenet-84.lock"]
    return str(error.value)


def test_a_missing_class_is_named_with_its_place(tmp_path, monkeypatch, picture):
    root = tmp_path / "data"
    write(root, contents(picture, {**SMALL, "train": 3}), ".tar.gz")
    assert failure(root, monkeypatch) == (
        f"MiniImageNet split 'train' has 3 classes, expected 4 (in {root}/train.tar.gz)"
    )


def test_a_missing_image_is_named_with_its_place(tmp_path, monkeypatch, picture):
    root = tmp_path / "data"
    files = contents(picture)
    del files["test"]["test/n02/n0200000001.png"]
    write(root, files, "folder")
    assert failure(root, monkeypatch) == f"MiniImageNet class 'test/n02' has 2 images, expected 3 (in {root}/test)"


def test_a_missing_split_says_what_to_put_where(tmp_path, monkeypatch, picture):
    root = tmp_path / "data"
    write(root, contents(picture, {"train": 4, "test": 3}), ".tar.gz")
    message = failure(root, monkeypatch)
    assert message.startswith(f"MiniImageNet in {root} has no split 'validation'; put val.tar.gz or ")


def test_an_archive_cut_off_is_named(tmp_path, monkeypatch, picture):
    root = tmp_path / "data"
    write(root, contents(picture), ".tar.gz")
    whole = (root / "val.tar.gz").read_bytes()
    (root / "val.tar.gz").write_bytes(whole[: len(whole) // 2])
    assert failure(root, monkeypatch).startswith(f"{root}/val.tar.gz cannot be read")


def test_a_damaged_image_is_named(tmp_path, monkeypatch, picture):
    root = tmp_path / "data"
    files = contents(picture)
    files["train"]["train/n01/n0100000002.png"] = picture(1)[:100]
    write(root, files, ".zip")
    assert failure(root, monkeypatch).startswith(
        f"MiniImageNet: 'train/n01/n0100000002.png' in {root}/train.zip is not a readable image"
    )


def test_an_image_that_is_there_twice_is_named(tmp_path, monkeypatch, picture):
    root = tmp_path / "data"
    write(root, contents(picture), ".tar")
    with tarfile.open(root / "train.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("train/n01/n0100000002.png"))
    assert "'train/train/n01/n0100000002.png' is there twice" in failure(root, monkeypatch)


class Hostile:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    root = tmp_path / "data"
    write_pickles(root, {**arrays(), "test": {"image_data": Hostile(tmp_path / "trace")}})
    assert "mini-imagenet-cache-test.pkl is refused: it would run" in failure(root, monkeypatch)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_data": np.zeros((12, 80, 84, 3), np.uint8)}, r"image_data is uint8 \[12, 80, 84, 3\]"),
        ({"image_data": np.zeros((12, 84, 84, 3), np.float32)}, "image_data is float32"),
        ({"image_data": 5}, "is not a MiniImageNet pickle"),
        ({"class_dict": {"n00": [0, 1, 2, 3000]}}, "points outside image_data"),
        ({"class_dict": {"n00": [0, 1, -1]}}, "points outside image_data"),
        ({"class_dict": {"n00": [0, 1, 1]}}, "one image twice"),
        ({"class_dict": {"n00": ["a"]}}, "is not a MiniImageNet pickle"),
        ({"class_dict": [1, 2]}, "is not a MiniImageNet pickle"),
        ({"class_dict": {"n00": [0, 1, 2]}}, "split 'train' has 1 classes, expected 4"),
    ],
)
def test_a_pickle_with_other_content_is_refused(tmp_path, monkeypatch, change, message):
    content = arrays()
    content["train"].update(change)
    write_pickles(tmp_path / "data", content)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    with pytest.raises(UserError, match=message):
        data.images()


def test_without_data_and_network_the_error_says_what_to_fetch_at_once(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(data, "ADDRESS", f"http://127.0.0.1:{free.getsockname()[1]}/")
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        MiniImageNet().prepare()
    assert time.monotonic() - start < 5
    assert "\n" not in str(error.value)
    for part in (*PICKLES.values(), "DATA_ROOT=", "train.tar.gz", data.ADDRESS, "refused"):
        assert part in str(error.value)


def test_a_download_that_is_no_pickle_is_not_kept(monkeypatch, tmp_path):
    def login_page(address, path, sha256=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"<html>please log in</html>")

    monkeypatch.setattr(data, "download", login_page)
    with pytest.raises(UserError, match="not a readable pickle"):
        data.images()
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_a_download_is_prepared(monkeypatch, tmp_path):
    def fetched(address, path, sha256=None):
        write_pickles(
            path.parent, {split: content for split, content in arrays().items() if path.name == PICKLES[split]}
        )

    monkeypatch.setattr(data, "download", fetched)
    assert data.images().pixels[:, 1, 5, 5].tolist() == in_order()


def test_a_task_has_the_classes_of_its_split(tmp_path, monkeypatch):
    write_pickles(tmp_path / "data", arrays())
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    tasks = MiniImageNet(ways=2, query_shots=2)
    for split in SMALL:
        shades = {shade(split, known, image) for known in range(SMALL[split]) for image in range(3)}
        for seed in range(10):
            support, query = tasks.sample(seed, split)
            assert set((support.inputs[0][:, 0, 0, 0] * 255).round().int().tolist()) < shades
            assert query.inputs[0].shape == (4, 3, 84, 84)


def test_more_ways_than_the_validation_classes_are_refused(tmp_path, monkeypatch):
    write_pickles(tmp_path / "data", arrays())
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    with pytest.raises(UserError) as error:
        MiniImageNet(ways=3, query_shots=2).prepare()
    assert str(error.value) == (
        "tasks.ways: MiniImageNet split 'validation' has 2 classes, 3 asked; use tasks.ways <= 2"
    )


def test_the_signature_follows_the_ways():
    assert MiniImageNet(ways=7).signature == ((3, 84, 84), 7)


@pytest.mark.real_data
def test_the_real_splits_have_64_16_and_20_classes_of_600(real_data):
    tasks = MiniImageNet()
    tasks.prepare()
    tables = [tasks.table(split) for split in ("train", "validation", "test")]
    assert [len(table.counts) for table in tables] == [64, 16, 20]
    assert {int(count) for table in tables for count in table.counts} == {600}
    assert len({name.split("/")[1] for table in tables for name in table.names}) == 100


@pytest.mark.real_data
def test_the_real_pixels_have_the_known_channel_means(real_data):
    images = data.images()
    train = MiniImageNet().table("train")
    some = images.pixels[(train.starts[:, None] + np.arange(0, 600, 10)).ravel()]
    means = some.mean(axis=(0, 2, 3), dtype=np.float64) / 255
    np.testing.assert_allclose(means, [0.471, 0.449, 0.405], atol=0.01)


@pytest.mark.real_data
def test_twenty_ways_of_the_real_classes_are_refused_with_the_limit(real_data):
    with pytest.raises(UserError, match=r"split 'validation' has 16 classes, 20 asked; use tasks\.ways <= 16"):
        MiniImageNet(ways=20).prepare()
