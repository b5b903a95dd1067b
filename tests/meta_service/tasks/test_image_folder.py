import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from meta_service.data import cache, image_folder
from meta_service.data.cache import forget
from meta_service.errors import UserError
from meta_service.tasks.image_folder import ImageFolder

COUNTS = {"train/rose": 5, "train/lily": 7, "train/iris": 4, "val/oak": 4, "val/elm": 4, "test/cat": 6, "test/dog": 4}


@pytest.fixture
def files(picture) -> dict[str, bytes]:
    return {
        f"{known}/{i}.png": picture(10 * k + i, 20 + i) for k, (known, n) in enumerate(COUNTS.items()) for i in range(n)
    }


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def tasks(path: Path, **settings) -> ImageFolder:
    return ImageFolder(str(path), **{"size": 8, "ways": 2, "shots": 1, "query_shots": 2, **settings})


def test_classes_may_have_different_numbers_of_images(tmp_path, files):
    table = tasks(write(tmp_path / "own", files)).table("train")
    assert dict(zip(table.names, table.counts.tolist(), strict=True)) == {
        "train/iris": 4,
        "train/lily": 7,
        "train/rose": 5,
    }


def test_images_are_resized_and_kept_in_order(tmp_path, files):
    images = tasks(write(tmp_path / "own", files)).images()
    assert images.pixels.shape == (34, 3, 8, 8)
    by_name = [(name.replace("val/", "validation/"), content) for name, content in COUNTS.items()]
    shades = {name: [10 * k + i for i in range(n)] for k, (name, n) in enumerate(by_name)}
    assert images.pixels[:, 0, 3, 3].tolist() == [value for name in sorted(shades) for value in shades[name]]


@pytest.mark.parametrize("name", ["val", "validation"])
def test_both_names_of_the_validation_split_are_known(tmp_path, files, name):
    renamed = {path.replace("val/", f"{name}/"): content for path, content in files.items()}
    assert tasks(write(tmp_path / "own", renamed)).table("validation").names == ("validation/elm", "validation/oak")


def test_grey_and_colour_are_settings(tmp_path, files):
    path = write(tmp_path / "own", files)
    for channels in (1, 3):
        support, query = tasks(path, channels=channels).sample(0, "train")
        assert tasks(path, channels=channels).signature == ((channels, 8, 8), 2)
        assert support.inputs[0].shape == (2, channels, 8, 8)
        assert query.inputs[0].shape == (4, channels, 8, 8)


def test_an_archive_is_as_good_as_a_folder(tmp_path, files):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"flowers/{name}", content)
    folder, zipped = tasks(write(tmp_path / "own", files)), tasks(tmp_path / "own.zip")
    assert folder.prepare() == zipped.prepare()


def test_a_changed_image_is_seen_by_the_next_prepare(tmp_path, files, picture, monkeypatch):
    monkeypatch.setattr(cache, "FRESH_S", 0.0)
    path = write(tmp_path / "own", files)
    first = tasks(path).prepare()
    assert tasks(path).prepare() == first
    (path / "train/rose/0.png").write_bytes(picture(200, 31))
    assert tasks(path).prepare() != first


def test_a_folder_is_looked_at_once_for_all_evaluations_of_a_job(tmp_path, files, monkeypatch):
    looks = []
    fingerprint = image_folder._fingerprint
    monkeypatch.setattr(image_folder, "_fingerprint", lambda place: looks.append(place) or fingerprint(place))
    path = write(tmp_path / "own", files)
    assert tasks(path).prepare() == tasks(path, query_shots=3).prepare()
    assert looks == [path]
    monkeypatch.setattr(cache, "FRESH_S", 0.0)
    tasks(path).prepare()
    assert looks == [path, path]


def test_two_sizes_of_one_folder_stand_side_by_side(tmp_path, files):
    path = write(tmp_path / "own", files)
    assert tasks(path, size=8).images().pixels.shape[-1] == 8
    assert tasks(path, size=12).images().pixels.shape[-1] == 12
    forget()
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 2


def test_a_missing_split_is_named(tmp_path, files):
    path = write(tmp_path / "own", {name: content for name, content in files.items() if not name.startswith("test")})
    with pytest.raises(UserError) as error:
        tasks(path).prepare()
    assert str(error.value) == f"image folder has no split 'test' (in {path}); expected <split>/<class>/<image>"


def test_too_few_images_of_a_class_are_named(tmp_path, files):
    with pytest.raises(UserError) as error:
        tasks(write(tmp_path / "own", files), shots=3, query_shots=2).prepare()
    assert str(error.value) == (
        "tasks.shots: image folder class 'train/iris' has 4 images, 3 shots + 2 query examples asked; "
        "use at most 4 together"
    )


def test_too_few_classes_of_a_split_are_named(tmp_path, files):
    with pytest.raises(UserError, match=r"split 'validation' has 2 classes, 3 asked; use tasks\.ways <= 2"):
        tasks(write(tmp_path / "own", files), ways=3).prepare()


def test_a_broken_image_is_named_and_leaves_nothing(tmp_path, files, picture):
    path = write(tmp_path / "own", {**files, "train/rose/broken.png": picture(1)[:60]})
    with pytest.raises(UserError, match=r"'train/rose/broken\.png' in .*own is not a readable image"):
        tasks(path).prepare()
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]


def test_a_name_that_is_no_unicode_is_read(tmp_path, files, picture):
    path = write(tmp_path / "own", files)
    odd = os.fsencode(path) + b"/train/ros\xe9"
    os.mkdir(odd)
    for i in range(4):
        with open(odd + b"/%d.png" % i, "wb") as file:
            file.write(picture(i))
    assert len(tasks(path).table("train").names) == 4
    assert tasks(path).prepare()


def test_no_path_is_refused_when_it_is_needed():
    with pytest.raises(UserError, match=r"tasks\.path is empty; set it to a folder or archive"):
        ImageFolder().prepare()


@pytest.mark.parametrize("name", ["nowhere", "file.txt"])
def test_a_path_that_is_neither_folder_nor_archive_is_refused(tmp_path, name):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UserError, match=f"tasks.path=.*{name} is neither a folder nor an archive"):
        ImageFolder(str(tmp_path / name)).prepare()


@pytest.mark.parametrize(("field", "value"), [("channels", 2), ("size", 0), ("size", 5000), ("ways", 1)])
def test_a_senseless_setting_is_refused_when_it_is_made(field, value):
    with pytest.raises(UserError, match=rf"tasks\.{field} is {value}, expected"):
        ImageFolder(**{field: value})


def test_the_path_is_made_absolute_for_workers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ImageFolder("own").path == str(tmp_path / "own")
    assert pickle.loads(pickle.dumps(ImageFolder("own"))).path == str(tmp_path / "own")


def test_processes_that_start_together_prepare_once_and_see_the_same(tmp_path, files):
    path = write(tmp_path / "own", files)
    # without torch, which takes seconds to import
    code = "import sys; from meta_service.data.image_folder import images; print(images(sys.argv[1], 8, 3).sha256)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", code, str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=environment, **pipes) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1
    assert sum("images, once: done in" in err for _, err in outputs) == 1


def test_preparing_images_does_not_need_torch():
    code = "import sys, meta_service.data.image_folder, meta_service.data.omniglot; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
