"""Corners of the adjoint that the comparison of whole blocks in test_maml does not reach."""

from dataclasses import replace

import pytest
import torch

from meta_service.adjoint import network
from meta_service.job import JobSpec
from meta_service.learner import Learner
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.params import flatten
from tests.meta_service.test_maml import MODELS, NAMES, POOLED, STRIDED, job_of, plain_loop, relative, theta_of
from tests.meta_service.tiny import TinyImages

SEEDS = [3, 4, 5]


def error(job: JobSpec) -> float:
    theta = theta_of(job)
    return relative(Learner(job).meta_gradient(theta, SEEDS).grads, plain_loop(job, theta, SEEDS))


@pytest.mark.parametrize("model", [STRIDED, POOLED], ids=["stride", "pool"])
@pytest.mark.parametrize("size", [16, 21, 27])
def test_images_of_odd_sizes_and_several_channels_equal_the_plain_loop(model: Conv4, size: int) -> None:
    job = replace(job_of(model), tasks=TinyImages(size=size, channels=3))
    assert error(job) < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_any_number_of_inner_steps_equals_the_plain_loop(model: Conv4 | MLP, steps: int) -> None:
    assert error(job_of(model, inner_steps=steps)) < 1e-9


@pytest.mark.parametrize("hidden", [(), (5,), (8, 4, 6)])
def test_networks_of_any_depth_equal_the_plain_loop(hidden: tuple[int, ...]) -> None:
    assert error(job_of(MLP(hidden=hidden, init_std=0.3))) < 1e-9


@pytest.mark.parametrize("frozen", [("conv*",), ("norm*", "linear*"), ("norm0*", "conv1.weight")])
def test_frozen_parameters_are_learned_through_the_inner_loop_but_not_in_it(frozen: tuple[str, ...]) -> None:
    by_hand = job_of(STRIDED, frozen=frozen)
    theta = theta_of(by_hand)
    expected = Learner(replace(by_hand, vectorize="loop")).meta_gradient(theta, SEEDS).grads
    assert relative(Learner(by_hand).meta_gradient(theta, SEEDS).grads, expected) < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_adapted_shifts_equal_the_general_path(model: Conv4 | MLP) -> None:
    by_hand = job_of(model, frozen=())
    theta = theta_of(by_hand)
    expected = Learner(replace(by_hand, vectorize="loop")).meta_gradient(theta, SEEDS).grads
    assert relative(Learner(by_hand).meta_gradient(theta, SEEDS).grads, expected) < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
@pytest.mark.parametrize("transductive", [True, False], ids=["transductive", "inductive"])
def test_tasks_computed_one_by_one_equal_the_plain_loop(
    model: Conv4 | MLP, transductive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "CACHE_ENTRIES", 1)
    assert error(job_of(model, transductive)) < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_recomputed_inner_steps_give_the_same_bits(model: Conv4 | MLP) -> None:
    kept = job_of(model, inner_steps=3)
    anew = job_of(model, inner_steps=3, recompute=True)
    theta = theta_of(kept)
    first, second = (flatten(Learner(job).meta_gradient(theta, SEEDS).grads) for job in (kept, anew))
    assert first.tobytes() == second.tobytes()


def test_parts_of_a_block_are_of_even_size_and_lose_no_task() -> None:
    data = network.Data(torch.zeros(32, 5, 28, 28, 1), torch.zeros(32, 5))
    sizes = [part.stop - part.start for part in data.parts()]
    assert max(sizes) - min(sizes) == 0
    assert len(data.parts()) > 1
    assert [i for part in data.parts() for i in range(32)[part]] == list(range(32))
