"""Omniglot classification without convolutions, 5-way: Table 1 of the paper, 89.7 +- 1.1 % (1-shot), 97.5 +- 0.6 %.

make submit JOB=omniglot_mlp
make submit JOB=omniglot_mlp ARGS="tasks.shots=5"
"""

from dataclasses import replace

from jobs import omniglot
from meta_service.models.mlp import MLP

job = replace(omniglot.job, name="omniglot_mlp", model=MLP(hidden=(256, 128, 64, 64), batch_norm=True))

space, tune = omniglot.space, omniglot.tune
