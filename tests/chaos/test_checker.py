"""The checker of histories, on histories that were made up: a true one, and one for each way of going wrong."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.checker import violations

History = list[dict[str, Any]]


def state(step: int) -> str:
    return f"state{step}"


def step(number: int, blocks: int = 2, questions: int = 1, pid: int = 1) -> History:
    """The events of one step; each of its rounds has a number of its own."""
    made: History = []
    for question in range(questions):
        common = {"step": number, "theta": f"theta{number - 1}", "round": 10 * number + question, "pid": pid}
        made += [{"kind": "issued", "block": block, "worker": block, **common} for block in range(blocks)]
        made += [{"kind": "accepted", "block": block, **common} for block in reversed(range(blocks))]
    digests = {"state": state(number), "theta": f"theta{number}", "before": state(number - 1)}
    return [*made, {"kind": "updated", "step": number, "blocks": blocks, "pid": pid, **digests}]


def resumed(number: int, pid: int = 1) -> History:
    return [{"kind": "resumed", "step": number, "state": state(number), "theta": f"theta{number}", "pid": pid}]


def committed(number: int, pid: int = 1) -> History:
    return [{"kind": "committed", "step": number, "state": state(number), "where": "here", "pid": pid}]


def owned(pid: int) -> History:
    return [{"kind": "owned", "by": "me", "pid": pid}]


def delivered(first: int, last: int) -> History:
    return [{"kind": "delivered", "first": first, "last": last, "pid": 1}]


def true_history() -> History:
    """Four steps; the driver dies after the third, whose checkpoint is not stored."""
    first = owned(1) + resumed(0) + step(1) + step(2, questions=3) + committed(2) + delivered(0, 80) + step(3)
    return first + owned(2) + resumed(2, 2) + delivered(40, 120) + step(3, pid=2) + step(4, pid=2) + committed(4, 2)


def test_a_history_with_a_death_after_the_last_checkpoint_is_true() -> None:
    assert violations(true_history()) == []


def test_a_block_that_two_workers_were_asked_for_and_that_counts_once_is_true() -> None:
    history = true_history()
    again = next(event for event in history if event["kind"] == "issued")
    history.insert(4, again | {"worker": 7})
    history.insert(6, {**again, "kind": "dropped"})
    assert violations(history) == []


def test_a_checkpoint_whose_storing_was_not_told_before_the_death_is_resumed_from() -> None:
    assert violations(resumed(0) + step(1) + step(2) + resumed(1) + step(2)) == []


def change(**condition: Any) -> Callable[[History, dict[str, Any]], None]:
    """Changes the last event of that kind."""

    def to(history: History, values: dict[str, Any]) -> None:
        next(e for e in reversed(history) if condition.items() <= e.items()).update(values)

    return to


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("accepted", {"block": 1}, "step 4 takes block 1 twice in round 40"),
        ("accepted", {"theta": "theta2"}, "step 4 takes an answer of block 0, round 40, that nobody was asked for"),
        ("accepted", {"theta": "theta2"}, "step 4 takes block 0 for theta theta2, the state before has theta3"),
        ("accepted", {"step": 3}, "step 3 gets an answer of block 0 while step 4 is made"),
        ("accepted", {"block": 5}, r"step 4 has blocks \[1, 5\] in round 40, of 2"),
        ("updated", {"before": "state2"}, "step 4 is made from state state2, after step 3 with state state3"),
        ("updated", {"step": 5}, "step 5 is made from state state3, after step 3"),
        ("updated", {"blocks": 3}, r"step 4 has blocks \[0, 1\] in round 40, of 3"),
        ("updated", {"state": "other"}, "step 4 has state state4, and had other before"),
        ("resumed", {"step": 1, "state": "state1"}, "step 1 is resumed from, although there is a checkpoint of step 2"),
        ("resumed", {"step": 9}, "step 9 is resumed from, but was never reached"),
        ("resumed", {"state": "other"}, "step 2 has state other, and had state2 before"),
        ("committed", {"step": 7}, "step 7 has a checkpoint, but was never reached"),
        ("committed", {"state": "other"}, "step 4 has state other, and had state4 before"),
        ("committed", {"pid": 1}, "step 4 is stored by process 1; 2 owns the run"),
        ("delivered", {"first": 81}, "delivery goes on at 81 of the spool, it had come to 80"),
    ],
)
def test_what_is_not_as_promised_is_said(kind: str, values: dict[str, Any], said: str) -> None:
    history = true_history()
    change(kind=kind)(history, values)
    assert re.search(said, "\n".join(violations(history))), violations(history)


def test_a_step_made_again_after_its_checkpoint_is_said() -> None:
    history = true_history() + resumed(4) + step(4)
    assert "step 4 is made again, although there is a checkpoint of step 4" in violations(history)


def test_a_step_of_no_block_and_a_driver_that_says_no_beginning_are_said() -> None:
    assert violations(step(1)[-1:]) == [
        "step 1 is made by a driver that did not say where it begins",
        "step 1 is made of no block",
    ]


def test_a_block_that_counts_twice_in_an_evaluation_is_said() -> None:
    one = {"step": None, "theta": "theta0", "round": 1, "block": 0}
    history = [*resumed(0), {"kind": "issued", **one}, {"kind": "accepted", **one}, {"kind": "accepted", **one}]
    assert violations(history) == ["an evaluation takes block 0 twice in round 1"]
