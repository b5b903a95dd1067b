"""Which block goes to whom: without Ray, on a clock that is only a number."""

import math
import random

import pytest

from cluster.blocks import Round
from cluster.pace import FORGIVE, HUNG, LATE, UNKNOWN, Pace


def simulated(blocks: int, seconds: list[float], rounds: int, spread: float = 0.0) -> tuple[list[float], int]:
    """How long each round takes where worker w needs seconds[w] a block, and how many calls were copies.

    spread: standard deviation of the logarithm of those seconds.
    """
    rng, pace, now, calls = random.Random(0), Pace(60), 0.0, 0
    free, out, lengths = list(range(len(seconds))), dict[int, tuple[float, float]](), []
    for _ in range(rounds):
        start, round_ = now, Round(blocks, "gradient", pace)
        while not round_.complete:
            while found := round_.next(free, now):
                block, worker = found
                free.remove(worker)
                round_.called(block, worker, now)
                out[worker] = (now + seconds[worker] * math.exp(spread * rng.gauss(0, 1)), now)
                calls += 1
            first = min(out, key=lambda worker: out[worker][0])
            wake = now + round_.wake_s(now) if free else math.inf
            if wake < out[first][0]:
                now = wake
                continue
            now, since = out.pop(first)
            free.append(first)
            taken = round_.answered(first, "answer")
            if not taken:
                round_.came_to_nothing(first)
            pace.took("gradient", first, now - since, taken)
        pace.forgive()
        lengths.append(now - start)
    return lengths, calls - blocks * rounds


@pytest.mark.parametrize("workers", [2, 3, 4, 5, 8])
def test_a_worker_ten_times_slower_costs_no_more_than_if_it_were_not_there(workers: int) -> None:
    for blocks in range(2 * workers, 6 * workers):
        without = math.ceil(blocks / (workers - 1))
        lengths, _ = simulated(blocks, [1.0] * (workers - 1) + [10.0], rounds=15)
        assert max(lengths) <= without + 1e-9, (blocks, lengths)


@pytest.mark.parametrize("workers", [4, 5, 6, 8])
def test_a_worker_ten_times_slower_costs_at_most_two_fifths_of_a_step_of_six_blocks_a_worker(workers: int) -> None:
    healthy, _ = simulated(6 * workers, [1.0] * workers, rounds=5)
    slow, _ = simulated(6 * workers, [1.0] * (workers - 1) + [10.0], rounds=15)
    assert max(slow) <= 1.4 * max(healthy)


def test_a_worker_that_is_slow_for_a_while_gets_as_many_blocks_as_the_others_again() -> None:
    pace = Pace(60)
    for worker in ("a", "b", "a", "b"):
        pace.took("gradient", worker, 1.0)
    pace.took("gradient", "b", 10.0, accepted=False)
    rounds = 0
    while pace.slowness("b") > 1:
        pace.forgive()
        rounds += 1
    assert 1 < rounds < 10
    assert FORGIVE < 1


@pytest.mark.parametrize(("spread", "share"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.02)])
@pytest.mark.parametrize(("workers", "blocks"), [(2, 8), (2, 7), (4, 16), (8, 32)])
def test_where_all_workers_are_alike_nothing_is_computed_twice(
    workers: int, blocks: int, spread: float, share: float
) -> None:
    _, copies = simulated(blocks, [1.0] * workers, 50, spread)
    assert copies <= share * 50 * blocks


def pace_of(seconds: float, kind: str = "gradient") -> Pace:
    pace = Pace(60)
    pace.took(kind, "somebody", seconds)
    return pace


