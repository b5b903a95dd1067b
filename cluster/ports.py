"""Which port each service listens on: the preferred one, else the next free one, and the same again next time."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from meta_service.errors import UserError

RESERVED = "reserved.json"


class Port(NamedTuple):
    """One port that a service binds."""

    name: str
    preferred: int
    variable: str = ""
    """The environment variable by which the user fixes it; without one it is nobody's business."""


def choose(state: Path, wanted: Iterable[Port], temp: Path | None = None) -> dict[str, int]:
    """Free ports for a service about to start, remembered in `state/ports.json`.

    A port is bound seconds after it was chosen. So that a checkout beside this one does not choose it meanwhile, the
    choice also lies in `temp`, and what lies in its sibling folders is not free.
    """
    with _alone(temp):
        known, taken = remembered(state), _chosen_beside(temp)
        for port in wanted:
            fixed = fixed_by_user(port)
            others = {number for name, number in known.items() if name != port.name}
            if fixed is None:
                starts = (known.get(port.name, port.preferred), port.preferred)
                known[port.name] = _next_free(starts, others | taken)
            elif fixed in others or not is_free(fixed):
                raise UserError(
                    f"{port.variable}={fixed} was expected to be a free port, but it is in use; "
                    f"choose another {port.variable}, or unset it to take the next free one"
                )
            else:
                known[port.name] = fixed
        for file in (state / "ports.json", *((temp / RESERVED,) if temp else ())):
            draft = file.with_suffix(".new")
            draft.write_text(json.dumps(known, indent=1))
            draft.replace(file)
    return known


def remembered(state: Path) -> dict[str, int]:
    """The ports chosen so far."""
    return _read(state / "ports.json")


def _read(file: Path) -> dict[str, int]:
    try:
        return {str(name): int(number) for name, number in json.loads(file.read_text()).items()}
    except (FileNotFoundError, ValueError, AttributeError):  # torn or missing: choose anew
        return {}


def fixed_by_user(port: Port) -> int | None:
    """The port the user's environment asks for."""
    text = os.environ.get(port.variable, "") if port.variable else ""
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise UserError(f"{port.variable} was expected to be a port number from 1 to 65535, not {text!r}")
    return int(text)


def is_free(number: int) -> bool:
    """Whether nothing listens there, on any address."""
    with socket.socket() as probe:
        # With this option a connection that is just closing does not count, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", number))
        except OSError:
            return False
    return True


def _chosen_beside(temp: Path | None) -> set[int]:
    chosen: set[int] = set()
    for file in temp.parent.glob(f"meta-*/{RESERVED}") if temp else ():
        with suppress(PermissionError):  # another user's: the test whether a port is free has to do
            chosen.update(_read(file).values() if file.parent != temp else ())
    return chosen


@contextmanager
def _alone(temp: Path | None) -> Iterator[None]:
    """One chooser at a time on this machine; somebody who holds the lock for long is not waited for."""
    if temp is None:
        yield
        return
    folder = os.open(temp.parent, os.O_RDONLY)
    try:
        for _ in range(50):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        yield
    finally:
        os.close(folder)


def _next_free(starts: Iterable[int], others: set[int]) -> int:
    for start in starts:
        for number in range(start, min(start + 200, 65536)):
            if number not in others and is_free(number):
                return number
    raise UserError(f"a free port was expected near {start}, but all are in use; stop something that listens there")
