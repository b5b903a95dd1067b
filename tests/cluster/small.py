"""Small jobs on real actors."""

from dataclasses import replace
from typing import Any

import jobs
from cluster.pool import RayPool
from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.driver import meta_train
from meta_service.evaluation import AdaptationCurve
from meta_service.job import Evaluation, JobSpec, Resources
from meta_service.models.conv4 import Conv4
from meta_service.objective import MetaGradient
from meta_service.outer.trpo import TRPO
from meta_service.pool import WorkerPool
from meta_service.state import MetaState
from meta_service.tasks.locomotion import Locomotion
from tests.meta_service.tiny import TinyImages

SINUSOID = replace(
    jobs.find("sinusoid"),
    iterations=20,
    meta_batch_size=11,
    tasks_per_block=2,
    validate_every=10,
    validation=Evaluation("validation", num_tasks=7, steps=2),
)


class Nobody:
    def stepped(self, state: MetaState, mean: MetaGradient) -> None: ...

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None: ...


def pool_of(job: JobSpec, workers: int, said: list[str] | None = None) -> Any:
    job = replace(job, resources=Resources(workers=workers, cpus_per_worker=0.5))
    return RayPool(job, job.init().params, (said if said is not None else []).append)


def digest(job: JobSpec, pool: WorkerPool) -> str:
    return meta_train(job, pool, job.init(), Nobody()).sha256()


CONVOLUTIONS = replace(
    jobs.find("omniglot"),
    tasks=TinyImages(double=False),
    model=Conv4(filters=8),
    iterations=20,
    meta_batch_size=5,
    tasks_per_block=2,
    validate_every=20,
    validation=Evaluation("validation", num_tasks=4, steps=1),
)


POLICIES = replace(
    jobs.find("cheetah_direction"),
    tasks=Locomotion(shots=3, horizon=10),
    algorithm=PolicyGradient(gae_lambda=0.9, estimator="lvc"),
    outer=TRPO(max_kl=0.02, cg_iterations=4),
    iterations=2,
    meta_batch_size=7,
    tasks_per_block=2,
    validate_every=2,
    validation=Evaluation("validation", num_tasks=4, steps=2),
)
