"""Contenders in turn: what is kept of each, and what happens to those that cannot take part."""

from pathlib import Path

import pytest

from benchmarks import contest
from benchmarks.contenders import ALL, Contender
from benchmarks.contest import Contest, Limits
from benchmarks.figures import Record
from benchmarks.process import Process, Skipped

WORKLOAD = "W1 meta_batch_size=2"


def run(names: list[str], folder: Path) -> tuple[Record, list[str]]:
    record, said = Record({}, [], [], [], {}), list[str]()
    Contest(WORKLOAD, Limits(0, 1, 60), folder, said.append, lambda text: None).run(names, record)
    return record, said


def test_a_round_has_figures_of_every_setting_and_leaves_out_with_a_line_who_cannot_take_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALL, "nobody", Contender("nobody", "nobody", ("kept",)))
    record, said = run(["plain", "nobody", "limit"], tmp_path)
    settings = {(figure.contender, figure.allocator, figure.threads) for figure in record.figures}
    plain = {("plain", allocator, threads) for allocator in ("shipped", "kept") for threads in (1, 2)}
    assert settings == plain | {("limit", "kept", 1), ("limit", "kept", 2)}
    assert all(figure.ms > 0 and figure.peak_mb > 50 and figure.first_s > 0 for figure in record.figures)
    assert {figure.error for figure in record.figures if figure.contender == "plain"} == {0.0}
    assert [(skip.contender, skip.reason) for skip in record.skipped] == [
        ("nobody", "benchmarks.contenders.nobody is not installed")
    ]
    assert said == [f"{WORKLOAD}: nobody (kept) skipped: benchmarks.contenders.nobody is not installed"]


def test_a_wrong_meta_gradient_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL, "plain", ALL["plain"]._replace(tolerance=-1.0))
    _, said = run(["plain"], tmp_path)
    assert "plain is WRONG" in said[0]


def test_an_answer_that_takes_too_long_ends_the_process(tmp_path: Path) -> None:
    process = Process("contenders.limit", "kept", tmp_path)
    with pytest.raises(Skipped, match="longer than 0 s"):
        process.ready(0.0)
    assert not process.running()


def test_contenders_run_where_they_are_not_hopeless_and_everywhere_if_they_are_asked_for() -> None:
    assert "jax" not in contest.chosen("W4", [])
    assert contest.chosen("W4", ["jax", "ours"]) == ["ours", "jax"]
