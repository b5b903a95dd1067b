"""Rolling out: many policies, each on many trajectories of its task, stepped together; the one effect in here."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.params import Params
from meta_service.rl.simulation import PolicyTasks
from meta_service.rl.trajectories import Trajectories


def generator(seed: int, phase: int, trajectory: int) -> np.random.Generator:
    """Of one trajectory: its start and its noise follow from it, in this order."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, phase, trajectory))))


def gather(
    policy: GaussianPolicy, params: Params, tasks: PolicyTasks, seeds: Sequence[int], phase: int
) -> Trajectories:
    """The trajectories of one step of adaptation: K of each task or, with tasks.by_steps, as many as have K * H steps.

    Those are whole ones, more than K where they end early: [B, the most any task has, H, ...], with rows without a step
    where a task has fewer. One whose simulation became unstable has cost H steps.
    """
    batch = roll_out(policy, params, tasks, seeds, phase)
    if not tasks.by_steps:
        return batch
    wanted = tasks.shots * tasks.horizon
    each = [batch.of_task(b) for b in range(len(seeds))]
    while short := [b for b, met in enumerate(each) if _spent(met).sum() < wanted]:
        so_far = len(each[short[0]].mask)  # the same for all that are short
        shares = [wanted / float(_spent(each[b]).sum()) for b in short]
        numbers = range(so_far, math.ceil(max(shares) * so_far))
        more = roll_out(
            policy, {n: p[short] for n, p in params.items()}, tasks, [seeds[b] for b in short], phase, numbers
        )
        for index, b in enumerate(short):
            each[b] = Trajectories(*(torch.cat(parts) for parts in zip(each[b], more.of_task(index), strict=True)))
    kept = [int((_spent(met).cumsum(0) - _spent(met) < wanted).sum()) for met in each]
    parts = zip(*each, strict=True)
    return Trajectories(*(pad_sequence([t[:k] for t, k in zip(part, kept, strict=True)], True) for part in parts))


def _spent(met: Trajectories) -> torch.Tensor:
    """[K]: steps of each trajectory of one task."""
    return torch.where(met.unstable, met.mask.shape[-1], met.mask.sum(-1))


def roll_out(
    policy: GaussianPolicy,
    params: Params,
    tasks: PolicyTasks,
    seeds: Sequence[int],
    phase: int,
    numbers: range | None = None,
) -> Trajectories:
    """K trajectories of each task, by the policy with its parameters: params [B, ...], one policy for each of B seeds.

    numbers: which trajectories of a task they are, the first K if none are named.

    A function of its arguments: every trajectory has a generator of its own, named by (seed, phase, trajectory).
    `phase` counts the adaptation steps of a task, so that each meets fresh noise. Costs one call of all policies and
    one of all simulations a step.
    """
    numbers = range(tasks.shots) if numbers is None else numbers
    B, K, H = len(seeds), len(numbers), tasks.horizon
    (o,), a = tasks.signature.inputs, tasks.signature.outputs
    like = params["log_std"].dtype
    generators = [generator(seed, phase, k) for seed in seeds for k in numbers]
    simulation = tasks.simulation(np.repeat(np.stack([tasks.goal(seed) for seed in seeds]), K, 0))
    observation = simulation.reset(generators)
    noise = np.empty((H, B * K, a), np.float32)
    for index, own in enumerate(generators):
        noise[:, index] = own.standard_normal((H, a), np.float32)
    drawn = torch.from_numpy(noise).to(like).view(H, B, K, a)

    observations = torch.empty(H, B * K, o, dtype=like)
    actions = torch.empty(H, B, K, a, dtype=like)
    rewards, counts = np.zeros((H, B * K)), np.zeros((H, B * K), bool)
    alive, ended = np.ones(B * K, bool), np.zeros(B * K, bool)
    unstable = ~np.isfinite(observation).all(1)
    with torch.no_grad():
        for t in range(H):
            observations[t] = torch.from_numpy(observation)
            actions[t] = policy.act_together(params, observations[t].view(B, K, o), drawn[t])
            counts[t] = alive
            observation, rewards[t], terminated = simulation.step(actions[t].view(B * K, a).numpy())
            # the sum of a row is finite if and only if its entries are, short of an overflow that is as bad
            unstable |= alive & ~np.isfinite(observation.sum(1) + rewards[t])
            ended |= alive & terminated & ~unstable
            alive &= ~(terminated | unstable)
            if not alive.any():
                observations[t + 1 :], actions[t + 1 :] = 0.0, 0.0
                break
    mask = counts & ~unstable

    def by_task(array: torch.Tensor) -> torch.Tensor:
        """[H, B * K, ...] -> [B, K, H, ...], zero where masked if it may be not finite there."""
        return array.view(H, B, K, *array.shape[2:]).permute(1, 2, 0, *range(3, 1 + array.dim())).contiguous()

    masks = by_task(torch.from_numpy(mask).to(like))
    flat_actions = actions.view(H, B * K, a)
    if not mask.all():
        dead = torch.from_numpy(~mask)
        observations[dead], flat_actions[dead] = 0.0, 0.0
        rewards[~mask] = 0.0
    return Trajectories(
        by_task(observations),
        by_task(flat_actions),
        by_task(torch.from_numpy(rewards)),
        masks,
        torch.from_numpy(ended).view(B, K),
        torch.from_numpy(unstable).view(B, K),
    )
