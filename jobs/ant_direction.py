"""Ant, to run forward or backward as each task says; section 5.3: Figure 5 of the paper.

    make submit JOB=ant_direction

Return after 0 / 1 / 2 / 3 gradient steps on 40 test tasks: 9 / 499 / 501 / 499 in the paper with 40 trajectories a task
and 575 iterations (13 / 434 / 426 / 412 with 20), its oracle's 524.8, with the simulation `finn2017`.
Those iterations are 18 hours of one core at second order; here only seven were run.
"""

from dataclasses import replace

from jobs.cheetah_velocity import job as velocity
from meta_service.tasks.locomotion import Locomotion

job = replace(
    velocity,
    name="ant_direction",
    tasks=Locomotion("ant", "direction", shots=40),
    iterations=575,
)
