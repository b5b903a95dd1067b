"""Faults by the hundred: `make soak`, or `make soak ARGS="--faults=100 --seed=3"`; on Omniglot with DATA_ROOT."""

import argparse
import json
import math
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it when it is imported

from cluster import local
from cluster.services import Place, token
from cluster.surroundings import Surroundings, state_folder
from tests.chaos.campaign import Outcome, carry_out
from tests.chaos.disturbed import Failure
from tests.chaos.faults import FAULTS
from tests.chaos.nodes import Nodes
from tests.chaos.outage import Outage, outage
from tests.chaos.scene import Scene
from tests.loopback import CONFIGURING

KINDS = ("sinusoid", "omniglot" if os.environ.get("DATA_ROOT") else "images", "navigation")
PER_RUN = 40


def schedule(faults: int, seed: int, among: Sequence[str]) -> list[tuple[str, list[str], random.Random]]:
    """The runs of a soak: the kind of job, its faults, and what everything else in it is drawn from.

    Every kind of fault comes as often as any other.
    """
    rng = random.Random(seed)
    names = ([*among] * (faults // len(among) + 1))[:faults]
    rng.shuffle(names)
    count = min(faults, max(len(KINDS), math.ceil(faults / PER_RUN)))
    runs = [names[number::count] for number in range(count)]
    return [(KINDS[i % len(KINDS)], names, random.Random(f"{seed}/{i}")) for i, names in enumerate(runs)]


@contextmanager
def services() -> Iterator[Surroundings]:
    """S3 and MLflow, which are gone at the end; never those that a shell names."""
    for name in CONFIGURING:
        os.environ.pop(name, None)
    folder = tempfile.mkdtemp(prefix="meta-soak-")
    os.environ["META_STATE"] = folder
    try:
        yield local.bring_up(print, ray=False)
    finally:
        local.take_down(print)
        shutil.rmtree(folder)


@contextmanager
def stage() -> Iterator[Scene]:
    """A scene with a Ray of several nodes."""
    with services() as surroundings:
        token(Place(state_folder()))  # of Ray, as the drivers will show it
        os.environ.update({name: value for name, value in surroundings.env.items() if name.startswith("RAY_")})
        nodes = Nodes()
        try:
            scene = Scene(surroundings, nodes.address, nodes.raylets, nodes)
            try:
                yield scene
            finally:
                scene.close()
        finally:
            nodes.close()


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each kind of fault."""
    by_fault: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_fault[outcome.fault].append(outcome)
    rows = ["| fault | times | driver resumed | added s, median | longest |", "|---|---|---|---|---|"]
    for fault, found in sorted(by_fault.items()):
        stalls = [outcome.stall_s for outcome in found]
        resumed = sum(outcome.resumed for outcome in found)
        rows.append(f"| {fault} | {len(found)} | {resumed} | {statistics.median(stalls):.1f} | {max(stalls):.1f} |")
    phases = sorted({outcome.phase for outcome in outcomes})
    counts = ", ".join(f"{sum(outcome.phase == phase for outcome in outcomes)} in phase {phase}" for phase in phases)
    return "\n".join([*rows, "", f"{len(outcomes)} faults: {counts}."])


def words(seen: Outage, seconds: float) -> str:
    return (
        f"MLflow away for {seconds:g} s, {seen.steps} steps: {seen.step_without:.1f} ms a step, before and after "
        f"{seen.step_before:.1f} and {seen.step_after:.1f} ms ({100 * seen.cost:+.1f} %); every point is there once"
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make soak ARGS=...", description=__doc__)
    parser.add_argument("--faults", type=int, default=1_000, help="how many (1,000)")
    parser.add_argument("--seed", type=int, default=0, help="which, when and where follows from it (0)")
    parser.add_argument("--first-run", type=int, default=0, help="go on with this run of the soak (0)")
    parser.add_argument("--runs", type=int, default=None, help="end after so many runs (all)")
    parser.add_argument("--record", type=Path, help="a file to which every outcome is appended, a line each")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="only faults of this kind (all)")
    parser.add_argument("--outage", type=float, default=120, help="at last MLflow is away for so many seconds (120)")
    asked = parser.parse_args(arguments)
    runs = schedule(asked.faults, asked.seed, asked.only or sorted(FAULTS))
    last = len(runs) if asked.runs is None else min(len(runs), asked.first_run + asked.runs)
    total = sum(len(names) for _, names, _ in runs[asked.first_run : last])
    outcomes: list[Outcome] = []
    since = time.monotonic()

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if asked.record:
            with asked.record.open("a") as file:
                file.write(json.dumps(outcome._asdict()) + "\n")
        left = (time.monotonic() - since) / len(outcomes) * (total - len(outcomes))
        print(
            f"{len(outcomes):5} of {total}  {outcome.kind:<11} step {outcome.step:5}  {outcome.fault:<28} "
            f"+{outcome.stall_s:5.1f} s{'  resumed' if outcome.resumed else '':<9}  {left / 60:.0f} min left",
            flush=True,
        )

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with all that was started
    with stage() as scene:
        for number in range(asked.first_run, last):
            kind, names, rng = runs[number]
            try:
                carry_out(scene, kind, names, rng, tell)
            except Failure as failure:
                print(failure)
                only = "".join(f" --only='{name}'" for name in asked.only or ())
                again = f'ARGS="--faults={asked.faults} --seed={asked.seed}{only} --first-run={number} --runs=1"'
                print(f"\nThe promise was not kept. Again: make soak {again}")
                return 1
            print(f"run {number + 1} of {len(runs)}: the bits of an undisturbed one, nothing lost, nothing twice")
        if asked.outage:
            print(words(outage(scene, asked.outage), asked.outage))
    if outcomes:
        print(table(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
