"""Checkpoints: the bits come back, damage is found, and no moment of death leaves nothing."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cluster.surroundings import Surroundings
from meta_service.artifacts import DirectoryStore, StorageError, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.pointer import Pointer
from meta_service.state import MetaState
from tests.meta_service.full import full_disk


def state(iteration: int) -> MetaState:
    """A state that differs from that of any other iteration."""
    generator = torch.Generator().manual_seed(iteration)
    params = {name: torch.randn(3, 4, generator=generator) for name in ("a.weight", "b.weight")}
    return MetaState(iteration, params, {"m/a.weight": torch.randn(3, 4, generator=generator)})


def same(one: MetaState | None, other: MetaState) -> bool:
    return one is not None and one.iteration == other.iteration and one.sha256() == other.sha256()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The store of a run with checkpoints of iterations 1, 2, 3, of which 2 is the best."""
    checkpoints = Checkpoints(DirectoryStore(tmp_path))
    for iteration in (1, 2, 3):
        checkpoints.save(state(iteration), {"loss": 1 / iteration}, best=iteration == 2)
    return tmp_path


def reader(folder: Path) -> tuple[Checkpoints, list[str]]:
    said: list[str] = []
    return Checkpoints(DirectoryStore(folder), said.append), said


def pointed(folder: Path) -> str:
    """The manifest that LATEST names."""
    pointer = Pointer.from_bytes("LATEST", (folder / "LATEST").read_bytes())
    assert pointer
    return pointer.manifest


def file_of(folder: Path, kind: str) -> Path:
    """The part or the manifest of the newest checkpoint, or the pointer to it."""
    if kind in ("LATEST", "BEST"):
        return folder / kind
    manifest = folder / pointed(folder)
    part = next(path for path in (folder / "parts").iterdir() if path.name in manifest.read_text())
    return manifest if kind == "manifest" else part


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


DAMAGES = [flip, truncate, empty, remove]


def test_every_bit_comes_back(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    params = {
        "odd": torch.tensor([math.nan, -0.0, math.inf, 1e-45]),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "transposed": base.t(),
        "view": base[0],
        "empty": torch.empty(0, 3),
    }
    saved = MetaState(7, params, {"step": torch.tensor(7)})
    Checkpoints(DirectoryStore(tmp_path)).save(saved)
    assert same(Checkpoints(DirectoryStore(tmp_path)).latest(), saved)


def test_nothing_is_latest_or_best_before_the_first(tmp_path: Path) -> None:
    checkpoints, said = reader(tmp_path)
    assert checkpoints.latest() is None
    assert checkpoints.best() is None
    assert said == []


def test_latest_is_the_last_one_saved(folder: Path) -> None:
    checkpoints, said = reader(folder)
    assert same(checkpoints.latest(), state(3))
    assert said == []


def test_best_is_the_last_one_saved_as_the_best(folder: Path) -> None:
    checkpoints, said = reader(folder)
    assert same(checkpoints.best(), state(2))
    assert said == []


def test_none_is_best_where_none_was_saved_as_the_best(tmp_path: Path) -> None:
    checkpoints, _ = reader(tmp_path)
    checkpoints.save(state(1))
    assert checkpoints.best() is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["part", "manifest"])