def test_a_copy_is_made_when_nothing_waits_and_the_call_is_late_and_the_first_answer_is_taken() -> None:
    round_ = Round(2, "gradient", pace_of(1.0))
    round_.called(0, "a", 0.0)
    round_.called(1, "b", 0.0)
    assert round_.answered("b", "of b")
    assert round_.next(["b"], 1.0) is None
    assert round_.wake_s(1.0) == pytest.approx(LATE - 1.0)
    assert round_.next(["b"], LATE) == (0, "b")
    round_.called(0, "b", LATE)
    assert round_.next(["c"], LATE) is None, "b is not late yet"
    assert round_.answered("b", "of b")
    assert round_.complete
    assert not round_.answered("a", "of a")
    assert round_.answers == {0: "of b", 1: "of b"}


def test_a_block_that_came_to_nothing_is_the_next_unless_another_is_at_it() -> None:
    round_ = Round(3, "gradient", pace_of(1.0))
    for block, worker in enumerate("ab"):
        round_.called(block, worker, 0.0)
    assert round_.died("b", blame=1) == 1
    assert round_.waiting == [1, 2]
    round_.called(1, "c", 0.0)
    round_.called(2, "d", 0.0)
    round_.called(0, "e", 2.0)
    assert round_.died("a", blame=0) == 0
    assert round_.waiting == []
    assert round_.deaths == {0: 0, 1: 1}


def test_who_is_at_another_round_s_block_changes_nothing_here() -> None:
    round_ = Round(1, "gradient", pace_of(1.0))
    assert not round_.answered("stranger", "answer")
    assert round_.died("stranger", blame=1) is None
    assert not round_.deaths
    assert round_.waiting == [0]


def test_a_block_waits_for_its_home_until_that_is_late_by_what_moving_costs() -> None:
    homes = {0: "a", 1: "a", 2: "b"}
    round_ = Round(3, "curvature", pace_of(1.0, "curvature"), homes, moving_s=5.0)
    assert round_.next(["a", "b"], 0.0) == (0, "a")
    round_.called(0, "a", 0.0)
    assert round_.next(["b"], 0.0) == (2, "b")
    round_.called(2, "b", 0.0)
    assert round_.answered("b", "answer")
    assert round_.next(["b"], 6.0) is None
    assert round_.next(["b"], LATE + 5.0) == (1, "b"), "what waits comes before what is under way"
    round_.called(1, "b", LATE + 5.0)
    assert round_.answered("b", "answer")
    assert round_.next(["b"], LATE + 6.0) == (0, "b")
    round_.called(0, "b", LATE + 6.0)
    assert round_.answered("b", "answer")
    assert homes == {0: "b", 1: "b", 2: "b"}


def test_a_home_that_died_is_forgotten() -> None:
    homes = {0: "a", 1: "a", 2: "b"}
    round_ = Round(3, "curvature", pace_of(1.0, "curvature"), homes, moving_s=5.0)
    round_.called(0, "a", 0.0)
    round_.died("a", blame=0)
    assert homes == {2: "b"}
    assert round_.next(["c"], 0.0) == (0, "c")


def test_a_hung_worker_is_given_long_enough_and_each_time_twice_as_long() -> None:
    pace = Pace(patience_s=60)
    assert pace.hung_after("gradient") == UNKNOWN * 60
    pace.took("gradient", "a", 1.0)
    assert pace.hung_after("gradient") == 60
    pace.hung("gradient")
    pace.hung("gradient")
    assert pace.hung_after("gradient") == 240
    for _ in range(5):
        pace.took("gradient", "a", 30.0)
    assert pace.hung_after("gradient") == HUNG * 30
    assert pace.hung_after("curvature") == UNKNOWN * 60


def test_an_answer_is_doubted_once_and_its_block_waits_again() -> None:
    round_ = Round(2, "gradient", Pace(60))
    for attempt in (True, False):
        round_.called(0, "a", 0.0)
        assert round_.doubted("a") is attempt
        if attempt:
            round_.came_to_nothing("a")
            assert round_.waiting == [0, 1]
    assert round_.answered("a", "answer")
    assert not round_.doubted("a")  # who is at no block has nothing to be doubted
