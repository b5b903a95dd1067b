"""One background process: started apart from us, found again later, stopped together with everything it started.

A pid alone may by then belong to somebody else, so a record holds more: the start time of the pid, and a random mark
that stands in the environment of the process and so of all its children. Only what carries the mark is ever signalled,
and what shares a session with it (Ray's helpers overwrite their environment, its drivers open sessions of their own).
Linux only: reads /proc.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MARK = "META_SERVICE_MARK"
_children: dict[int, subprocess.Popen[bytes]] = {}  # those this process itself has to reap


class Record(NamedTuple):
    """What is written down of a started process, enough to know it again."""

    pid: int
    birth: str
    """Boot id and start time in clock ticks: a recycled pid has another."""
    mark: str
    setting: str
    """Whatever the caller wants to compare before it takes the running process for the one it needs."""


def start(folder: Path, name: str, command: Sequence[str], env: Mapping[str, str], setting: str = "") -> Record:
    """Start `command` in a session of its own, its output in `folder/name.log`, and write `folder/name.pid`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = secrets.token_hex(16)
    # Written before the start too: if we die in between, the mark still finds the process.
    _write(folder, name, Record(0, "", mark, setting))
    log = log_file(folder, name)
    if log.exists():
        log.replace(log.with_suffix(".log.old"))
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**env, MARK: mark},
            cwd=folder,
            start_new_session=True,  # Ctrl-C in the terminal is for us, not for it
        )
    _children[child.pid] = child
    record = Record(child.pid, _birth(child.pid) or "", mark, setting)
    _write(folder, name, record)
    return record


def read(folder: Path, name: str) -> Record | None:
    """What was written down when `name` was started; None if it was not, or was stopped since."""
    try:
        return Record(**json.loads(_pid_file(folder, name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # a torn file says nothing that could be trusted
        return None


def alive(record: Record) -> bool:
    """Whether the very process of the record runs, rather than another one that got its pid."""
    if record.pid in _children:
        _children[record.pid].poll()
    return record.pid > 0 and _birth(record.pid) == record.birth


def members(record: Record) -> set[int]:
    """All processes that carry the record's mark, and all that share a session with one that does."""
    marked, sessions = set(), {}
    needle = f"{MARK}={record.mark}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with suppress(OSError, ValueError):  # gone meanwhile, or somebody else's
            state, session, _ = _stat(pid)
            if state != "Z":
                sessions[pid] = session
            if needle in Path(entry.path, "environ").read_bytes().split(b"\0"):
                marked.add(pid)
    ours = {sessions[pid] for pid in marked if pid in sessions}
    return {pid for pid, session in sessions.items() if pid in marked or session in ours} - {os.getpid()}


def stop(folder: Path, name: str, patience: float = 15.0) -> bool:
    """End `name` and all it started: SIGTERM, after `patience` seconds SIGKILL; False if there was nothing to end."""
    record = read(folder, name)
    if record is None:
        return False
    found = members(record)
    for pid in {record.pid} if alive(record) else found:
        _signal(pid, signal.SIGTERM)
    _wait_until_gone(record, patience)
    while left := members(record):  # again and again: one may be forking while it is killed
        for pid in left:
            _signal(pid, signal.SIGKILL)
        _wait_until_gone(record, 0.5)
    if child := _children.pop(record.pid, None):
        child.wait()
    _pid_file(folder, name).unlink(missing_ok=True)
    return bool(found)


def log_file(folder: Path, name: str) -> Path:
    """Where the output of `name` goes; the output of the start before it stays beside it as `.log.old`."""
    return folder / f"{name}.log"


def last_words(folder: Path, name: str) -> str:
    """The last line of the log that says something, without colours and cut to a readable length."""
    with suppress(OSError):
        text = log_file(folder, name).read_bytes()[-8192:].decode(errors="replace")
        lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]
        return next((line[:200] for line in reversed(lines) if line), "")
    return ""


def _wait_until_gone(record: Record, patience: float) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and (alive(record) or members(record)):
        time.sleep(0.1)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _stat(pid: int) -> tuple[str, int, str]:
    """State letter, session and start time of a process."""
    # The name in brackets may hold blanks and brackets itself; the fields start behind the last one.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[3]), fields[19]


def _birth(pid: int) -> str | None:
    try:
        state, _, ticks = _stat(pid)
    except (OSError, ValueError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if state == "Z" else f"{boot}:{ticks}"


def _pid_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pid"


def _write(folder: Path, name: str, record: Record) -> None:
    draft = folder / f"{name}.pid.new"
    draft.write_text(json.dumps(record._asdict()))
    draft.replace(_pid_file(folder, name))
