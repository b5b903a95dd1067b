"""MiniImageNet classification, 5-way: section 5.2, Table 1 of the paper.

make submit JOB=miniimagenet                                                  paper: 48.70 +- 1.84 %
make submit JOB=miniimagenet ARGS="algorithm.first_order=true"                paper: 48.07 +- 1.75 %
make submit JOB=miniimagenet ARGS="tasks.shots=5 meta_batch_size=2"           paper: 63.11 +- 0.92 %
"""

from meta_service.algorithms.maml import MAML
from meta_service.job import Evaluation, JobSpec
from meta_service.models.conv4 import Conv4
from meta_service.outer.adam import Adam
from meta_service.sweep.settings import Tune
from meta_service.sweep.space import integers, loguniform
from meta_service.tasks.miniimagenet import MiniImageNet

job = JobSpec(
    name="miniimagenet",
    tasks=MiniImageNet(ways=5, shots=1, query_shots=15),
    model=Conv4(filters=32, downsample="max_pool"),
    algorithm=MAML(inner_lr=0.01, inner_steps=5),
    outer=Adam(meta_lr=1e-3, clip=10.0),
    iterations=60_000,
    meta_batch_size=4,
    tasks_per_block=1,
    validate_every=500,
    validation=Evaluation("validation", num_tasks=100, steps=10),
    checkpoint_every=250,
    evaluations=(
        Evaluation("paper", num_tasks=600, steps=10, query_shots="shots"),
        Evaluation("strict", num_tasks=2000, steps=10, query_shots=15),
    ),
)

space = {
    "algorithm.inner_lr": loguniform(1e-3, 0.1),
    "outer.meta_lr": loguniform(1e-4, 1e-2),
    "algorithm.inner_steps": integers(1, 5),
}
tune = Tune(trials=16, iterations=2_000, grace=200)
