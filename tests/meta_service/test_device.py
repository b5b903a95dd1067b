"""A block stays on the device of its data: torch's device `meta`, shapes without numbers, stands for a GPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from meta_service.errors import UserError
from meta_service.job import JobSpec, Resources
from meta_service.learner import Drawn, Learner
from meta_service.models.conv4 import Conv4
from meta_service.models.mlp import MLP
from meta_service.params import Params
from tests.meta_service.test_maml import MODELS, NAMES, POOLED, STRIDED, job_of, theta_of

SEEDS = [3, 4, 5]


class OneDevice(TorchDispatchMode):
    """Fails where an operation takes or gives a tensor on another device; numbers may be on the CPU, as on a GPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and leaf.dim():
                assert leaf.device.type == "meta", f"{function} with a tensor {tuple(leaf.shape)} on {leaf.device}"
        return result


def on_meta(job: JobSpec) -> tuple[Learner, Params, Drawn]:
    learner = Learner(job, device="meta")
    theta = {name: value.to("meta") for name, value in theta_of(job).items()}
    return learner, theta, learner.draw(job.data_sets, SEEDS, "train")


def by_hand(job: JobSpec, theta: Params, drawn: Drawn, curvature: torch.dtype | None = None) -> tuple[Params, Tensor]:
    """What `Learner.block` does, but for the loss as a number."""
    assert job.network
    network = replace(job.network, curvature=curvature)
    support, query = (network.data(batch.inputs, batch.targets) for batch in drawn)
    with OneDevice():
        return job.maml.block_meta_gradient(network, job.data_sets.output_loss, theta, support, query)  # type: ignore[attr-defined]


def devices(tensors: object) -> set[str]:
    return {tensor.device.type for tensor in tree_leaves(tensors)}


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
@pytest.mark.parametrize("transductive", [True, False], ids=["transductive", "inductive"])
def test_a_meta_gradient_by_hand_is_computed_where_its_data_are(model: Conv4 | MLP, transductive: bool) -> None:
    job = job_of(model, transductive, inner_steps=2)
    _, theta, drawn = on_meta(job)
    assert devices(drawn) == {"meta"}
    assert devices(by_hand(job, theta, drawn)) == {"meta"}


@pytest.mark.parametrize("model", [STRIDED, POOLED], ids=["stride", "pool"])
def test_rounded_hessian_products_are_computed_where_their_data_are(model: Conv4) -> None:
    job = job_of(model, inner_steps=2)
    _, theta, drawn = on_meta(job)
    assert devices(by_hand(job, theta, drawn, torch.bfloat16)) == {"meta"}


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_tests_are_computed_where_their_data_are(model: Conv4 | MLP) -> None:
    job = job_of(model)
    learner, theta, drawn = on_meta(job)
    assert job.network
    args = (job.network, job.data_sets.output_loss, theta, drawn, job.data_sets, job.maml, 2)  # type: ignore[attr-defined]
    with OneDevice():
        assert devices(list(learner._curves_by_hand(*args))) == {"meta"}


@pytest.mark.parametrize("forgotten", ["theta", "query"])
def test_what_was_left_on_the_cpu_is_found(forgotten: str) -> None:
    job = job_of(STRIDED)
    _, theta, drawn = on_meta(job)
    if forgotten == "theta":
        theta["conv1.weight"] = theta_of(job)["conv1.weight"]
    else:
        drawn = Drawn(drawn.support, Learner(job).draw(job.data_sets, SEEDS, "train").query)
    with pytest.raises((RuntimeError, AssertionError)):
        by_hand(job, theta, drawn)


def test_a_gpu_for_policies_is_refused() -> None:
    from jobs.navigation import job

    with pytest.raises(UserError, match="gpus_per_worker: 0 is expected for policies"):
        replace(job, resources=Resources(gpus_per_worker=1))
