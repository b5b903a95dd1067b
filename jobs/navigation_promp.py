"""2D navigation with proximal meta-policy search (Rothfuss et al. 2019) in place of TRPO.

    make submit JOB=navigation_promp

Settings of that paper: the low-variance curvature estimator, PPO's clipping at 0.3, a penalty of 5e-4 on the divergence
of theta from the policy that acted, five steps of Adam a meta-batch.
"""

from dataclasses import replace

from jobs.navigation import job as navigation
from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.outer.promp import ProMP
from meta_service.tasks.navigation import Navigation

job = replace(
    navigation,
    name="navigation_promp",
    tasks=Navigation(shots=20, horizon=100),
    algorithm=PolicyGradient(inner_lr=0.5, estimator="lvc", clip=0.3, inner_kl=5e-4),
    outer=ProMP(meta_lr=1e-3, epochs=5),
    meta_batch_size=40,
)
