r"""HalfCheetah, to run forward or backward as each task says; section 5.3: Figure 5 of the paper.

    make submit JOB=cheetah_direction
    make submit JOB=cheetah_direction ARGS="tasks.variant=gymnasium tasks.horizon=100"

Return after 0 / 1 / 2 / 3 gradient steps on 40 test tasks: -50.7 / 293.2 / 313.5 / 315.7 in the paper, its oracle's
442.7, with the simulation `finn2017`. Ours: -46.1 / 295.1 / 290.9 / 295.0, with seed 1 -46.1 / 306.4 / 311.6 / 314.0,
with seed 2 -1.2 / 234.0 / 234.2 / 230.2.

First order, lambda and the length of the outer step are not the paper's; docs/results.md has what each is worth. With
the paper's, this job reaches -41.6 / 175.2 / 207.5 / 226.9:

    make submit JOB=cheetah_direction ARGS="algorithm.first_order=false algorithm.gae_lambda=1 \
        algorithm.estimator=loglik outer.max_kl=0.02 outer.stretch=1 outer.backtrack=0.8"
"""

from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.job import Baseline, Evaluation, JobSpec
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.outer.trpo import TRPO
from meta_service.tasks.locomotion import Locomotion

FINE_TUNING = (0.02, 0.1, 0.2, 0.5, 1.0)

job = JobSpec(
    name="cheetah_direction",
    tasks=Locomotion("cheetah", "direction"),
    model=GaussianPolicy(hidden=(100, 100)),
    algorithm=PolicyGradient(inner_lr=0.1, inner_steps=1, gae_lambda=0.9, estimator="lvc", first_order=True),
    outer=TRPO(max_kl=0.2, stretch=0.95, backtrack=0.9),
    iterations=100,
    meta_batch_size=40,
    tasks_per_block=10,
    validate_every=10,
    validation=Evaluation("validation", num_tasks=40, steps=1),
    checkpoint_every=5,
    evaluations=(Evaluation("paper", num_tasks=40, steps=3, headline=1),),
    baselines=(
        Baseline("random", ("iterations=0",), inner_lrs=FINE_TUNING),
        Baseline("pretrained", ("algorithm.inner_steps=0",), 60, FINE_TUNING, "rllib"),
        Baseline("oracle", ("algorithm.inner_steps=0", "tasks.oracle=true"), 60, (0.001,), "rllib"),
    ),
)