def test_a_damaged_checkpoint_is_named_and_the_previous_taken(
    folder: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    damaged = file_of(folder, kind)
    damage(damaged)
    checkpoints, said = reader(folder)
    assert same(checkpoints.latest(), state(2))
    assert [str(damaged) in text for text in said] == [True]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pointer_is_named_and_the_newest_checkpoint_taken(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "LATEST")
    checkpoints, said = reader(folder)
    assert same(checkpoints.latest(), state(3))
    assert "LATEST" in said[0] or "manifests/" in said[0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pointer_to_the_best_does_not_lose_it(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder / "BEST")
    checkpoints, said = reader(folder)
    assert same(checkpoints.best(), state(2))
    assert len(said) == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_saving_after_damage_to_the_best_pointer_does_not_delete_the_best(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder / "BEST")
    checkpoints, _ = reader(folder)
    for iteration in range(4, 10):
        checkpoints.save(state(iteration))
    assert same(checkpoints.best(), state(2))


def test_two_damaged_checkpoints_leave_the_third(folder: Path) -> None:
    flip(file_of(folder, "part"))
    truncate(sorted((folder / "manifests").iterdir())[1])
    checkpoints, said = reader(folder)
    assert same(checkpoints.latest(), state(1))
    assert len(said) == 2


def test_where_all_are_damaged_nothing_is_begun_anew(folder: Path) -> None:
    for part in (folder / "parts").iterdir():
        flip(part)
    checkpoints, _ = reader(folder)
    with pytest.raises(StorageError, match="all 3 checkpoints are damaged"):
        checkpoints.latest()


def test_the_newest_three_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints, _ = reader(tmp_path)
    for iteration in range(1, 9):
        checkpoints.save(state(iteration), best=iteration == 2)
    kept = [int(path.name[:9]) for path in sorted((tmp_path / "manifests").iterdir())]
    assert kept == [2, 6, 7, 8]
    assert len(list((tmp_path / "parts").iterdir())) == 4
    assert same(checkpoints.best(), state(2))


class Unsteady(DirectoryStore):
    """Fails while it is told to."""

    failing = False

    def write(self, name: str, data: bytes) -> None:
        if self.failing:
            raise StorageError("away")
        super().write(name, data)


def test_a_failing_store_is_said_once_and_does_not_stop_the_caller(tmp_path: Path) -> None:
    said: list[str] = []
    store = Unsteady(tmp_path)
    store.failing = True
    checkpoints = Checkpoints(store, said.append)
    for iteration in (1, 2, 3):
        checkpoints.save_async(state(iteration))
    with pytest.raises(StorageError, match="away"):
        checkpoints.wait()
    assert len(said) == 1
    assert checkpoints.durable is None


def test_what_could_not_be_stored_is_stored_with_the_next(tmp_path: Path) -> None:
    store = Unsteady(tmp_path)
    store.failing = True
    checkpoints = Checkpoints(store, lambda text: None)
    checkpoints.save_async(state(1), best=True)
    checkpoints.save_async(state(2))
    with pytest.raises(StorageError):
        checkpoints.wait()
    store.failing = False
    checkpoints.save(state(3))
    again, said = reader(tmp_path)
    assert same(again.best(), state(1))
    assert same(again.latest(), state(3))
    assert said == []
    assert checkpoints.failure is None
    assert checkpoints.durable == 3


def test_the_best_is_known_even_while_the_store_is_away(tmp_path: Path) -> None:
    store = Unsteady(tmp_path)
    store.failing = True
    checkpoints = Checkpoints(store, lambda text: None)
    checkpoints.save_async(state(1), best=True)
    assert same(checkpoints.best(), state(1))


def test_saving_in_the_background_does_not_wait_for_the_store(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(DirectoryStore):
        def write(self, name: str, data: bytes) -> None:
            gate.wait()
            super().write(name, data)

    checkpoints = Checkpoints(Slow(tmp_path))
    begin = time.monotonic()
    checkpoints.save_async(state(1))
    elapsed = time.monotonic() - begin
    with pytest.raises(StorageError, match=r"did not take the checkpoint within 0\.01 s"):
        checkpoints.wait(0.01)
    gate.set()
    checkpoints.wait()
    assert elapsed < 0.5
    assert same(checkpoints.latest(), state(1))


def test_the_state_saved_is_that_of_the_moment_of_saving(tmp_path: Path) -> None:
    checkpoints, _ = reader(tmp_path)
    saved = state(1)
    checkpoints.save_async(saved)
    saved.params["a.weight"].zero_()
    assert same(checkpoints.latest(), state(1))


def test_the_bits_come_back_from_s3(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    root = f"{surroundings.artifacts}/{tmp_path.name}"
    checkpoints = Checkpoints(open_store(root))
    for iteration in range(1, 6):
        checkpoints.save(state(iteration), best=iteration == 1)
    again = Checkpoints(open_store(root))
    assert same(again.latest(), state(5))
    assert same(again.best(), state(1))


# on this machine first


@pytest.fixture
def away(tmp_path: Path) -> tuple[Unsteady, DirectoryStore]:
    """A store that takes nothing, and a folder of this machine."""
    store = Unsteady(tmp_path / "store")
    store.failing = True
    return store, DirectoryStore(tmp_path / "here")


Away = tuple[Unsteady, DirectoryStore]


def silent(text: str) -> None: ...


def test_what_the_store_does_not_take_is_kept_on_this_machine_as_it_comes(away: Away) -> None:
    store, here = away
    checkpoints = Checkpoints(store, silent, rescue=here)
    for iteration in (1, 2, 3):
        with pytest.raises(StorageError, match="away"):
            checkpoints.save(state(iteration), best=iteration == 2)
        assert same(Checkpoints(here).latest(), state(iteration))
        assert checkpoints.local == iteration
        assert checkpoints.durable is None
    assert same(Checkpoints(here).best(), state(2))


def test_the_next_driver_delivers_what_was_kept_and_goes_on_from_it(away: Away) -> None:
    store, here = away
    dead = Checkpoints(store, silent, rescue=here)
    for iteration in (1, 2, 3):
        with pytest.raises(StorageError):
            dead.save(state(iteration), best=iteration == 2)
    store.failing = False
    following = Checkpoints(store, silent, rescue=here)
    assert same(following.latest(), state(3))
    assert same(following.best(), state(2))
    following.wait()
    assert same(Checkpoints(store).latest(), state(3))
    assert same(Checkpoints(store).best(), state(2))
    following.forget()
    assert here.list() == []
    assert following.durable == 3
    assert following.local is None


def test_what_was_kept_is_not_forgotten_before_the_store_has_it(away: Away) -> None:
    store, here = away
    checkpoints = Checkpoints(store, silent, rescue=here)
    checkpoints.save_async(state(1))
    with pytest.raises(StorageError):
        checkpoints.wait()
    checkpoints.forget()
    assert same(Checkpoints(here).latest(), state(1))


def test_what_was_kept_is_not_taken_where_the_store_has_newer(tmp_path: Path) -> None:
    store, here = DirectoryStore(tmp_path / "store"), DirectoryStore(tmp_path / "here")
    Checkpoints(here).save(state(1))
    Checkpoints(store).save(state(2))
    checkpoints = Checkpoints(store, silent, rescue=here)
    assert same(checkpoints.latest(), state(2))
    assert here.list() == []


def test_damage_to_all_that_was_kept_is_said_and_the_store_s_own_is_taken(away: Away) -> None:
    store, here = away
    with pytest.raises(StorageError):
        Checkpoints(store, silent, rescue=here).save(state(2))
    store.failing = False
    Checkpoints(store).save(state(1))
    for name in here.list("parts/"):
        here.write(name, b"")
    said: list[str] = []
    assert same(Checkpoints(store, said.append, rescue=here).latest(), state(1))
    assert "is damaged" in said[0]


def test_a_silent_store_does_not_hold_up_what_is_kept_on_this_machine(tmp_path: Path) -> None:
    gate = threading.Event()

    class Silent(DirectoryStore):
        def write(self, name: str, data: bytes) -> None:
            gate.wait()
            super().write(name, data)

    here = DirectoryStore(tmp_path / "here")
    checkpoints = Checkpoints(Silent(tmp_path / "store"), silent, rescue=here)
    for iteration in (1, 2, 3):
        with pytest.raises(StorageError, match="did not take"):
            checkpoints.save(state(iteration), timeout=0.01)
    deadline = time.monotonic() + 30
    while not same(Checkpoints(here).latest(), state(3)):
        assert time.monotonic() < deadline
    gate.set()
    checkpoints.wait()


def test_a_full_disk_is_said_once_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    store, here = DirectoryStore(tmp_path / "store"), DirectoryStore(tmp_path / "here")
    said: list[str] = []
    checkpoints = Checkpoints(store, said.append, rescue=here)
    checkpoints.save(state(1))
    with full_disk(100):
        for iteration in (2, 3):
            with pytest.raises(StorageError, match="File too large; check the folder's rights and free space"):
                checkpoints.save(state(iteration))
    assert len(said) == 2
    assert "checkpoints are not kept on this machine" in said[0] + said[1]
    assert not list(tmp_path.rglob("*.tmp"))
    for place in (store, here):
        assert same(Checkpoints(place).latest(), state(1))
    checkpoints.save(state(4))
    assert same(Checkpoints(store).latest(), state(4))
