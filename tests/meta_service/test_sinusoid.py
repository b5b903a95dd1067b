"""The sinusoid tasks as the paper states them."""

import numpy as np
import torch

from meta_service.seeds import task_seeds
from meta_service.tasks.sinusoid import Sinusoid


def test_targets_lie_on_the_task_s_curve() -> None:
    tasks = Sinusoid()
    support, query = tasks.sample(11, "train")
    amplitude, phase = tasks.curve(11)
    for batch in (support, query):
        expected = amplitude * np.sin(batch.inputs[0].double().numpy() - phase)
        np.testing.assert_allclose(batch.targets.numpy(), expected, atol=1e-5)


def test_amplitude_phase_and_inputs_fill_the_paper_s_ranges() -> None:
    tasks = Sinusoid()
    seeds = task_seeds(0, "train", 0, 2000)
    amplitudes, phases = np.array([tasks.curve(seed) for seed in seeds]).T
    x = np.concatenate([tasks.sample(seed, "train")[0].inputs[0].numpy().ravel() for seed in seeds[:500]])
    for values, low, high in [(amplitudes, 0.1, 5.0), (phases, 0.0, np.pi), (x, -5.0, 5.0)]:
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)


def test_the_same_seed_is_the_same_task() -> None:
    first, second = (Sinusoid().sample(5, "test") for _ in range(2))
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(first, second, strict=True))


def test_the_oracle_sees_amplitude_and_phase() -> None:
    tasks = Sinusoid(oracle=True)
    support, _ = tasks.sample(5, "train")
    amplitude, phase = tasks.curve(5)
    assert tasks.signature.inputs == (3,)
    np.testing.assert_allclose(support.inputs[0][:, 1:].numpy(), [[amplitude, phase]] * 10, rtol=1e-6)


def test_task_seeds_of_different_iterations_streams_and_jobs_never_meet() -> None:
    lists = [task_seeds(s, stream, i, 25) for s in (0, 1) for stream in ("train", "test") for i in range(50)]  # type: ignore[arg-type]
    assert len({seed for seeds in lists for seed in seeds}) == 25 * len(lists)


def test_more_tasks_continue_the_same_list() -> None:
    assert task_seeds(3, "test", 0, 600)[:100] == task_seeds(3, "test", 0, 100)


def test_tasks_drawn_together_are_those_drawn_one_by_one() -> None:
    tasks, seeds = Sinusoid(shots=4, query_shots=3, oracle=True), [5, 2**63 + 1, 7]
    support, query = tasks.sample_all(seeds, "train")
    for i, seed in enumerate(seeds):
        alone = tasks.sample(seed, "train")
        for together, batch in zip((support, query), alone, strict=True):
            assert torch.equal(together.inputs[0][i], batch.inputs[0])
            assert torch.equal(together.targets[i], batch.targets)
