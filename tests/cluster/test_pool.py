"""Blocks on real actors: the same bits whoever computes them, and whatever happens to them."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from cluster.pool import RayPool
from cluster.worker import TaskWorker
from meta_service.adjoint import native
from meta_service.driver import Diverged
from meta_service.errors import UserError
from meta_service.evaluation import evaluate
from meta_service.job import Evaluation, JobSpec, Resources
from meta_service.objective import PolicyObjective
from meta_service.params import sha256
from meta_service.pool import LocalPool
from tests.cluster.hostile import Hostile
from tests.cluster.small import CONVOLUTIONS, POLICIES, SINUSOID, digest, pool_of

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize("job", [SINUSOID, CONVOLUTIONS, POLICIES], ids=["mlp", "conv", "policies"])
def test_one_two_and_three_workers_and_this_process_end_with_the_same_digest(job: JobSpec) -> None:
    digests = {0: digest(job, LocalPool.of(job))}
    for workers in (1, 2, 3):
        pool = pool_of(job, workers)
        digests[workers] = digest(job, pool)
        pool.close()
    assert len(set(digests.values())) == 1, digests


def test_curves_come_in_the_order_of_the_seeds() -> None:
    pool = pool_of(SINUSOID, 2)
    theta, evaluation = SINUSOID.init().params, Evaluation("e", num_tasks=21, steps=3)
    assert evaluate(SINUSOID, pool, theta, evaluation, "test") == evaluate(
        SINUSOID, LocalPool.of(SINUSOID), theta, evaluation, "test"
    )
    pool.close()


def test_a_worker_that_is_killed_in_a_block_changes_no_bit(tmp_path: Path) -> None:
    job = replace(SINUSOID, tasks=Hostile("kill once", str(tmp_path)))
    said: list[str] = []
    pool = pool_of(job, 2, said)
    assert digest(job, pool) == digest(SINUSOID, LocalPool.of(SINUSOID))
    assert (tmp_path / "done").exists()
    assert any("a worker died" in text for text in said)
    pool.close()


def test_trajectories_of_a_worker_that_died_are_gathered_again_to_the_same_bits() -> None:
    blocks, theta, said = POLICIES.blocks("train", 0, 7), POLICIES.init().params, list[str]()
    pool, here = pool_of(POLICIES, 2, said), LocalPool.of(POLICIES).objective(blocks)
    assert isinstance(here, PolicyObjective)
    objective = pool.objective(blocks)
    gradient = objective.gradient(theta).mean().grads
    assert sha256(gradient) == sha256(here.gradient(theta).mean().grads)
    ray.kill(objective.homes[0].actor)
    for reach in (0.0, 0.1):
        assert sha256(objective.curvature(theta, gradient, reach)) == sha256(here.curvature(theta, gradient, reach))
    assert objective.value(theta, gradient) == here.value(theta, gradient)
    assert any("a worker died" in text for text in said)
    pool.close()


def test_each_question_about_a_block_goes_to_the_worker_that_holds_its_trajectories() -> None:
    blocks, theta = POLICIES.blocks("train", 0, 7), POLICIES.init().params
    pool = pool_of(POLICIES, 2)
    objective = pool.objective(blocks)
    gradient = objective.gradient(theta).mean().grads
    homes = dict(objective.homes)
    assert len(homes) == len(blocks)
    for _ in range(3):
        objective.curvature(theta, gradient)
    assert objective.homes == homes
    pool.close()


def test_a_block_that_kills_three_workers_ends_the_run_with_its_seeds_and_the_command_that_repeats_it() -> None:
    job = replace(SINUSOID, tasks=Hostile("kill"), meta_batch_size=2, resources=Resources(1, cpus_per_worker=0.5))
    pool = RayPool(job, job.init().params, print, run="sinusoid-1")
    seeds = job.blocks("train", 0, 2)[0]
    with pytest.raises(UserError, match="killed 3 workers") as refusal:
        pool.objective([seeds], step=1).gradient(job.init().params)
    assert f"job sinusoid (seed 0), outer step 1, block 0 with the task seeds {seeds}" in str(refusal.value)
    assert "`python -m jobs block sinusoid-1 --block 0`" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    pool.close()


def test_a_user_s_mistake_in_a_worker_arrives_as_it_was_raised() -> None:
    job = replace(SINUSOID, tasks=Hostile("mistake"))
    pool = pool_of(job, 1)
    with pytest.raises(UserError, match=r"^the images are gone$"):
        pool.objective(job.blocks("train", 0, 2)).gradient(job.init().params)
    pool.close()


@pytest.mark.skipif(native.library() is None, reason=native.missing() or "the loops are compiled")
def test_workers_that_would_round_differently_are_refused(tmp_path: Path) -> None:
    job = replace(SINUSOID, tasks=Hostile("uncompiled", str(tmp_path)))
    pool = pool_of(job, 1)
    pool.objective(job.blocks("train", 0, 2)).gradient(job.init().params)
    pool.crew.start()  # as for one that has died
    objective = pool.objective(job.blocks("train", 0, 10_000))
    with pytest.raises(UserError, match=r"META_NATIVE=0 was set; .* set META_NATIVE=0 for all"):
        objective.gradient(job.init().params)
    pool.close()


def test_a_worker_that_fails_once_is_replaced_and_changes_no_bit(tmp_path: Path) -> None:
    said: list[str] = []
    pool = pool_of(replace(SINUSOID, tasks=Hostile("bug once", str(tmp_path))), 2, said)
    assert digest(replace(SINUSOID, tasks=Hostile()), pool) == digest(SINUSOID, LocalPool.of(SINUSOID))
    assert any("a worker failed (ValueError: a programmer's mistake); it is replaced" in text for text in said), said
    pool.close()


def test_an_answer_that_is_not_finite_once_is_not_believed(tmp_path: Path) -> None:
    said: list[str] = []
    pool = pool_of(replace(SINUSOID, tasks=Hostile("nan once", str(tmp_path))), 2, said)
    assert digest(replace(SINUSOID, tasks=Hostile()), pool) == digest(SINUSOID, LocalPool.of(SINUSOID))
    assert said == ["a worker's answer is not finite; its block is computed again"]
    pool.close()


def test_a_gradient_that_is_not_finite_both_times_ends_the_run() -> None:
    job = replace(SINUSOID, tasks=Hostile("nan"))
    pool = pool_of(job, 2)
    with pytest.raises(Diverged, match="is not finite"):
        digest(job, pool)
    pool.close()


def test_a_step_of_policies_that_is_far_too_long_is_no_reason_to_doubt_a_worker() -> None:
    said: list[str] = []
    pool, theta = pool_of(POLICIES, 1, said), POLICIES.init().params
    objective: Any = pool.objective(POLICIES.blocks("train", 0, 2))
    assert not math.isfinite(objective.value(theta, {name: 1e20 * value for name, value in theta.items()}).kl)
    assert not said
    pool.close()


def test_a_bug_in_a_worker_arrives_with_its_traceback_and_its_place_in_the_job() -> None:
    job = replace(SINUSOID, tasks=Hostile("bug"), resources=Resources(1, cpus_per_worker=0.5))
    pool = RayPool(job, job.init().params, print, run="sinusoid-1")
    with pytest.raises(RayTaskError, match="a programmer's mistake") as error:
        pool.objective(job.blocks("train", 0, 2), step=1).gradient(job.init().params)
    (note,) = error.value.__notes__
    assert "outer step 1, block 0" in note
    assert "`python -m jobs block sinusoid-1 --block 0`" in note
    pool.close()


def test_a_pool_that_finds_no_room_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def say(text: str) -> None:
        raise Enough(text)

    monkeypatch.setattr("cluster.pool.PATIENCE_S", 0.5)
    job = replace(SINUSOID, resources=Resources(workers=1, cpus_per_worker=1000))
    pool = RayPool(job, job.init().params, say)
    with pytest.raises(Enough, match=r"it needs 1000 CPU, .* change resources.cpus_per_worker"):
        pool.objective(job.blocks("train", 0, 2)).gradient(job.init().params)
    pool.close()


def test_a_worker_loads_torch_func_s_compiler_only_where_it_is_used() -> None:
    class Telling(TaskWorker):
        def ready(self) -> str:
            super().ready()
            return str("torch._dynamo" in sys.modules)

    def loads(job: JobSpec) -> bool:
        worker = ray.remote(Telling).options(num_cpus=0.1).remote(job, job.init().params)
        return ray.get(worker.ready.remote()) == "True"

    assert not loads(SINUSOID)
    assert loads(replace(SINUSOID, vectorize="vmap"))
