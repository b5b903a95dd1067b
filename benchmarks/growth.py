"""How the cost grows: one field of a workload changed at a time, this project beside the plain loop, one thread."""

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from benchmarks import workloads
from benchmarks.contenders import ALL, KEPT
from benchmarks.contest import Say
from benchmarks.figures import Point
from benchmarks.problem import save
from benchmarks.process import Process, Skipped
from meta_service.algorithms.maml import MAML

TURN_S = 1.0
RECOMPUTED = "ours, recomputed"


class Axis(NamedTuple):
    """A field, its values, and the workload it is changed in."""

    name: str
    field: str
    values: tuple[int, ...]
    workload: str


AXES = (
    Axis("tasks of a meta-batch", "meta_batch_size", (1, 2, 4, 8), "W3"),
    Axis("inner steps", "algorithm.inner_steps", (1, 2, 5, 10), "W3"),
    Axis("ways", "tasks.ways", (5, 10, 20), "W2-1 meta_batch_size=16"),
    Axis("image size", "tasks.size", (28, 56, 84), "W2-1 meta_batch_size=8"),
)


def grow(patience_s: float, folder: Path, say: Say, told: Say) -> list[Point]:
    """Time and memory at each point of each axis, of each contender that can be had."""
    points: list[Point] = []
    for name, module, change in _contenders():
        process = Process(f"contenders.{module}", KEPT, folder)
        try:
            process.ready()
            for axis in AXES:
                for value in axis.values if not change or axis.name == "inner steps" else ():
                    told(f"growth: {axis.name} {value}, {name}")
                    workload = f"{axis.workload} {axis.field}={value} {change}".strip()
                    points.append(Point(axis.name, value, name, *_point(process, workload, folder, patience_s)))
        except Skipped as reason:
            say(f"growth: {name} skipped: {reason}")
        finally:
            process.end()
    return points


def _contenders() -> Iterator[tuple[str, str, str]]:
    """(name, module, the field that makes it so)."""
    yield "ours", ALL["ours"].module, ""
    if "recompute" in {field.name for field in fields(MAML)}:
        yield RECOMPUTED, ALL["ours"].module, "algorithm.recompute=true"
    yield "plain", ALL["plain"].module, ""


def _point(process: Process, workload: str, folder: Path, patience_s: float) -> tuple[float, float]:
    """(milliseconds, peak MB) of a step."""
    problem = folder / "point.npz"
    save(workloads.draw(workload), problem)
    first_s = process.ask("prepare", patience_s, problem=str(problem), threads=1)["seconds"]
    steps = max(math.ceil(TURN_S / first_s), 1)
    found = process.ask("run", patience_s * steps, steps=steps, threads=1)
    return sorted(found["wall"])[len(found["wall"]) // 2], found["peak_mb"]
