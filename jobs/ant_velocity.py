"""Ant, to run at the velocity each task says; section 5.3: Figure 5 of the paper.

    make submit JOB=ant_velocity

Return after 0 / 1 / 2 / 3 gradient steps on 40 test tasks: 30.6 / 96.7 / 100.1 / 101.4 in the paper after 375
iterations, its oracle's 107.9, with the simulation `finn2017`. Ours: 9.9 / 50.5 / 54.8 / 57.5 after 24, of 375 in 3
hours of one core.
"""

from dataclasses import replace

from jobs.cheetah_velocity import job as velocity
from meta_service.tasks.locomotion import Locomotion

job = replace(
    velocity,
    name="ant_velocity",
    tasks=Locomotion("ant", "velocity"),
    iterations=375,
)
