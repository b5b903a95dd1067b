"""A background process is found again, and stopped with all it started and nothing else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import process

SLEEPER = (sys.executable, "-c", "import time; time.sleep(60)")


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for file in tmp_path.glob("*.pid"):
        process.stop(tmp_path, file.stem, patience=0)


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_a_started_process_is_alive_and_found_again_by_its_name(folder: Path) -> None:
    record = process.start(folder, "sleeper", SLEEPER, os.environ)
    assert process.alive(record)
    assert process.read(folder, "sleeper") == record


def test_it_leads_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(folder: Path) -> None:
    record = process.start(folder, "sleeper", SLEEPER, os.environ)
    assert os.getsid(record.pid) == record.pid != os.getsid(0)


def test_its_output_is_in_its_log_and_the_last_line_can_be_quoted(folder: Path) -> None:
    record = process.start(
        folder, "talker", script("print('first'); print('\\x1b[31mlast words\\x1b[0m\\n')"), os.environ
    )
    assert until(lambda: not process.alive(record))
    assert process.last_words(folder, "talker") == "last words"


def test_a_second_start_keeps_the_log_of_the_first(folder: Path) -> None:
    for word in ("one", "two"):
        record = process.start(folder, "talker", script(f"print('{word}')"), os.environ)
        assert until(lambda record=record: not process.alive(record))  # type: ignore[misc]
    assert process.log_file(folder, "talker").with_suffix(".log.old").read_text() == "one\n"


def test_logs_and_pid_files_are_for_the_owner_only(folder: Path) -> None:
    process.start(folder / "new", "sleeper", SLEEPER, os.environ)
    try:
        assert (folder / "new").stat().st_mode & 0o077 == 0
        assert process.log_file(folder / "new", "sleeper").stat().st_mode & 0o077 == 0
    finally:
        process.stop(folder / "new", "sleeper")


def test_stop_ends_a_process_that_obeys_sigterm_and_forgets_it(folder: Path) -> None:
    record = process.start(folder, "sleeper", SLEEPER, os.environ)
    assert process.stop(folder, "sleeper")
    assert not process.alive(record)
    assert process.read(folder, "sleeper") is None


def test_stop_kills_a_process_that_ignores_sigterm(folder: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    record = process.start(folder, "deaf", script(deaf), os.environ)
    assert until(lambda: process.last_words(folder, "deaf") == "deaf")
    process.stop(folder, "deaf", patience=0.3)
    assert not process.alive(record)


def test_stop_ends_children_that_opened_sessions_of_their_own_or_lost_their_parent(folder: Path) -> None:
    parent = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
own = subprocess.Popen(sleep, start_new_session=True)
same = subprocess.Popen(sleep, env={})  # without the mark, but in the session
print(own.pid, same.pid, flush=True)
time.sleep(60)
"""
    record = process.start(folder, "parent", script(parent), os.environ)
    assert until(lambda: len(process.last_words(folder, "parent").split()) == 2)
    children = {int(pid) for pid in process.last_words(folder, "parent").split()}
    assert until(lambda: process.members(record) >= {record.pid, *children})
    os.kill(record.pid, signal.SIGKILL)  # the one way in which children are left behind
    assert until(lambda: not process.alive(record))
    assert process.stop(folder, "parent")
    assert not process.members(record)


def test_a_recycled_pid_is_neither_taken_for_ours_nor_killed(folder: Path) -> None:
    stranger = subprocess.Popen(SLEEPER, start_new_session=True)
    try:
        record = process.Record(stranger.pid, "boot:1", "0" * 32, "")
        process._write(folder, "gone", record)
        assert not process.alive(record)
        assert not process.stop(folder, "gone", patience=0)
        assert stranger.poll() is None
        assert process.read(folder, "gone") is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_is_not_alive(folder: Path) -> None:
    child = subprocess.Popen(SLEEPER)
    record = process.Record(child.pid, process._birth(child.pid) or "", "0" * 32, "")
    assert process.alive(record)
    child.kill()
    assert until(lambda: not process.alive(record))  # nobody has waited for it yet
    child.wait()


def test_a_torn_pid_file_is_nobody(folder: Path) -> None:
    (folder / "torn.pid").write_text('{"pid": 1, "bir')
    assert process.read(folder, "torn") is None
    assert not process.stop(folder, "torn")


def test_stopping_what_was_never_started_does_nothing(folder: Path) -> None:
    assert not process.stop(folder, "nobody")
