"""Sinusoid regression, section 5.1: Table 2 and Figure 2 of the paper.

    make submit JOB=sinusoid                                    5 minutes on 2 cores
    make submit JOB=sinusoid ARGS="iterations=70000"            as long as in the paper
    make submit JOB=sinusoid ARGS="iterations=70000 algorithm.inner_lr=0.001"
                                                                alpha as in the authors' code, not as in the text

5-shot test error of the 10-shot-trained network after 1 / 5 / 10 gradient steps: 0.67 / 0.38 / 0.35 in the paper. Ours:
0.74 after 1 step and 20,000 iterations, which are the default here to keep a first run short, and 0.64 after 70,000
(after more steps one task in some hundred diverges); 0.68 / 0.34 / 0.31 with alpha 0.001.

    make sweep JOB=sinusoid                                     16 settings of alpha, beta and inner steps
"""

from meta_service.algorithms.maml import MAML
from meta_service.job import Baseline, Evaluation, JobSpec, Resources
from meta_service.models.mlp import MLP
from meta_service.sweep.settings import Tune
from meta_service.sweep.space import integers, loguniform
from meta_service.tasks.sinusoid import Sinusoid

FINE_TUNING = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.05)

job = JobSpec(
    name="sinusoid",
    tasks=Sinusoid(shots=10, query_shots=10),
    model=MLP(hidden=(40, 40)),
    algorithm=MAML(inner_lr=0.01, inner_steps=1),
    iterations=20_000,
    meta_batch_size=25,
    tasks_per_block=25,
    validate_every=2_000,
    validation=Evaluation("validation", num_tasks=100, steps=1),
    checkpoint_every=2_000,
    evaluations=(
        Evaluation("5-shot", shots=5),
        Evaluation("10-shot", shots=10),
        Evaluation("20-shot", shots=20),
    ),
    resources=Resources(workers=1),  # a meta-batch is one block
    baselines=(
        Baseline("pretrained", ("algorithm.inner_steps=0",), inner_lrs=FINE_TUNING),
        Baseline("oracle", ("algorithm.inner_steps=0", "tasks.oracle=true"), inner_lrs=FINE_TUNING),
        Baseline("random", ("iterations=0",), inner_lrs=FINE_TUNING),
    ),
)

space = {
    "algorithm.inner_lr": loguniform(1e-3, 0.3),
    "outer.meta_lr": loguniform(1e-4, 2e-2),
    "algorithm.inner_steps": integers(1, 3),
}
tune = Tune(trials=16, iterations=1_500, grace=150)
