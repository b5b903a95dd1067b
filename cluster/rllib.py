"""RLlib's PPO on the same tasks, for the baselines; and a policy as an RLModule, for RLlib to go on from.

module = rl_module(load("cheetah_direction-1123-101500-ab12").adapt(env))
module.save_to_path(folder)  # RLModuleSpec(load_state_path=folder) starts any of RLlib's algorithms from it
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

from meta_service.environments import GoalVectorEnv, spaces
from meta_service.job import JobSpec
from meta_service.params import Params
from meta_service.policies import Policy
from meta_service.ppo import Trained

BATCH = 20_000  # steps of an iteration
ENVIRONMENTS = 100  # stepped together
EPOCHS, MINIBATCH, LR, GAE_LAMBDA = 10, 2_000, 1e-3, 0.95


def rl_module(policy: Policy) -> DefaultPPOTorchRLModule:
    """The policy as PPO's RLModule: the same mean action and deviation. Its value function is untrained."""
    observations, actions = spaces(policy.job.tasks)  # type: ignore[arg-type]
    module = DefaultPPOTorchRLModule(
        observation_space=observations, action_space=actions, model_config=_model(policy.job), inference_only=False
    )
    module.set_state(module.get_state() | _state(policy.params))
    return module


def train(job: JobSpec, params: Params) -> Iterator[Trained]:
    """As `meta_service.ppo.PPO` says, in a process of the cluster that asks for no CPU: the workers wait meanwhile."""
    task: Any = ray.remote(_train).options(num_cpus=0, num_returns="streaming", max_retries=0)
    for answer in task.remote(job, params):
        yield ray.get(answer)


def _train(job: JobSpec, params: Params) -> Iterator[Trained]:
    torch.set_num_threads(1)
    with _silence():
        yield from _trained(job, params)


def _trained(job: JobSpec, params: Params) -> Iterator[Trained]:
    tasks: Any = job.tasks
    register_env("meta_service", lambda context: GoalVectorEnv(tasks, context.get("num_envs", ENVIRONMENTS)))
    config = (
        PPOConfig()
        .environment("meta_service")
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=ENVIRONMENTS,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=BATCH // ENVIRONMENTS,
        )
        .training(
            train_batch_size_per_learner=BATCH,
            num_epochs=EPOCHS,
            minibatch_size=MINIBATCH,
            lr=LR,
            gamma=job.algorithm.discount,  # type: ignore[attr-defined]
            lambda_=GAE_LAMBDA,
        )
        .rl_module(model_config=_model(job))
        .learners(num_learners=0)
        .debugging(seed=job.seed, log_level="ERROR")
    )
    algorithm: Any = config.build_algo()
    module = algorithm.learner_group._learner.module["default_policy"]
    module.set_state(module.get_state() | _state(params))
    algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group, inference_only=True)
    for iteration in range(1, job.iterations + 1):
        result = algorithm.train()
        weights = algorithm.get_module().get_state()
        mean = result["env_runners"].get("episode_return_mean", float("nan"))
        yield Trained(iteration, params_of(weights, params), float(mean))
    algorithm.stop()


@contextmanager
def _silence() -> Iterator[None]:
    """Of this process, whose words Ray passes on to the user: RLlib's are advice to whoever wrote the program."""
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    try:
        yield
    finally:
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
        os.close(nowhere)


def params_of(state: dict[str, Any], like: Params) -> Params:
    """theta from an RLModule's state, with the names of `like`."""
    names = _names(like)
    return {name: torch.from_numpy(np.array(state[names[name]])).to(like[name].dtype) for name in like}


def _state(params: Params) -> dict[str, np.ndarray]:
    """The part of an RLModule's state that acts."""
    return {name: params[own].detach().cpu().numpy().copy() for own, name in _names(params).items()}


def _names(params: Params) -> dict[str, str]:
    """Ours to RLlib's, which counts its activations as layers."""
    last = sum(name.endswith(".weight") for name in params) - 1
    names = {"log_std": "pi.log_std"}
    for part in ("weight", "bias"):
        for layer in range(last):
            names[f"linear{layer}.{part}"] = f"encoder.actor_encoder.net.mlp.{2 * layer}.{part}"
        names[f"linear{last}.{part}"] = f"pi.net.mlp.0.{part}"
    return names


def _model(job: JobSpec) -> DefaultModelConfig:
    hidden = list(job.model.hidden)  # type: ignore[attr-defined]
    return DefaultModelConfig(fcnet_hiddens=hidden, fcnet_activation="relu", vf_share_layers=False, free_log_std=True)
