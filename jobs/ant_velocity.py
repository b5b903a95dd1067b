"""Ant, to run at the velocity each task says; section 5.3: Figure 5 of the paper.

    make submit JOB=ant_velocity

Return after 0 / 1 / 2 / 3 gradient steps on 40 test tasks: 30.6 / 96.7 / 100.1 / 101.4 in the paper after 375
iterations, its oracle's 107.9, with the simulation `finn2017`. Ours: 9.8 / 47.7 / 58.4 / 61.1 after 24, of 375 in 5
hours of one core.
"""

from dataclasses import replace

from jobs.cheetah_direction import job as direction
from meta_service.tasks.locomotion import Locomotion

job = replace(
    direction,
    name="ant_velocity",
    tasks=Locomotion("ant", "velocity"),
    iterations=375,
)
