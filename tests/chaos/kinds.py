"""Three kinds of job, each tiny: what the faults are done to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import jobs
from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.job import Evaluation, JobSpec, Resources
from meta_service.models.conv4 import Conv4
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.models.mlp import MLP
from meta_service.outer.trpo import TRPO
from meta_service.tasks.image_folder import ImageFolder
from meta_service.tasks.navigation import Navigation
from meta_service.tasks.omniglot import Omniglot

RESOURCES = Resources(workers=2, cpus_per_worker=0.01, patience_s=5.0)  # eight of them on two cores


def job_of(kind: str, iterations: int, folder: Path) -> JobSpec:
    """The job: `sinusoid`, `images` (made-up ones, kept in `folder`), `omniglot` (needs DATA_ROOT) or `navigation`.

    A checkpoint after every second step, and validation tasks after every tenth.
    """
    if kind == "sinusoid":
        job = replace(jobs.find("sinusoid"), model=MLP(hidden=(40, 40)), meta_batch_size=12, tasks_per_block=2)
    elif kind == "images":
        draw_images(folder)
        tasks = ImageFolder(path=str(folder), size=28, ways=3, shots=1, query_shots=2)
        job = replace(jobs.find("image_folder"), tasks=tasks, meta_batch_size=6, tasks_per_block=1)
        job = replace(job, model=Conv4(filters=8), algorithm=replace(job.maml, inner_steps=2))
    elif kind == "omniglot":
        job = replace(jobs.find("omniglot"), tasks=Omniglot(ways=5, shots=1), meta_batch_size=6, tasks_per_block=1)
        job = replace(job, model=Conv4(filters=8), algorithm=replace(job.maml, inner_steps=2))
    else:
        tasks, policy = Navigation(shots=4, horizon=20, by_steps=True), GaussianPolicy(hidden=(16,))
        job = replace(jobs.find("navigation"), tasks=tasks, model=policy, meta_batch_size=6, tasks_per_block=1)
        job = replace(job, algorithm=PolicyGradient(0.5), outer=TRPO(max_kl=0.01, cg_iterations=4, hvp_eps=1.0))
    return replace(
        job,
        iterations=iterations,
        checkpoint_every=2,
        validate_every=10,
        validation=Evaluation("validation", num_tasks=4, steps=1),
        evaluations=(Evaluation("test", num_tasks=4, steps=1),),
        baselines=(),
        resources=RESOURCES,
    )


def draw_images(folder: Path) -> None:
    """A folder of four classes with four images in each split, the same every time."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for c in range(4):
            place = folder / split / f"class{c}"
            place.mkdir(parents=True, exist_ok=True)
            for i in range(4):
                image = rng.integers(0, 60, (28, 28, 3), dtype=np.uint8)
                image[7 * c : 7 * c + 7] += 180
                Image.fromarray(image).save(place / f"{i}.png")
