"""Hessian-vector products in bfloat16: what is rounded, and what is not."""

from dataclasses import replace

import pytest
import torch

from meta_service.adjoint import native, network
from meta_service.adjoint.affine import Images, arranged
from meta_service.errors import UserError
from meta_service.job import Evaluation
from meta_service.learner import Learner
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.params import flatten
from tests.meta_service.test_maml import POOLED, STRIDED, job_of, plain_loop, relative, theta_of

SEEDS = [3, 4, 5]
MODELS = pytest.mark.parametrize("model", [STRIDED, POOLED], ids=["stride", "pool"])


@MODELS
@pytest.mark.parametrize("at_once", [True, False], ids=["patches", "convolutions"])
def test_a_meta_gradient_with_rounded_hessian_products_is_near_the_exact_one(
    model: Conv4, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not at_once:
        monkeypatch.setattr(network, "CACHE_ENTRIES", 1)
    job = replace(job_of(model, inner_steps=3), precision="bf16")
    theta = theta_of(job)
    error = relative(Learner(job).meta_gradient(theta, SEEDS).grads, plain_loop(job, theta, SEEDS))
    assert 1e-6 < error < 1e-2


@MODELS
def test_where_there_is_no_hessian_nothing_is_rounded(model: Conv4) -> None:
    exact = job_of(model, inner_steps=2, first_order=True)
    theta = theta_of(exact)
    jobs = exact, replace(exact, precision="bf16")
    first, second = (flatten(Learner(job).meta_gradient(theta, SEEDS).grads) for job in jobs)
    assert first.tobytes() == second.tobytes()


def test_tests_are_not_rounded() -> None:
    exact = job_of(STRIDED)
    theta, test = theta_of(exact), Evaluation("test", 3, steps=2)
    first, second = (
        Learner(job).curves(theta, SEEDS, "test", test) for job in (exact, replace(exact, precision="bf16"))
    )
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("compiled", [True, False], ids=["native", "torch"])
def test_products_of_numbers_that_bfloat16_has_are_exact(
    stride: int, shared: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "suits", lambda x: False)
    generator = torch.Generator().manual_seed(0)

    def whole(*shape: int) -> torch.Tensor:
        return torch.randint(-1, 2, shape, generator=generator).float()  # sums stay below 256, which it has, too

    h, weight = whole(2, 3, 4, 4, 3), arranged(whole(1 if shared else 2, 5, 3, 3, 3))
    exact, short = Images(h, stride), Images(h, stride, torch.bfloat16)
    g = whole(*exact.forward(weight).shape)
    for of in (
        lambda x: x.forward(weight),
        lambda x: x.input_gradient(weight, g),
        lambda x: x.weight_gradient(g, True),
        lambda x: x.weight_gradient(g, False),
    ):
        assert of(short).dtype == torch.float32
        assert torch.equal(of(short), of(exact))


@pytest.mark.parametrize("changes", [{"model": MLP()}, {"vectorize": "loop"}], ids=["no convolution", "no adjoint"])
def test_bf16_without_convolutions_by_hand_is_refused(changes: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match="precision: bf16 is expected with vectorize=adjoint"):
        replace(job_of(STRIDED), precision="bf16", **changes)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "float32"])
def test_a_gpu_multiplies_in_tf32_only_where_the_job_says_so(precision: str) -> None:
    Learner(replace(job_of(STRIDED), precision=precision))  # type: ignore[arg-type]
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
