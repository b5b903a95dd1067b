"""Of all drivers that want a run exactly one commits, however their steps fall between each other's."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.surroundings import Surroundings
from meta_service import ownership
from meta_service.artifacts import ArtifactStore, DirectoryStore, StorageError, open_store
from meta_service.checkpoint import Checkpoints
from meta_service.errors import UserError
from meta_service.ownership import Owner, Superseded
from meta_service.storage import honours_conditions
from tests.meta_service.test_checkpoint import same, state


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "run")
    surroundings: Surroundings = request.getfixturevalue("surroundings")
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    return open_store(f"{surroundings.artifacts}/test-{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "run")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners that say often that they live."""
    monkeypatch.setattr(ownership, "RENEW_S", 0.1)
    monkeypatch.setattr(ownership, "LOOK_S", 0.05)


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No owner of a test goes on renewing after it."""
    taken: list[Owner] = []
    start = Owner.__init__

    def noted(self: Owner, *arguments: object) -> None:
        start(self, *arguments)  # type: ignore[arg-type]
        taken.append(self)

    monkeypatch.setattr(Owner, "__init__", noted)
    yield
    for owner in taken:
        owner._closing.set()


def take(store: ArtifactStore, place: str = "here", said: list[str] | None = None) -> Owner:
    return Owner.take(store, place, [].append if said is None else said.append)


def checkpoints_of(store: ArtifactStore, owner: Owner | None = None, said: list[str] | None = None) -> Checkpoints:
    return Checkpoints(store, [].append if said is None else said.append, owner=owner)


class Heedless(DirectoryStore):
    """Knows no conditions, and does not say so."""

    def write_if(self, name: str, data: bytes, version: str | None) -> str:
        self.write(name, data)
        return self.read_versioned(name)[1]


def test_both_stores_are_seen_to_honour_conditions(store: ArtifactStore) -> None:
    assert honours_conditions(store)
    assert store.list() == []


def test_a_store_that_does_not_honour_conditions_is_seen(tmp_path: Path) -> None:
    assert not honours_conditions(Heedless(tmp_path))


def test_a_swap_whose_answer_got_lost_counts_when_it_is_asked_again(store: ArtifactStore) -> None:
    first = store.write_if("name", b"mine", None)
    assert store.write_if("name", b"mine", None) == first
    second = store.write_if("name", b"mine again", first)
    assert store.write_if("name", b"mine again", first) == second


@pytest.mark.usefixtures("quick")
def test_of_eight_that_want_a_run_at_once_one_gets_it_and_the_others_say_who(store: ArtifactStore) -> None:
    def attempt(number: int) -> Owner | str:
        try:
            return take(store, f"place {number}")
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(attempt, range(8)))
    owners = [outcome for outcome in outcomes if isinstance(outcome, Owner)]
    refusals = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(owners) == 1
    assert all(owners[0].claim.who in text and "is at work on" in text and "\n" not in text for text in refusals)


@pytest.mark.usefixtures("quick")
def test_a_living_owner_is_left_alone(store: ArtifactStore) -> None:
    owner = take(store)
    time.sleep(0.3)
    with pytest.raises(UserError, match=r"another driver \(.*, process \d+\) is at work on"):
        take(store, "elsewhere")
    owner.check()


@pytest.mark.usefixtures("quick")
def test_a_dead_owner_s_run_is_taken_elsewhere_when_its_lease_is_over(
    folder: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "LEASE_S", 1.0)
    dead = take(folder)
    dead._closing.set()
    dead._thread.join()
    folder.write("OWNER", dead.claim.to_bytes())  # as if it had not given the run back
    said: list[str] = []
    begin = time.monotonic()
    taken = take(folder, "elsewhere", said)
    assert time.monotonic() - begin >= 1.0
    assert taken.claim.epoch == dead.claim.epoch + 1
    assert "did not give it back" in said[0]


def test_where_the_file_lock_shows_it_dead_it_is_taken_at_once(folder: DirectoryStore) -> None:
    take(folder)
    begin = time.monotonic()
    take(folder)
    assert time.monotonic() - begin < ownership.LEASE_S / 2


def test_a_run_that_was_given_back_is_taken_at_once(folder: DirectoryStore) -> None:
    take(folder).release()
    begin = time.monotonic()
    take(folder, "elsewhere")
    assert time.monotonic() - begin < ownership.LEASE_S / 2


@pytest.mark.parametrize("conditional", [True, False])
def test_a_superseded_driver_commits_nothing_more_and_says_who_took_over(tmp_path: Path, conditional: bool) -> None:
    store = DirectoryStore(tmp_path) if conditional else Heedless(tmp_path)
    said: list[str] = []
    old = checkpoints_of(store, take(store, said=said))
    assert bool(said) != conditional
    old.save(state(1))
    new = checkpoints_of(store, take(store))
    new.save(state(2), best=True)
    with pytest.raises(Superseded, match=r"another driver \(.*\) took over this run at iteration 2; this one leaves"):
        old.save(state(3), best=True)
    with pytest.raises(Superseded):
        old.check()
    assert same(checkpoints_of(store).latest(), state(2))
    assert same(checkpoints_of(store).best(), state(2))


@pytest.mark.usefixtures("quick")
def test_a_superseded_driver_knows_it_before_it_commits(folder: DirectoryStore) -> None:
    old = take(folder)
    take(folder)
    deadline = time.monotonic() + 30
    while not old.lost:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_owner_mends_what_was_damaged_or_deleted(folder: DirectoryStore) -> None:
    owner = take(folder)
    checkpoints = checkpoints_of(folder, owner)
    checkpoints.save(state(1))
    for iteration, damage in enumerate([b"", b"nonsense", None], start=2):
        for name in ("LATEST", "OWNER"):
            folder.delete(name) if damage is None else folder.write(name, damage)
        checkpoints.save(state(iteration))
        assert same(checkpoints_of(folder).latest(), state(iteration))
    owner._renew(released=False)
    assert folder.read("OWNER")


def test_a_new_owner_s_epoch_is_higher_even_where_the_old_claim_is_lost(folder: DirectoryStore) -> None:
    old = checkpoints_of(folder, take(folder))
    old.save(state(1))
    folder.delete("OWNER")
    new = checkpoints_of(folder, take(folder, "elsewhere"))
    with pytest.raises(Superseded):
        old.save(state(2))
    new.save(state(3))
    assert same(checkpoints_of(folder).latest(), state(3))


class Between(DirectoryStore):
    """Does something else just before its n-th call, as another machine would."""

    def __init__(self, path: Path, call: int, deed: Callable[[], None]) -> None:
        super().__init__(path)
        self.left, self.deed, self.done, self.inside = call, deed, False, False

    def write_if(self, name: str, data: bytes, version: str | None) -> str:
        self._count()
        self.inside = True  # it holds a lock: nobody comes between
        try:
            return super().write_if(name, data, version)
        finally:
            self.inside = False

    def _count(self) -> None:
        if self.inside:
            return
        if self.left == 0 and not self.done:
            self.done = True
            self.deed()
        self.left -= 1

    def write(self, name: str, data: bytes) -> None:
        self._count()
        super().write(name, data)

    def read(self, name: str) -> bytes:
        self._count()
        return super().read(name)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)

    def list(self, prefix: str = "") -> list[str]:
        self._count()
        return super().list(prefix)


CALLS = 60  # more than there are in a commit, or in a takeover


def test_whenever_in_a_commit_another_driver_takes_over_it_has_that_commit_or_refuses_it(tmp_path: Path) -> None:
    outcomes = []
    for call in range(CALLS):
        plain = DirectoryStore(tmp_path / str(call))
        seen: list[int] = []

        def take_over(plain: DirectoryStore = plain, seen: list[int] = seen) -> None:
            new = checkpoints_of(plain, take(plain))
            found = new.latest()
            seen.append(found.iteration if found else 0)
            seen.append(found.iteration if (found := new.best()) else 0)

        watched = Between(tmp_path / str(call), 10**9, take_over)
        old = checkpoints_of(watched, take(watched))
        for iteration in (1, 2, 3, 4):
            old.save(state(iteration), best=iteration == 2)
        watched.left = call
        refused = False
        try:
            old.save(state(5), best=True)
        except Superseded:
            refused = True
        if not watched.done:
            break
        assert refused == (seen[0] == 4)
        assert seen[1] in (2, 5)
        after = checkpoints_of(plain)
        assert same(after.latest(), state(seen[0]))  # nothing came after the look
        assert same(after.best(), state(seen[1]))
        outcomes.append(refused)
    assert 10 < len(outcomes) < CALLS
    assert outcomes == sorted(outcomes, reverse=True)  # refused until the pointer was written, and never later
    assert not outcomes[-1]


def test_whenever_in_a_takeover_the_old_driver_commits_the_new_one_has_that_commit_or_it_is_refused(
    tmp_path: Path,
) -> None:
    outcomes = []
    for call in range(CALLS):
        plain = DirectoryStore(tmp_path / str(call))
        old = checkpoints_of(plain, take(plain))
        old.save(state(4), best=True)
        committed: list[bool] = []

        def commit(old: Checkpoints = old, committed: list[bool] = committed) -> None:
            try:
                old.save(state(5), best=True)
                committed.append(True)
            except Superseded:
                committed.append(False)

        watched = Between(tmp_path / str(call), call, commit)
        new = checkpoints_of(watched, take(watched))
        found, best = new.latest(), new.best()
        if not watched.done:
            break
        assert same(found, state(5 if committed[0] else 4))
        assert best is not None
        assert best.iteration == 5 or not committed[0]
        new.save(state(6))
        assert same(checkpoints_of(plain).latest(), state(6))
        outcomes.append(committed[0])
    assert 10 < len(outcomes) < CALLS
    assert outcomes[0]
    assert not outcomes[-1]


def test_a_store_that_is_away_does_not_cost_the_owner_the_run(
    folder: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = take(folder)

    def away(self: DirectoryStore, name: str, data: bytes, version: str | None) -> str:
        raise StorageError("away")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "write_if", away)
        with pytest.raises(StorageError, match="away"):
            checkpoints_of(folder, owner).save(state(1))
    checkpoints_of(folder, owner).save(state(2))
    assert same(checkpoints_of(folder).latest(), state(2))


def test_the_history_tells_who_owned_the_run_and_what_was_committed_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("META_HISTORY", str(tmp_path / "history"))
    store, here = DirectoryStore(tmp_path / "run"), DirectoryStore(tmp_path / "here")
    owner = take(store)
    Checkpoints(store, [].append, owner=owner, rescue=here).save(state(3))
    Checkpoints(store.under("baselines/oracle"), [].append).save(state(9))  # not the run's
    events = [json.loads(line) for line in (tmp_path / "history").read_text().splitlines()]
    assert events[0]["kind"] == "owned"
    assert events[0]["by"] == owner.claim.id
    committed = {(event["step"], event["state"], event["where"]) for event in events[1:]}
    assert committed == {(3, state(3).sha256(), store.address()), (3, state(3).sha256(), here.address())}
