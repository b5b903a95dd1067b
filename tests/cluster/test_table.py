"""A sweep in a terminal."""

import json
from typing import Any

from rich.console import Console

from cluster.follow import Follower
from cluster.sweep.board import RUNNING, Board
from cluster.sweep.table import sweep_table, trial_text
from meta_service.sweep.ledger import STOPPED
from tests.meta_service.sweep.tiny import ended, sweep


def event(count: int = 5) -> dict[str, Any]:
    board = Board(sweep("tune.trials=40"), lambda kind, fields: None)
    for number in range(count):
        board.put(ended(number, 4.0 - 0.01 * number))
    board.put(ended(count, 5.0, 6, STOPPED)._replace(why="4.0 was needed"))
    board.put(ended(count + 1, 0.0)._replace(state="", looks=()), RUNNING)
    board.progress(count + 1, 1, 4.0)
    board.progress(count + 1, 9, 3.5)
    return board.event()


def shown(event: dict[str, Any], height: int | None = None, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(sweep_table(event, height))
    return capture.get()


def test_a_table_has_a_row_for_each_trial_with_parameters_iteration_metric_and_state() -> None:
    text = shown(event())
    assert "6 of 40 trials over, 1 running  best: trial 4, mse 3.960  ETA" in text
    for row in ("0.01 0.001 1 18 3.960 finished ★", "1 6 5.000 stopped early", "1 9 3.500 running"):
        assert row in " ".join(text.split())


def test_a_low_terminal_shows_the_best_what_runs_and_the_newest() -> None:
    text = shown(event(30), height=15)
    assert len(text.splitlines()) <= 15
    assert "finished ★" in text
    assert "running" in text
    assert "and 26 that are over" in text


def test_the_time_left_is_that_of_the_steps_left() -> None:
    board = Board(sweep("tune.trials=4"), lambda kind, fields: None)
    assert board.eta() is None
    board.put(ended(0, 4.0))
    board.put(ended(1, 4.0)._replace(state="", looks=()), RUNNING)
    board.progress(1, 1, 4.0)
    assert board._since is not None
    board._since -= 8.0  # eight seconds ago
    board.progress(1, 9, 3.5)
    eta = board.eta()
    assert eta is not None
    assert 31 < eta < 36  # 9 + 18 steps, and 2 + 4 / 3 + 12 / 9 of the trial that can be stopped; one a second


def test_where_the_output_is_no_terminal_each_trial_is_told_once_when_it_is_over() -> None:
    console = Console(width=200, force_terminal=False)
    lines = ["@meta " + json.dumps({"kind": "sweep", **event(count)}) for count in (1, 1, 2)]
    with console.capture() as capture:
        Follower(console).follow(lines)
    told = capture.get().splitlines()
    assert sum(line.startswith("trial 0 finished after 18 iterations, mse 4.000") for line in told) == 1
    assert sum(line.startswith("trial 1 finished") for line in told) == 1


def test_a_trial_that_was_stopped_is_told_with_what_was_needed() -> None:
    found = event()
    assert "stopped early after 6 iterations, mse 5.000 (4.0 was needed)" in trial_text(found, found["rows"][5])
