"""The meta-gradient against its definition: closed forms, finite differences and a plain autograd loop, in float64."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from meta_service.algorithms.maml import MAML
from meta_service.episode import Batch, Episode, Signature
from meta_service.job import JobSpec, Model
from meta_service.learner import Learner, loss_of
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.params import Params, flatten
from tests.meta_service.tiny import TinyImages

STRIDED = Conv4(filters=4)
POOLED = Conv4(filters=4, downsample="max_pool")
PLAIN = MLP(hidden=(8, 8), init_std=0.3)
NORMALIZED = MLP(hidden=(8, 8), init_std=0.3, batch_norm=True)
MODELS = [PLAIN, NORMALIZED, STRIDED, POOLED]
NAMES = ["mlp", "mlp+bn", "conv stride", "conv pool"]


def job_of(model: Model, transductive: bool = True, **algorithm: object) -> JobSpec:
    maml = MAML(**({"inner_lr": 0.1, "inner_steps": 2} | algorithm))  # type: ignore[arg-type]
    return JobSpec("tiny", TinyImages(transductive=transductive), model, maml)


def theta_of(job: JobSpec) -> Params:
    generator = torch.Generator().manual_seed(1)
    theta = job.model.init(0, job.tasks.signature)
    # moved off the initial zeros, where some gradients vanish by symmetry
    return {k: v.double() + 0.05 * torch.randn(v.shape, generator=generator).double() for k, v in theta.items()}


def plain_loop(job: JobSpec, theta: Params, seeds: list[int]) -> Params:
    """Algorithm 2 as one would write it down: torch.autograd, one task after the other."""
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    total = torch.zeros((), dtype=torch.float64)
    for seed in seeds:
        support, query = job.tasks.sample(seed, "train")
        adapted = dict(leaves)
        for _ in range(job.algorithm.inner_steps):
            loss = job.tasks.loss(lambda *x, p=adapted: job.model.apply(p, *x), support)
            names = [name for name in adapted if not name.startswith("norm")]
            grads = torch.autograd.grad(
                loss, [adapted[name] for name in names], create_graph=not job.algorithm.first_order
            )
            steps = dict(zip(names, grads, strict=True))
            adapted = {
                name: value - job.algorithm.inner_lr * steps[name] if name in steps else value
                for name, value in adapted.items()
            }
        total = total + job.tasks.loss(lambda *x, p=adapted: job.model.apply(p, *x), query)
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), grads, strict=True)}


def relative(a: Params, b: Params) -> float:
    x, y = torch.from_numpy(flatten(a)), torch.from_numpy(flatten(b))
    return float((x - y).norm() / y.norm())


@pytest.mark.parametrize("vectorize", ["adjoint", "vmap", "loop"])
@pytest.mark.parametrize("transductive", [True, False], ids=["transductive", "inductive"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_a_block_equals_the_plain_autograd_loop(
    model: Model, first_order: bool, transductive: bool, vectorize: str
) -> None:
    job = replace(job_of(model, transductive, first_order=first_order), vectorize=vectorize)  # type: ignore[arg-type]
    theta, seeds = theta_of(job), [3, 4, 5]
    assert relative(Learner(job).meta_gradient(theta, seeds).grads, plain_loop(job, theta, seeds)) < 1e-9


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_the_second_order_meta_gradient_equals_finite_differences(model: Model) -> None:
    job = job_of(model)
    theta = theta_of(job)
    learner = Learner(job)
    gradient = learner.meta_gradient(theta, [7]).grads
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        direction = {k: torch.randn(v.shape, generator=generator).double() for k, v in theta.items()}
        step = 1e-6
        ahead, behind = (
            learner.meta_gradient({k: v + sign * step * direction[k] for k, v in theta.items()}, [7]).loss
            for sign in (1, -1)
        )
        slope = sum(float((gradient[k] * direction[k]).sum()) for k in theta)
        assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-5)


def quadratic(rows: int, seed: int) -> tuple[Batch, Tensor, Tensor]:
    """L(theta) = |A theta - b|^2 / 2 as a batch, with A and b."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rows, 4, generator=generator).double(), torch.randn(rows, generator=generator).double()
    return Batch((a,), b), a, b


def half_square(params: Params, batch: Batch) -> Tensor:
    return 0.5 * (batch.inputs[0] @ params["theta"] - batch.targets).square().sum()


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_of_a_quadratic_is_its_closed_form(steps: int, first_order: bool) -> None:
    alpha, theta = 0.05, torch.randn(4, generator=torch.Generator().manual_seed(0)).double()
    support, a, b = quadratic(5, 1)
    query, a_q, b_q = quadratic(6, 2)
    maml = MAML(inner_lr=alpha, inner_steps=steps, first_order=first_order)
    gradient, loss = maml.meta_gradient(half_square, {"theta": theta}, Episode((support,) * steps, query))

    adapted, jacobian = theta, torch.eye(4).double()
    for _ in range(steps):
        adapted = adapted - alpha * a.T @ (a @ adapted - b)
        jacobian = (torch.eye(4) - alpha * a.T @ a) @ jacobian
    outer = a_q.T @ (a_q @ adapted - b_q)
    expected = outer if first_order else jacobian.T @ outer
    torch.testing.assert_close(gradient["theta"], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss, half_square({"theta": adapted}, query))


def test_frozen_parameters_stay_as_they_are_in_the_inner_loop() -> None:
    job = job_of(STRIDED)
    theta = theta_of(job)
    support, _ = job.tasks.sample(1, "train")
    adapted = job.algorithm.inner_step(loss_of(job, job.tasks), theta, support)
    changed = {name for name in theta if not torch.equal(adapted[name], theta[name])}
    assert changed == {name for name in theta if not name.startswith("norm")}


def test_zero_inner_steps_is_the_plain_gradient_of_the_query_loss() -> None:
    job = job_of(PLAIN, inner_steps=0)
    theta = theta_of(job)
    assert relative(Learner(job).meta_gradient(theta, [1]).grads, plain_loop(job, theta, [1])) < 1e-12


@pytest.mark.parametrize("model", [NORMALIZED, STRIDED], ids=["mlp", "conv"])
def test_inductive_predictions_do_not_depend_on_the_other_query_examples(model: Model) -> None:
    theta = {name: value.double() for name, value in model.init(0, Signature((1, 16, 16), 3)).items()}
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(n, 1, 16, 16, generator=generator).double() for n in (5, 4))
    together = model.apply(theta, x, context)
    torch.testing.assert_close(model.apply(theta, x[:2], context), together[:2])
    assert not torch.allclose(model.apply(theta, x[:2]), model.apply(theta, x)[:2])
