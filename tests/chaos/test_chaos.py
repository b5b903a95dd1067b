"""The promise, on real runs to which everything is done: the short forms of what `make soak` does for longer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.local import Surroundings
from cluster.surroundings import state_folder
from tests.chaos.faults import FAULTS
from tests.chaos.outage import outage
from tests.chaos.scene import Scene

ROOT = Path(__file__).resolve().parents[2]
TIMES = 3  # each kind of fault


@pytest.mark.timeout(1600)
def test_sixty_faults_of_twenty_kinds_change_no_bit_lose_nothing_and_count_nothing_twice(
    surroundings: Surroundings,
) -> None:
    command = [sys.executable, "-m", "tests.chaos.soak", f"--faults={TIMES * len(FAULTS)}", "--outage=0"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"--state={state_folder()}"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    for fault in FAULTS:
        assert f"| {fault} | {TIMES} |" in done.stdout, done.stdout


def test_mlflow_away_for_a_while_loses_no_point_and_stops_no_step(scene: Scene) -> None:
    assert outage(scene, seconds=6.0).cost < 1.0  # a busy machine; `make soak` measures
