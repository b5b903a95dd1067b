"""Where runs are, where the store that knows it is away: as this machine does, and it says so."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import jobs
from cluster import commands, standing, syncing
from cluster.runs import Runs
from cluster.surroundings import Surroundings
from meta_service.artifacts import DirectoryStore, StorageError
from meta_service.dotted import override
from meta_service.errors import UserError
from meta_service.status import RunStatus, status_of

RUN = "sinusoid-1123-101500-ab12"


@pytest.fixture
def out(nothing_configured: Path) -> Console:
    return Console(file=StringIO(), width=160)


def text_of(out: Console) -> str:
    assert isinstance(out.file, StringIO)
    return out.file.getvalue()


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStatus:
    """What a driver on this machine last said, while S3 was away."""
    said = status_of(jobs.find("sinusoid"), "RUNNING", 730, None, None)._replace(durable=500, local=700)
    DirectoryStore(tmp_path / f"{RUN}.rescued").write("status.json", said.to_bytes())
    found = syncing.last_words(tmp_path)
    monkeypatch.setattr(syncing, "last_words", lambda: found)
    return said


@pytest.mark.usefixtures("kept")
def test_without_s3_it_is_said_what_is_durable_and_what_is_only_here(out: Console) -> None:
    standing.status(out, None)
    assert "S3 is not running on this machine\nThis is what is known on this machine:" in text_of(out)
    assert "durable to step 500, local to step 700" in text_of(out)
    assert "730/20,000" in text_of(out)


@pytest.mark.usefixtures("kept")
def test_without_s3_one_run_is_shown_too(out: Console) -> None:
    standing.status(out, RUN)
    assert "checkpoint  durable to step 500, local to step 700" in text_of(out)


@pytest.mark.usefixtures("kept")
def test_without_s3_a_run_nobody_knows_here_is_refused(out: Console) -> None:
    with pytest.raises(StorageError, match="S3 is not running"):
        standing.status(out, "another")


def test_where_nothing_ran_it_is_said_how_to_start(out: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncing, "last_words", dict)
    with pytest.raises(UserError, match="nothing is running on this machine"):
        standing.status(out, None)


@pytest.mark.parametrize(
    ("durable", "local", "expected"),
    [
        (None, None, ""),
        (500, None, "durable to step 500"),
        (500, 500, "durable to step 500"),
        (None, 1700, "none durable, local to step 1,700"),
    ],
)
def test_only_what_is_ahead_is_called_local(kept: RunStatus, durable: int, local: int, expected: str) -> None:
    assert standing._durable(kept._replace(durable=durable, local=local)) == expected


def test_a_run_without_ray_is_stopped_where_it_runs_and_no_ray_is_asked_for(
    out: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = override(jobs.find("sinusoid"), ["resources.workers=0"])
    runs = Runs(DirectoryStore(tmp_path))
    runs.create(RUN, job)
    runs.tell(RUN, status_of(job, "RUNNING", 5, None, None))
    monkeypatch.setattr(commands, "found", lambda: Surroundings("", "", str(tmp_path), {}, frozenset({"ray", "s3"})))
    with pytest.raises(UserError, match=f"{RUN} runs in a terminal of its own; press Ctrl-C there"):
        commands.stop(out, RUN)
