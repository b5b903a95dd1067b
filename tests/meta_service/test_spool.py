"""The spool: what was put in survives, torn lines do not count, and nothing is read twice."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from meta_service.spool import Spool, peek


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "queue")
    yield spool
    spool.close()


def test_a_line_that_a_dying_writer_left_is_dropped(spool: Spool) -> None:
    spool.append({"n": 1})
    with spool.path.open("ab") as file:
        file.write(b'{"n": 2')
    again = Spool(spool.path)
    again.append({"n": 3})
    assert [entry["n"] for entry, _ in again.unsent()] == [1, 3]
    again.close()


def test_what_is_acknowledged_is_not_read_again(spool: Spool) -> None:
    for n in (1, 2, 3):
        spool.append({"n": n})
    positions = [after for _, after in spool.unsent()]
    spool.acknowledge(positions[1], run_id="r")
    again = Spool(spool.path)
    assert [entry["n"] for entry, _ in again.unsent()] == [3]
    assert again.facts == {"run_id": "r"}
    again.close()


def test_a_queue_that_was_deleted_begins_again(spool: Spool) -> None:
    spool.append({"n": 1, "long": "x" * 100})
    spool.acknowledge(next(after for _, after in spool.unsent()))
    spool.path.unlink()
    again = Spool(spool.path)
    again.append({"n": 2})
    assert [entry["n"] for entry, _ in again.unsent()] == [2]
    again.close()


def test_what_no_writer_wrote_is_passed_over(spool: Spool) -> None:
    spool.append({"n": 1})
    with spool.path.open("ab") as file:
        file.write(b"\0\0\0\n[]\n")
    spool.acknowledge(0)
    spool._sent.write_bytes(b"")
    again = Spool(spool.path)
    again.append({"n": 2})
    assert [entry["n"] for entry, _ in again.unsent()] == [1, 2]
    again.close()


def test_a_look_at_what_is_left_changes_nothing(spool: Spool) -> None:
    spool.append({"n": 1})
    spool.append({"n": 2})
    spool.acknowledge(next(after for _, after in spool.unsent()))
    with spool.path.open("ab") as file:
        file.write(b'{"n": 3')  # being written
    size = spool.path.stat().st_size
    assert peek(spool.path) == [{"n": 2}]
    assert spool.path.stat().st_size == size
    assert peek(spool.path.with_name("none")) == []


def test_the_disk_has_what_was_put_in_when_the_spool_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def noted(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", noted)
    spool = Spool(tmp_path / "noted")
    for n in range(50):
        spool.append({"n": n})
    spool.close()
    assert synced[-1] == spool.path.stat().st_size
    assert len(synced) <= 50
