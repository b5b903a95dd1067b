"""Whose a run is: of all drivers that want it, on whatever machine, exactly one commits.

    OWNER           who owns the run (id, epoch, place), when it last said so, and whether it gave the run back
    LATEST, BEST    the pointers; each carries the epoch of the owner that wrote it

All three are written by compare-and-swap: over the version that was seen last, or not at all.

*Taking.* A driver reads OWNER and may replace it where there is none, where it was given back, where it was taken at
this very place (whose file lock the driver holds, so the other is dead), or where it stood unchanged for LEASE_S by
this driver's own clock: an owner changes it every RENEW_S. Of two that try at once one swap is refused, and that driver
leaves. The new owner's epoch is higher than any before it.

*Fencing.* Being replaced in OWNER stops nobody who does not look. So the new owner, before it reads any checkpoint,
writes its epoch into both pointers. From then on their versions are others than a former owner has seen, and that one's
next commit is refused: it looks into OWNER, finds another there, and leaves. A commit that came before the mark is part
of what the new owner reads. So there is no moment in which two drivers can commit, however late an old one wakes up.

*Damage.* Where a swap is refused although OWNER still names this driver, and no higher epoch stands in the pointer,
it was damaged or deleted, and is written again over what is there. A new owner marks a damaged pointer, too: it then
names nothing, and who reads it takes the newest intact checkpoint, and says so.

*Answers that get lost.* S3's client asks again by itself, and the second request is refused for the first one's sake.
What is there then is what was to be written, and `write_if` takes that for success; nobody else writes the same bytes,
for id and epoch are in them.

*Stores that know no conditions* (tried out by each driver): the file lock guards a machine, and each write of a pointer
looks into OWNER before and reads the pointer after. Two machines could then still both commit, within the moment
between the look and the write; which is said.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from meta_service import history
from meta_service.errors import UserError
from meta_service.pointer import BEST, LATEST, NOTHING, Pointer
from meta_service.storage import ArtifactStore, Conflict, MissingArtifact, StorageError, Version, honours_conditions

OWNER = "OWNER"
LEASE_S, RENEW_S = 30.0, 10.0
LOOK_S = 1.0  # between two looks whether the owner still lives
RELEASE_S = 1.0  # how long giving the run back may take
ATTEMPTS = 5  # of a swap that damage stands in the way of


class Superseded(UserError):
    """Another driver owns the run now: what this one still does counts no more."""


class Claim(NamedTuple):
    """What stands in OWNER."""

    id: str
    epoch: int
    place: str
    """Names the lock file that the owner holds."""
    who: str
    """For people: its machine and process."""
    renewed: float
    """Seconds since 1970, by its own clock: for people, too."""
    released: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @staticmethod
    def from_bytes(data: bytes) -> "Claim | None":
        """None where it is no claim: damaged."""
        try:
            return Claim(**json.loads(data))
        except (ValueError, TypeError):
            return None


class Owner:
    """This process as the owner of a run. Use `take`."""

    lost: Superseded | None = None
    """Why the run is not this driver's any more."""

    def __init__(self, store: ArtifactStore, claim: Claim, version: Version, conditional: bool) -> None:
        self.claim, self._store, self._conditional = claim, store, conditional
        self._version: Version | None = version
        self._versions: dict[str, Version | None] = {}
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_on, name="owner", daemon=True)

    @staticmethod
    def take(store: ArtifactStore, place: str, say: Callable[[str], None]) -> "Owner":
        """Makes this process the owner of the run in `store`; it holds the file lock of `place`.

        Takes LEASE_S where an owner elsewhere died without a word. Raises UserError where one is at work.
        """
        conditional = honours_conditions(store)
        if not conditional:
            say(
                f"{store.address()} knows no conditional writes: take care that only one machine drives a run at a time"
            )
        store.tidy()
        kept, version = _wait_for(store, place, say)
        epochs = [pointer.epoch for name in (LATEST, BEST) if (pointer := _pointer(store, name)[0])]
        epoch = max([kept.epoch if kept else 0, *epochs]) + 1
        claim = Claim(uuid.uuid4().hex, epoch, place, f"{socket.gethostname()}, process {os.getpid()}", time.time())
        try:
            owner = Owner(store, claim, _swap(store, OWNER, claim.to_bytes(), version, conditional), conditional)
        except Conflict:
            raise UserError(_at_work(store, _claim(store)[0])) from None
        for name in (LATEST, BEST):
            owner._mark(name)
        history.record("owned", by=claim.id)
        owner._thread.start()
        return owner

    def check(self) -> None:
        """Raises Superseded where it is known that the run is another's by now; asks nobody."""
        if self.lost:
            raise self.lost

    def point(self, name: str, manifest: str) -> None:
        """The pointer names this manifest from here on. Raises Superseded and StorageError."""
        data = Pointer(self.claim.epoch, manifest).to_bytes(name)
        for _ in range(ATTEMPTS):
            self.check()
            if not self._conditional:
                self._confirm()
            try:
                self._versions[name] = _swap(self._store, name, data, self._versions.get(name), self._conditional)
                return
            except Conflict:
                self._look(name)
        raise StorageError(f"{self._store.address(name)} is changed again and again by somebody else")

    def release(self) -> None:
        """Gives the run back, if that can be done soon."""
        self._closing.set()
        self._thread.join(RELEASE_S)

    def _mark(self, name: str) -> None:
        """Puts this owner's epoch into the pointer, whatever it names."""
        for _ in range(ATTEMPTS):
            found = self._look(name)
            data = Pointer(self.claim.epoch, found.manifest if found else NOTHING).to_bytes(name)
            with suppress(Conflict):  # a last commit of the former owner: it counts
                self._versions[name] = _swap(self._store, name, data, self._versions[name], self._conditional)
                return
        raise UserError(_at_work(self._store, None))

    def _look(self, name: str) -> Pointer | None:
        """The pointer as it stands, whose version is the one to be replaced. Raises Superseded."""
        self._confirm()
        found, self._versions[name] = _pointer(self._store, name)
        if found and found.epoch > self.claim.epoch:
            self._lose(None)
        return found

    def _confirm(self) -> None:
        """Asks the store whether the run is still this driver's. Raises Superseded."""
        with self._lock:
            kept, version = _claim(self._store)
            if kept and kept.id != self.claim.id:
                self._lose(kept)
            self._version = version

    def _lose(self, by: Claim | None) -> None:
        pointer, at = None, ""
        with suppress(StorageError):
            pointer = _pointer(self._store, LATEST)[0]
        if pointer and pointer.iteration is not None:
            at = f" at iteration {pointer.iteration:,}"
        who = f" ({by.who})" if by else ""
        self.lost = Superseded(f"another driver{who} took over this run{at}; this one leaves, nothing is lost")
        raise self.lost

    def _renew_on(self) -> None:
        """The thread: says now and then that this driver lives, and at the end that it gives the run back."""
        while not self.lost:
            closing = self._closing.wait(RENEW_S)
            with suppress(StorageError, Superseded):  # away: tried again; another's: known from here on
                self._renew(released=closing)
            if closing:
                return

    def _renew(self, released: bool) -> None:
        claim = self.claim._replace(renewed=time.time(), released=released)
        for _ in range(2):
            with self._lock, suppress(Conflict):
                self._version = _swap(self._store, OWNER, claim.to_bytes(), self._version, self._conditional)
                return
            self._confirm()  # it was damaged, if it is not another's


