"""Omniglot classification, 20-way: Table 1 of the paper, 95.8 +- 0.3 % (1-shot) and 98.9 +- 0.2 % (5-shot).

make submit JOB=omniglot_20way
make submit JOB=omniglot_20way ARGS="tasks.shots=5"
"""

from dataclasses import replace

from jobs import omniglot
from meta_service.algorithms.maml import MAML
from meta_service.job import Evaluation
from meta_service.tasks.omniglot import Omniglot

job = replace(
    omniglot.job,
    name="omniglot_20way",
    tasks=Omniglot(ways=20, shots=1),
    algorithm=MAML(inner_lr=0.1, inner_steps=5),
    meta_batch_size=16,
    tasks_per_block=4,
    validation=Evaluation("validation", num_tasks=100, steps=5),
    evaluations=(
        Evaluation("paper", num_tasks=600, steps=10, headline=5, query_shots="shots"),
        Evaluation("strict", num_tasks=2000, steps=10, headline=5, query_shots=15),
    ),
)

space, tune = omniglot.space, omniglot.tune
