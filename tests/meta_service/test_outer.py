"""The outer update against torch's own, and what it refuses."""

from typing import NamedTuple

import pytest
import torch

from meta_service.errors import UserError
from meta_service.objective import MetaGradient
from meta_service.outer.adam import Adam
from meta_service.params import Params


class Bowl(NamedTuple):
    """|theta - 3|^2 summed over `tasks` tasks."""

    tasks: int = 4

    def gradient(self, params: Params) -> MetaGradient:
        loss = float((params["theta"] - 3).square().sum())
        return MetaGradient({"theta": self.tasks * 2 * (params["theta"] - 3)}, self.tasks * loss, self.tasks)


def test_steps_equal_those_of_torch_optim_adam() -> None:
    start = torch.tensor([0.0, 5.0, 100.0], dtype=torch.float64)
    leaf = start.clone().requires_grad_()
    reference = torch.optim.Adam([leaf], lr=0.05)
    outer = Adam(meta_lr=0.05)
    state = outer.init({"theta": start})
    for _ in range(50):
        reference.zero_grad()
        (leaf - 3).square().sum().backward()
        reference.step()
        state, mean = outer.step(state, Bowl())
    torch.testing.assert_close(state.params["theta"], leaf.detach(), rtol=1e-9, atol=1e-9)
    assert state.iteration == 50
    assert mean.tasks == 1


def test_clipping_cuts_each_entry_of_the_mean_gradient() -> None:
    start = torch.tensor([3.1, 100.0], dtype=torch.float64)
    free, _ = Adam(clip=1.0).step(Adam().init({"theta": start}), Bowl())
    torch.testing.assert_close(free.optimizer["m/theta"], 0.1 * torch.tensor([0.2, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("fields", [{"meta_lr": 0.0}, {"clip": -1.0}])
def test_impossible_step_sizes_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UserError, match="are expected"):
        Adam(**fields)
