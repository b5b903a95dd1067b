"""2D navigation, section 5.3: Figure 4 of the paper.

    make submit JOB=navigation
    make submit JOB=navigation ARGS="algorithm.estimator=lvc"      another estimator of the meta-gradient
    make submit JOB=navigation ARGS="outer.hvp_eps=0"              exact products with the curvature

Return after 0 / 1 / 2 / 3 gradient steps on the authors' 40 test goals: -40.4 / -11.7 / -3.3 / -3.2 in the paper, its
oracle's -2.3; ours -40.1 / -10.3 / -3.7 / -2.9, and when `navigation_two_steps` has gone on from there -40.1 / -11.1 /
-3.0 / -2.5 (docs/results.md).
"""

from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.job import Baseline, Evaluation, JobSpec
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.outer.trpo import TRPO
from meta_service.tasks.navigation import Navigation

FINE_TUNING = (0.02, 0.1, 0.2, 0.5, 1.0)

job = JobSpec(
    name="navigation",
    tasks=Navigation(shots=40, horizon=100, by_steps=True),
    model=GaussianPolicy(hidden=(100, 100)),
    algorithm=PolicyGradient(inner_lr=0.5, inner_steps=1, first_order=True),
    outer=TRPO(max_kl=0.01, hvp_eps=1.0),
    iterations=100,
    meta_batch_size=20,
    tasks_per_block=10,
    validate_every=10,
    validation=Evaluation("validation", num_tasks=100, steps=2, shots=40),
    checkpoint_every=5,
    evaluations=(
        Evaluation("paper", num_tasks=40, steps=3, headline=1, shots=40, numbered=True),
        Evaluation("drawn", num_tasks=100, steps=3, headline=1, shots=40),
    ),
    baselines=(
        Baseline("random", ("iterations=0",), inner_lrs=FINE_TUNING),
        Baseline("pretrained", ("algorithm.inner_steps=0",), 40, FINE_TUNING, "rllib"),
        Baseline("oracle", ("algorithm.inner_steps=0", "tasks.oracle=true"), 40, (0.001,), "rllib"),
    ),
)
