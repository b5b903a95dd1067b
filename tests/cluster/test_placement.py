"""How many trials a cluster holds, and which sweeps can never be placed."""

from dataclasses import replace

import pytest

from cluster.sweep.placement import at_once, bundles, capacity
from meta_service.errors import UserError
from meta_service.job import Resources
from tests.meta_service.sweep.tiny import sweep


def test_a_trial_needs_a_bundle_for_itself_and_one_for_each_worker() -> None:
    wanted = sweep("tune.workers=2", "resources.gpus_per_worker=0.5")
    assert bundles(wanted) == [{"CPU": 0.5}, {"CPU": 1, "GPU": 0.5}, {"CPU": 1, "GPU": 0.5}]
    assert bundles(sweep("tune.workers=0")) == [{"CPU": 1}]


@pytest.mark.parametrize(
    ("nodes", "needed", "count"),
    [
        ([{"CPU": 4}], [{"CPU": 0.5}, {"CPU": 1}], 2),
        ([{"CPU": 3}], [{"CPU": 0.5}, {"CPU": 1}], 2),
        ([{"CPU": 2}, {"CPU": 2}], [{"CPU": 0.5}, {"CPU": 1}], 2),
        ([{"CPU": 1}, {"CPU": 1}], [{"CPU": 2}], 0),
        ([{"CPU": 1}, {"CPU": 1}], [{"CPU": 1}, {"CPU": 1}], 1),
        ([{"CPU": 8, "GPU": 1}], [{"CPU": 1}, {"CPU": 1, "GPU": 0.5}], 2),
        ([{"CPU": 8}], [{"CPU": 1}, {"CPU": 1, "GPU": 0.5}], 0),
        ([], [{"CPU": 1}], 0),
    ],
)
def test_bundles_are_packed_onto_nodes(
    nodes: list[dict[str, float]], needed: list[dict[str, float]], count: int
) -> None:
    assert capacity(nodes, needed) == count


def test_trials_at_once_are_those_that_fit_and_a_quarter_of_all_at_most() -> None:
    wanted = replace(sweep(), tune=replace(sweep().tune, concurrent=None, trials=16))
    assert at_once(wanted, [{"CPU": 4.0}]) == 2
    assert at_once(wanted, [{"CPU": 64.0}]) == 4
    assert at_once(sweep("tune.concurrent=7"), [{"CPU": 4.0}]) == 7


@pytest.mark.parametrize(
    "assignments", [["tune.workers=9"], ["resources.cpus_per_worker=5"], ["resources.gpus_per_worker=1"]]
)
def test_a_sweep_that_can_never_be_placed_is_refused_with_what_there_is(assignments: list[str]) -> None:
    wanted = replace(sweep(*assignments), job=replace(sweep(*assignments).job))
    with pytest.raises(UserError, match=r"a trial needs 1 x \(0.5 CPU\) \+ .*in a cluster of 1 x \(4 CPU\); lower"):
        at_once(wanted, [{"CPU": 4.0}])


def test_resources_are_the_job_s() -> None:
    wanted = sweep()
    assert bundles(replace(wanted, job=replace(wanted.job, resources=Resources(cpus_per_worker=2))))[1] == {"CPU": 2}
