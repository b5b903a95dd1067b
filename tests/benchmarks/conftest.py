"""What the tests of the benchmark share: a small record, as a run would leave it."""

import pytest

from benchmarks.figures import Figure, Point, Record, Skip


def figure(workload: str, contender: str, allocator: str, threads: int, ms: float, error: float | None = 0.0) -> Figure:
    return Figure(workload, contender, allocator, threads, error, 0.5, 100.0 * threads, [[ms, ms + 1, ms - 1]], [[ms]])


@pytest.fixture
def record() -> Record:
    """W1 with everybody; W3 without JAX and without Ray."""
    figures = [
        figure("W1", "ours", "kept", 1, 2.0, 3e-16),
        figure("W1", "ours-ray", "kept", 1, 8.0, None),
        figure("W1", "ours-ray", "kept", 2, 4.0, None),
        figure("W1", "plain", "shipped", 1, 50.0),
        figure("W1", "torchopt", "shipped", 1, 40.0),
        figure("W1", "torchopt", "shipped", 2, 36.0),
        figure("W1", "torchopt", "kept", 1, 32.0),
        figure("W1", "learn2learn", "shipped", 1, 48.0),
        figure("W1", "jax", "shipped", 1, 3.0, 2e-14),
        figure("W1", "limit", "kept", 1, 1.5, None),
        figure("W3", "ours", "kept", 1, 1600.0, 1e-14),
        figure("W3", "plain", "kept", 2, 4000.0),
        figure("W3", "limit", "kept", 1, 1200.0, None),
    ]
    points = [
        Point("inner steps", value, name, factor * value, 100.0 + value)
        for name, factor in (("ours", 10.0), ("plain", 30.0))
        for value in (1, 5)
    ]
    service = {
        "off": {"step_ms": 102.0, "computing_ms": 100.0, "overhead": 0.0196},
        "on": {"step_ms": 104.0, "computing_ms": 100.0, "overhead": 0.0385},
        "steps": 10,
    }
    skipped = [Skip("W3", "jax-im2col", "shipped", "jax is not installed")]
    return Record({"command": "make bench", "processor": "a | b"}, figures, skipped, points, service)