def _wait_for(store: ArtifactStore, place: str, say: Callable[[str], None]) -> tuple[Claim | None, Version | None]:
    """The claim that may be replaced now. Raises UserError where its owner is seen to live."""
    kept, version = _claim(store)
    if version is None or (kept and (kept.released or kept.place == place)):
        return kept, version
    who = kept.who if kept else "unknown"
    say(f"the last driver of this run ({who}) did not give it back; {LEASE_S:g} s tell whether it is still at work")
    deadline = time.monotonic() + LEASE_S
    while time.monotonic() < deadline:
        time.sleep(LOOK_S)
        now, changed = _claim(store)
        if now and changed != version and not now.released:
            raise UserError(_at_work(store, now))
        if changed is None or (now and now.released):
            return now, changed
        version = changed  # damaged meanwhile: its owner will mend it, if it lives
    return kept, version


def _at_work(store: ArtifactStore, claim: Claim | None) -> str:
    who = f" ({claim.who})" if claim else ""
    return f"another driver{who} is at work on {store.address()}; let it end, or stop it"


def _swap(store: ArtifactStore, name: str, data: bytes, version: Version | None, conditional: bool) -> Version:
    """`write_if`, or the nearest to it."""
    if conditional:
        return store.write_if(name, data, version)
    store.write(name, data)
    kept, version = store.read_versioned(name)
    if kept != data:
        raise Conflict(f"{store.address(name)} was changed by somebody else")
    return version


def _claim(store: ArtifactStore) -> tuple[Claim | None, Version | None]:
    """What stands in OWNER, and its version; None and a version where it is damaged."""
    data, version = _read(store, OWNER)
    return (Claim.from_bytes(data) if version else None), version


def _pointer(store: ArtifactStore, name: str) -> tuple[Pointer | None, Version | None]:
    data, version = _read(store, name)
    return (Pointer.from_bytes(name, data) if version else None), version


def _read(store: ArtifactStore, name: str) -> tuple[bytes, Any]:
    try:
        return store.read_versioned(name)
    except MissingArtifact:
        return b"", None
