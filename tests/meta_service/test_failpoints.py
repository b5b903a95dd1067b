"""Death at every moment of a driver's life with its stores: what loads afterwards is a checkpoint, old or new."""

import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from cluster.surroundings import Surroundings
from meta_service.artifacts import ArtifactStore, DirectoryStore, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.ownership import Owner
from meta_service.pointer import Pointer
from meta_service.state import MetaState
from tests.meta_service.mortal import Countdown, Mortal, endanger_files, killed_at
from tests.meta_service.test_checkpoint import same, state


def silent(text: str) -> None: ...


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: the tests make thousands of files, and wait for each to be written."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def prepare(store: ArtifactStore) -> None:
    """A run with checkpoints 1 to 4, of which 2 is the best."""
    owner = Owner.take(store, "here", silent)
    checkpoints = Checkpoints(store, silent, owner=owner)
    for iteration in (1, 2, 3, 4):
        checkpoints.save(state(iteration), best=iteration == 2)
    owner.release()


def drive(store: ArtifactStore, rescue: ArtifactStore, first: int = 5) -> None:
    """A driver's life: it takes the run, saves two checkpoints, a new best one and its last, and gives the run back."""
    owner = Owner.take(store, "here", silent)
    checkpoints = Checkpoints(store, silent, owner=owner, rescue=rescue)
    checkpoints._keeping = checkpoints._sending  # one thread: the moments come in the same order each time
    assert checkpoints.latest()
    checkpoints.save(state(first), best=True)
    checkpoints.save(state(first + 1))
    checkpoints.forget()
    owner.release()


def survive(store: ArtifactStore, rescue: ArtifactStore, following: int = 7) -> tuple[int, int]:
    """The iterations of the latest and the best checkpoint for the driver that comes after; then it goes on."""
    owner = Owner.take(store, "here", silent)
    checkpoints = Checkpoints(store, silent, owner=owner, rescue=rescue)
    latest, best = checkpoints.latest(), checkpoints.best()
    assert latest is not None
    assert best is not None
    assert same(latest, state(latest.iteration))  # never a mixed one
    assert same(best, state(best.iteration))
    checkpoints.save(state(following))
    checkpoints.forget()
    owner.release()
    assert same(Checkpoints(store, silent).latest(), state(following))
    assert same(Checkpoints(store, silent).best(), state(best.iteration))
    manifests, parts = store.list("manifests/"), store.list("parts/")
    assert len(parts) == len({state(int(name[10:19])).sha256() for name in manifests})  # no orphans
    return latest.iteration, best.iteration


def in_order(outcomes: list[tuple[int, int]]) -> bool:
    """Whether a later death never left an older state."""
    return all(a <= c and b <= d for (a, b), (c, d) in pairwise(outcomes))


def test_death_at_every_moment_on_files_leaves_a_valid_checkpoint_and_no_rest(memory: Path) -> None:
    outcomes: list[tuple[int, int]] = []
    prepare(DirectoryStore(memory / "prepared"))
    moment, moments = 0, None
    while moments is None:
        run, rescue = memory / f"run{moment}", memory / f"rescue{moment}"
        shutil.copytree(memory / "prepared", run)

        def life(countdown: Countdown, run: Path = run, rescue: Path = rescue) -> None:
            endanger_files(countdown)
            drive(DirectoryStore(run), DirectoryStore(rescue))

        moments = killed_at(moment, life)
        for path in (*run.rglob(".*.tmp"), *rescue.rglob(".*.tmp")):
            os.utime(path, (0, 0))  # as if the next driver came later
        outcomes.append(survive(DirectoryStore(run), DirectoryStore(rescue)))
        assert not [*run.rglob("*.tmp"), *rescue.rglob("*.tmp")]
        moment += 1
    assert moments == len(outcomes) - 1
    assert moments > 80
    assert {(4, 2), (5, 5), (6, 5)} <= set(outcomes)
    assert in_order(outcomes)


STRIDE = 4  # each of S3's moments takes half a second


