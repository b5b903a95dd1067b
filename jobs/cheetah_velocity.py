"""HalfCheetah, to run at the velocity each task says; section 5.3: Figure 5 of the paper.

    make submit JOB=cheetah_velocity

Return after 0 / 1 / 2 / 3 gradient steps on 40 test tasks: -129.5 / -78.6 / -66.6 / -60.8 in the paper after 475
iterations, its oracle's -54.5, with the simulation `finn2017`. Ours at second order: -122.7 / -91.4 / -79.5 / -79.5
after 200, and no better by 252; at first order, twice as quick so far, -141.6 / -107.1 / -99.2 / -98.0 after 40
(docs/results.md).
"""

from dataclasses import replace

from jobs.cheetah_direction import job as direction
from meta_service.outer.trpo import TRPO
from meta_service.tasks.locomotion import Locomotion

job = replace(
    direction,
    name="cheetah_velocity",
    tasks=Locomotion("cheetah", "velocity"),
    outer=TRPO(max_kl=0.1, stretch=0.95, backtrack=0.9),
    iterations=475,
)
