"""Omniglot classification, 5-way 1-shot with convolutions: section 5.2, Table 1 of the paper.

    make submit JOB=omniglot                                       paper: 98.7 +- 0.4 %; ours, 7,000 its: 98.1 +- 0.5 %
    make submit JOB=omniglot ARGS="tasks.shots=5"                  paper: 99.9 +- 0.1 %
    make submit JOB=omniglot_20way                                 paper: 95.8 +- 0.3 %
    make submit JOB=omniglot_20way ARGS="tasks.shots=5"            paper: 98.9 +- 0.2 %
    make submit JOB=omniglot_mlp                                   paper, without convolutions: 89.7 +- 1.1 %
    make submit JOB=omniglot_mlp ARGS="tasks.shots=5"              paper, without convolutions: 97.5 +- 0.6 %
    make submit JOB=omniglot ARGS="algorithm.first_order=true"     Nichol et al. (2018), first order: 98.3 %
    make sweep JOB=omniglot                                        16 settings of alpha, beta and inner steps

95 % on validation tasks takes 2,000 outer steps, under 10 minutes on 2 cores. docs/results.md has the curve.
"""

from meta_service.algorithms.maml import MAML
from meta_service.job import Evaluation, JobSpec
from meta_service.models.conv4 import Conv4
from meta_service.sweep.settings import Tune
from meta_service.sweep.space import integers, loguniform
from meta_service.tasks.omniglot import Omniglot

job = JobSpec(
    name="omniglot",
    tasks=Omniglot(ways=5, shots=1),
    model=Conv4(filters=64, downsample="stride"),
    algorithm=MAML(inner_lr=0.4, inner_steps=1),
    iterations=60_000,
    meta_batch_size=32,
    tasks_per_block=16,
    validate_every=500,
    validation=Evaluation("validation", num_tasks=200, steps=3),
    checkpoint_every=500,
    evaluations=(
        Evaluation("paper", num_tasks=600, steps=10, headline=3, query_shots="shots"),
        Evaluation("strict", num_tasks=2000, steps=10, headline=3, query_shots=15),
    ),
)

space = {
    "algorithm.inner_lr": loguniform(0.01, 2.0),
    "outer.meta_lr": loguniform(1e-4, 1e-2),
    "algorithm.inner_steps": integers(1, 3),
}
tune = Tune(trials=16, iterations=500, grace=50)
