"""The benchmark's command line: mistakes in one line, an earlier run again, and no process left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.figures import Record
from benchmarks.process import ROOT


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--workloads", "W9"], "error: --workloads: some of W1, W2-1, W2-15, W3, W4 are expected, 'W9' came"),
        (["--only", "theirs"], "error: --only: some of ours, ours-ray, ours-torch, ours-compiled, ours-bf16, plain"),
        (["--parts", "speed,all"], "error: --parts: some of speed, growth, service are expected, 'all' came"),
        (["--again", "missing.json"], "error: --again: a bench.json of this benchmark is expected, missing.json came"),
        (["--workloads", "W3 tasks.ways=1"], "error: tasks.ways is 1, expected at least 2"),
        (["--device", "cuda"], "error: --device: cuda is expected where torch sees a GPU, here it sees none"),
        (["--colour"], "Error: No such option '--colour'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert expected in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_earlier_run_is_shown_again(
    record: Record, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "old.json").write_text(record.to_json())
    arguments = ["--again", str(tmp_path / "old.json"), "--into", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    command_line.main()
    names = ["bench.json", "bench_growth.png", "bench_speed.png", "tables.md"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    assert Record.from_json((tmp_path / "new" / "bench.json").read_text()) == record


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(true: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_contender_outlives_the_benchmark(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--workloads", "W1", "--only", "plain", "--into", str(tmp_path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = os.environ | {"TMPDIR": str(tmp_path)}  # SIGKILL leaves its folder
    bench = subprocess.Popen(command, cwd=ROOT, env=env, start_new_session=True, **quiet)
    try:
        wait_until(lambda: len(children(bench.pid)) == 2)
        contenders = children(bench.pid)
        time.sleep(0.3)  # to where they have begun to listen, or not
        os.kill(bench.pid, number)
        code = bench.wait(60)
        wait_until(lambda: not any(map(running, contenders)))
    finally:
        bench.kill()
        bench.wait()
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
