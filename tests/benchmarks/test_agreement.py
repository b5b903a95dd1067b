"""Every contender computes the same meta-gradient, in float64 and in a process of its own."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.contenders import ALL, JAX, KEPT
from benchmarks.contenders.limit import passes
from benchmarks.contenders.plain import prepare
from benchmarks.problem import load, save, vector
from benchmarks.process import Process, Skipped

TINY = (
    "W1 meta_batch_size=3",
    "W2-1 meta_batch_size=3 tasks_per_block=2 model.filters=4 tasks.size=17",
    "W2-1 meta_batch_size=2 model.filters=4 tasks.size=16 tasks.shots=2 tasks.query_shots=3",
    "W3 meta_batch_size=2 model.filters=4 tasks.size=33 tasks.query_shots=2 algorithm.inner_steps=2",
)


EXACT = [name for name in ALL if ALL[name].checked and name not in ("plain", "ours-compiled", "ours-bf16")]


@pytest.mark.parametrize("name", EXACT)
def test_a_contender_s_meta_gradient_is_that_of_the_plain_loop(name: str, tmp_path: Path) -> None:
    process = Process(f"contenders.{ALL[name].module}", KEPT, tmp_path, ALL[name].env)
    try:
        process.ready()
        for number, workload in enumerate(TINY[::3] if name in JAX else TINY):  # each is compiled
            problem, file, answer = workloads.draw(workload, "float64"), tmp_path / f"{number}.npz", tmp_path / "answer"
            save(problem, file)
            process.ask("check", 120, problem=str(file), answer=str(answer), threads=1)
            expected = vector(prepare(problem)())
            with np.load(answer) as found:
                error = np.linalg.norm(vector(dict(found)) - expected) / np.linalg.norm(expected)
            assert error < 1e-12, workload
    except Skipped as reason:
        if "is not installed" not in str(reason):
            raise
        pytest.skip(f"{reason}; `make bench` installs it")
    finally:
        process.end()


def test_the_limit_counts_the_convolutions_of_exact_maml() -> None:
    """By hand, for W3: passes x examples x 2 x 9 x channels in x channels out x positions."""
    by_hand = 0.0
    for channels, side, inner, query in ((3, 84, 4, 2), (32, 42, 9, 3), (32, 21, 9, 3), (32, 10, 9, 3)):
        by_hand += (inner * 4 * 5 * 5 + query * 4 * 75) * 2 * 9 * channels * 32 * side**2
    by_hand += (9 * 100 + 3 * 300) * 2 * 5 * 800
    assert sum(each.gflop for each in passes(workloads.draw("W3"))) == pytest.approx(by_hand / 1e9)


def test_a_problem_is_the_same_after_it_was_written_and_read(tmp_path: Path) -> None:
    problem = workloads.draw(TINY[1])
    save(problem, tmp_path / "problem")
    found = load(tmp_path / "problem")
    assert (found.workload, found.method) == (problem.workload, problem.method)
    assert all(np.array_equal(found.theta[name], value) for name, value in problem.theta.items())
    assert all(np.array_equal(a, b) for a, b in zip(found[3:], problem[3:], strict=True))


@pytest.mark.parametrize(
    ("workload", "tasks", "support", "query", "steps"),
    [
        ("W1", 25, (10, 1), (10, 1), 1),
        ("W2-1", 32, (5, 1, 28, 28), (5, 1, 28, 28), 1),
        ("W2-15", 32, (5, 1, 28, 28), (75, 1, 28, 28), 1),
        ("W3", 4, (5, 3, 84, 84), (75, 3, 84, 84), 5),
        ("W4", 4, (25, 3, 84, 84), (75, 3, 84, 84), 5),
    ],
)
def test_the_workloads_have_the_papers_numbers(
    workload: str, tasks: int, support: tuple[int, ...], query: tuple[int, ...], steps: int
) -> None:
    problem = workloads.draw(workload)
    assert (problem.support_x.shape, problem.query_x.shape) == ((tasks, *support), (tasks, *query))
    assert problem.method.inner_steps == steps
    assert problem.support_x.dtype == np.float32