def test_death_before_calls_of_s3_leaves_a_valid_checkpoint(
    surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    root = f"{surroundings.artifacts}/test-{uuid.uuid4().hex}"
    store, rescue = open_store(root), DirectoryStore(tmp_path)
    prepare(store)
    latest, best, outcomes = 4, 2, set()
    moments, number = None, 0
    while moments is None:
        number += 1

        def life(countdown: Countdown, first: int = 10 * number) -> None:
            drive(Mortal(open_store(root), countdown), rescue, first)  # a connection is not for two processes

        moments = killed_at(STRIDE * number, life)
        found = survive(store, rescue, 10 * number + 2)
        assert found[0] in (latest, 10 * number, 10 * number + 1)
        assert found[1] in (best, 10 * number)
        outcomes.add((found[0] - 10 * number, found[1] == best))
        latest, best = 10 * number + 2, found[1]
    assert number > 12
    assert {(-8, True), (1, False)} <= outcomes


# damage


def truncate(rng: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


def flip(rng: random.Random, path: Path, others: list[Path]) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def delete(rng: random.Random, path: Path, others: list[Path]) -> None:
    path.unlink()


def swap(rng: random.Random, path: Path, others: list[Path]) -> None:
    other = rng.choice(others)
    kept = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def empty(rng: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(b"")


def foreign(rng: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(rng.choice([rng.randbytes(path.stat().st_size), b"{}", rng.choice(others).read_bytes()]))


KINDS: list[Callable[[random.Random, Path, list[Path]], None]] = [truncate, flip, delete, swap, empty, foreign]


class Truth:
    """What of a folder is as it was written, known from a copy of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        self.manifests = sorted(path for path in self.kept if path.parent.name == "manifests")

    def restore(self) -> None:
        for path, data in self.kept.items():
            path.write_bytes(data)

    def intact(self, path: Path) -> bool:
        return path.exists() and path.read_bytes() == self.kept[path]

    def part_of(self, manifest: Path) -> Path:
        return next(p for p in self.kept if p.parent.name == "parts" and p.name.encode() in self.kept[manifest])

    def expected(self, pointer: str) -> tuple[MetaState, list[str]]:
        """The state that has to be taken, and what of the damage found on the way is to be named (any of each)."""
        found = Pointer.from_bytes(pointer, self.kept[self.folder / pointer])
        assert found
        named = self.folder / found.manifest
        order, damages = [named, *(m for m in reversed(self.manifests) if m != named)], []
        if not self.intact(self.folder / pointer):
            damages.append(pointer)
            order = sorted(self.manifests, reverse=True)
        for manifest in order:
            if self.intact(manifest) and self.intact(self.part_of(manifest)):
                return state(int(manifest.name[:9])), damages
            damages.append(manifest.name if not self.intact(manifest) else self.part_of(manifest).name)
        raise AssertionError("nothing is left")


def test_200_random_corruptions_are_found_before_use_and_named_and_the_newest_intact_one_is_taken(
    memory: Path,
) -> None:
    rng = random.Random(6)
    folder = memory / "run"
    prepare(DirectoryStore(folder))
    (folder / "OWNER").unlink()
    truth = Truth(folder)
    harmed, fell_back = 0, 0
    for number in range(200):
        path, kind = rng.choice(list(truth.kept)), KINDS[number % len(KINDS)]
        others = [other for other in truth.kept if other != path and other.parent == path.parent]
        kind(rng, path, others)
        said: list[str] = []
        loaded = Checkpoints(DirectoryStore(folder), said.append).latest()
        expected, damages = truth.expected("LATEST")
        assert same(loaded, expected), (number, kind, path)
        assert len(said) == len(damages), (said, damages)
        assert all(damage in text for damage, text in zip(damages, said, strict=True)), (said, damages)
        best = Checkpoints(DirectoryStore(folder), said.append).best()
        if all(map(truth.intact, (folder / "BEST", truth.manifests[0], truth.part_of(truth.manifests[0])))):
            assert same(best, state(2))
        else:
            assert best is not None
            assert same(best, state(best.iteration))
        harmed += bool(damages)
        fell_back += expected.iteration < 4
        truth.restore()
    assert harmed > 40
    assert fell_back > 20
