"""A meta-learned policy, and what it becomes on a task of one's own."""

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.params import Params
from meta_service.rl.simulation import PolicyTasks
from meta_service.rl.trajectories import Trajectories


class Trajectory(NamedTuple):
    """What a policy met from a reset to an end; `adapt` takes any three arrays of these shapes, too."""

    observations: np.ndarray
    """[T, o], each what the action beside it answered to."""
    actions: np.ndarray
    """[T, a] as `act(observation, explore=True)` gave them, before any clipping."""
    rewards: np.ndarray
    """[T]"""
    terminated: bool = True
    """Ended by the task, not by a limit of time."""


class Policy:
    """pi_theta: acts, and adapts to a task by policy-gradient steps on trajectories it has met there."""

    def __init__(self, job: JobSpec, params: Params, steps: int = 0) -> None:
        if not (isinstance(job.algorithm, PolicyGradient) and isinstance(job.model, GaussianPolicy)):
            raise UserError(f"job {job.name}: a policy's job is expected")
        self.job, self.params, self.steps = job, params, steps
        self._algorithm, self._model = job.algorithm, job.model
        (self._inputs,), self._outputs = job.tasks.signature.inputs, job.tasks.signature.outputs

    def act(self, observation: Any, explore: bool = False, generator: np.random.Generator | None = None) -> np.ndarray:
        """The mean action for an observation [o] or [n, o]: float32 [a] or [n, a], clipped to [-1, 1].

        explore: one drawn from the policy instead and not clipped, as `adapt` needs it.
        """
        seen = np.asarray(observation, np.float32)
        if seen.shape[-1:] != (self._inputs,) or seen.ndim > 2:
            raise UserError(
                f"observation: [{self._inputs}] or [n, {self._inputs}] is expected, {list(seen.shape)} came"
            )
        with torch.no_grad():
            mean: np.ndarray = self._model.apply(self.params, torch.from_numpy(np.atleast_2d(seen))).numpy()
        mean = mean.reshape(*seen.shape[:-1], self._outputs)
        if not explore:
            return np.asarray(mean.clip(-1.0, 1.0))
        noise = (generator or np.random.default_rng()).standard_normal(mean.shape, np.float32)
        width: np.ndarray = self._model.log_std(self.params).exp().numpy()
        drawn: np.ndarray = mean + noise * width
        return drawn

    def adapt(
        self,
        source: Any,
        steps: int = 1,
        inner_lr: float | None = None,
        trajectories: int | None = None,
        seed: int = 0,
    ) -> "Policy":
        """The policy after `steps` policy-gradient steps.

        source: a Gymnasium environment, in which each step gathers `trajectories` (by default as in training);
        or trajectories this policy has met, (observations, actions, rewards) each, for one step. Step sizes as in the
        run's tests: alpha first, a share of it later. Raises UserError.
        """
        if steps < 0 or (inner_lr is not None and inner_lr <= 0):
            raise UserError(f"steps >= 0 and inner_lr > 0 are expected, {steps} and {inner_lr} came")
        policy = self
        if not hasattr(source, "reset"):
            if steps != 1:
                raise UserError(f"steps: trajectories serve one step, {steps} came; call adapt again with new ones")
            return policy._stepped(self._batch(source), inner_lr)
        generator = np.random.default_rng(seed)
        for _ in range(steps):
            met = policy._met(source, trajectories, generator)
            policy = policy._stepped(self._batch(met), inner_lr)
        return policy

    def roll_out(self, env: Any, explore: bool = False, seed: int = 0, horizon: int = 10_000) -> Trajectory:
        """One trajectory in a Gymnasium environment, of `horizon` steps at most."""
        return self._episode(env, explore, np.random.default_rng(seed), horizon)

    def _met(self, env: Any, count: int | None, generator: np.random.Generator) -> list[Trajectory]:
        tasks: PolicyTasks = self.job.tasks  # type: ignore[assignment]
        steps = tasks.shots * tasks.horizon if tasks.by_steps and count is None else 0
        met: list[Trajectory] = []
        while len(met) < (count or tasks.shots) or sum(len(one.rewards) for one in met) < steps:
            met.append(self._episode(env, True, generator, tasks.horizon))
        return met

    def _episode(self, env: Any, explore: bool, generator: np.random.Generator, horizon: int) -> Trajectory:
        observation, _ = env.reset(seed=int(generator.integers(2**31)))
        rows: list[tuple[Any, np.ndarray, float]] = []
        terminated = False
        for _ in range(horizon):
            action = self.act(observation, explore, generator)
            following, reward, terminated, truncated, _ = env.step(np.clip(action, -1.0, 1.0))
            rows.append((observation, action, float(reward)))
            observation = following
            if terminated or truncated:
                break
        observations, actions, rewards = zip(*rows, strict=True)
        return Trajectory(np.stack(observations), np.stack(actions), np.array(rewards), bool(terminated))

    def _stepped(self, batch: Trajectories, inner_lr: float | None) -> "Policy":
        algorithm = self._algorithm
        if inner_lr is not None:
            algorithm = dataclasses.replace(algorithm, inner_lr=inner_lr)
        seen = algorithm.seen(self._model, self.params, batch)
        params = algorithm.inner_step(self._model, self.params, seen, self.steps)
        return Policy(self.job, params, self.steps + 1)

    def _batch(self, source: Iterable[Any]) -> Trajectories:
        """Trajectories of any lengths as one masked batch."""
        each = [tuple(np.asarray(part, np.float64) for part in tuple(one)[:3]) for one in source]
        for o, a, r in each:
            if o.shape != (len(r), self._inputs) or a.shape != (len(r), self._outputs) or r.shape != (len(r),):
                came = ", ".join(str(list(part.shape)) for part in (o, a, r))
                raise UserError(
                    f"trajectories: (observations [T, {self._inputs}], actions [T, {self._outputs}], rewards [T]) are "
                    f"expected, {came} came"
                )
            if not all(np.isfinite(part).all() for part in (o, a, r)):
                raise UserError("trajectories: finite numbers are expected, NaN or infinity came; leave that one out")
        if not each or not all(len(r) for _, _, r in each):
            raise UserError("trajectories: at least one, of at least one step, is expected")
        K, H = len(each), max(len(r) for _, _, r in each)
        observations, actions = torch.zeros(K, H, self._inputs), torch.zeros(K, H, self._outputs)
        rewards, mask = torch.zeros(K, H, dtype=torch.float64), torch.zeros(K, H)
        for k, (o, a, r) in enumerate(each):
            observations[k, : len(r)], actions[k, : len(r)] = torch.from_numpy(o).float(), torch.from_numpy(a).float()
            rewards[k, : len(r)], mask[k, : len(r)] = torch.from_numpy(r), 1.0
        none = torch.zeros(K, dtype=torch.bool)
        return Trajectories(observations, actions, rewards, mask, none, none)
