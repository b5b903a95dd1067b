"""2D navigation, judged after each of two gradient steps: goes on where `navigation` has come to.

    make submit JOB=navigation
    make submit JOB=navigation_two_steps ARGS="start_from=RUN"     RUN: the name that the first command printed

Return after 0 / 1 / 2 / 3 gradient steps on the authors' 40 test goals: -40.1 / -11.1 / -3.0 / -2.5; in the paper
-40.4 / -11.7 / -3.3 / -3.2 (docs/results.md).
"""

from dataclasses import replace

from jobs.navigation import job as navigation
from meta_service.algorithms.policy_gradient import PolicyGradient

job = replace(
    navigation,
    name="navigation_two_steps",
    algorithm=PolicyGradient(inner_lr=0.5, inner_steps=2, loss_weights=(3, 1)),
    iterations=50,
    validate_every=5,
    baselines=(),
)
