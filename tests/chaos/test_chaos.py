"""The promise, on real runs to which everything is done: the short forms of what `make soak` does for longer."""

import pytest

from tests.chaos.beside import TIMES, Soak
from tests.chaos.faults import FAULTS
from tests.chaos.outage import outage
from tests.chaos.scene import Scene


@pytest.mark.timeout(1600)
def test_sixty_faults_of_twenty_kinds_change_no_bit_lose_nothing_and_count_nothing_twice(soak: Soak) -> None:
    code, said = soak.end()
    assert code == 0, said[-9000:]
    for fault in FAULTS:
        assert f"| {fault} | {TIMES} |" in said, said


def test_mlflow_away_for_a_while_loses_no_point_and_stops_no_step(scene: Scene) -> None:
    assert outage(scene, seconds=6.0).cost < 1.0  # a busy machine; `make soak` measures
