"""The benchmark of the sampler measures what it says."""

from benchmarks.rl_sampler import CONTENDERS, SIMULATIONS
from meta_service.tasks.locomotion import Locomotion


def test_everyone_of_this_project_makes_as_many_steps_as_the_limit() -> None:
    for name in ("limit", "ours", "our vector env"):
        assert CONTENDERS[name](Locomotion(), 2)() == 2 * SIMULATIONS
