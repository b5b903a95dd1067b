"""theta on its way through one task, for the pictures that show what the network does there."""

from collections.abc import Sequence

from meta_service.episode import Batch, TaskDistribution
from meta_service.job import JobSpec
from meta_service.learner import loss_of
from meta_service.params import Params


def adapted(
    job: JobSpec, tasks: TaskDistribution, params: Params, support: Batch, steps: Sequence[int]
) -> list[Params]:
    """theta' after each of these numbers of inner steps (in rising order) of the job's algorithm on the support set."""
    loss = loss_of(job, tasks)
    reached: list[Params] = []
    done = 0
    for step in steps:
        params = job.maml.adapt(loss, params, (support,) * (step - done))
        reached.append(params)
        done = step
    return reached
