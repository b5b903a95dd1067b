"""RLlib on our tasks, and our policies in RLlib."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import jobs
from cluster.rllib import params_of, rl_module, train
from meta_service.params import sha256
from meta_service.policies import Policy
from meta_service.tasks.locomotion import Locomotion

CHEETAH = jobs.find("cheetah_direction")


def some_policy() -> Policy:
    params = CHEETAH.model.init(3, CHEETAH.tasks.signature)
    params["log_std"] = torch.linspace(-1, 0, 6)
    return Policy(CHEETAH, params)


def outputs(module: object, observations: np.ndarray) -> np.ndarray:
    """[n, 2 a]: mean and log of the deviation."""
    with torch.no_grad():
        seen = module.forward_inference({"obs": torch.from_numpy(observations)})  # type: ignore[attr-defined]
    return np.asarray(seen["action_dist_inputs"])


def test_a_policy_as_an_rl_module_acts_the_same_and_comes_back_to_the_bit() -> None:
    policy = some_policy()
    module = rl_module(policy)
    observations = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    mean = CHEETAH.model.apply(policy.params, torch.from_numpy(observations)).numpy()
    found = outputs(module, observations)
    assert found[:, :6] == pytest.approx(mean, abs=1e-6)
    assert found[:, 6:] == pytest.approx(np.tile(policy.params["log_std"], (50, 1)), abs=1e-6)
    assert sha256(params_of(module.get_state(), policy.params)) == sha256(policy.params)


def test_a_saved_rl_module_is_what_rllib_goes_on_from(tmp_path: Path) -> None:
    from ray.rllib.core.rl_module.rl_module import RLModule

    policy = some_policy()
    rl_module(policy).save_to_path(tmp_path)
    again = RLModule.from_checkpoint(tmp_path)
    assert sha256(params_of(again.get_state(), policy.params)) == sha256(policy.params)


@pytest.mark.usefixtures("ray_cluster")
def test_rllib_s_ppo_trains_the_oracle_from_our_theta_on(monkeypatch: pytest.MonkeyPatch) -> None:
    job = replace(CHEETAH, tasks=Locomotion(kind="velocity", oracle=True, horizon=50), iterations=2)
    theta = job.init().params
    seen = list(train(job, theta))
    assert [one.iteration for one in seen] == [1, 2]
    assert seen[0].params["linear0.weight"].shape == (100, 21)
    change = max(float((seen[0].params[name] - theta[name]).abs().max()) for name in theta)
    assert 0 < change < 0.3  # from theta on, not from an initialisation of RLlib's own
    assert np.isfinite(seen[1].mean_return)
