"""Growth has a point for each contender and value; the service's overhead is what no worker computes meanwhile."""

from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.figures import Point
from benchmarks.growth import Axis
from benchmarks.service import Span, medians, steps_of


def test_each_contender_has_a_point_for_each_value_and_recomputing_those_of_the_inner_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = (
        Axis("inner steps", "algorithm.inner_steps", (1, 2), "W1 meta_batch_size=2"),
        Axis("tasks of a meta-batch", "meta_batch_size", (1,), "W1"),
    )
    monkeypatch.setattr(growth, "AXES", axes)
    said: list[str] = []
    points: list[Point] = growth.grow(60, tmp_path, said.append, lambda text: None)
    assert said == []
    assert [(point.contender, point.axis, point.value) for point in points] == [
        ("ours", "inner steps", 1),
        ("ours", "inner steps", 2),
        ("ours", "tasks of a meta-batch", 1),
        ("ours, recomputed", "inner steps", 1),
        ("ours, recomputed", "inner steps", 2),
        ("plain", "inner steps", 1),
        ("plain", "inner steps", 2),
        ("plain", "tasks of a meta-batch", 1),
    ]
    assert all(point.ms > 0 and point.peak_mb > 50 for point in points)


def test_a_step_s_overhead_is_its_time_less_what_its_busiest_worker_computed() -> None:
    moments = [0.0, 1.0, 2.0, 4.0]
    spans = [Span(1, 0.1, 0.9), Span(1, 1.1, 1.5), Span(2, 1.1, 1.3), Span(2, 1.4, 1.9), Span(1, 2.5, 3.5)]
    steps = steps_of(moments, spans)
    assert [(round(wall), round(busy)) for wall, busy in steps] == [(1000, 700), (2000, 1000)]
    assert medians(steps)["overhead"] == pytest.approx((0.3 + 0.5) / 2)
