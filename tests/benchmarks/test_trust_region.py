"""The benchmark of the trust region judges a step by tasks it has not seen, too."""

import math
from dataclasses import replace

import pytest

from benchmarks.trust_region import main, seen
from jobs.navigation import job
from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.dotted import override
from meta_service.models.gaussian_policy import GaussianPolicy
from meta_service.outer.trpo import TRPO
from meta_service.tasks.navigation import Navigation

SHORT = replace(
    job,
    tasks=Navigation(shots=4, horizon=10),
    model=GaussianPolicy((8, 8)),
    algorithm=PolicyGradient(inner_lr=0.5),
    meta_batch_size=4,
    tasks_per_block=2,
)


def test_a_step_gains_on_its_own_tasks_within_the_bound_and_something_else_on_others() -> None:
    found = seen(SHORT, SHORT.init().params, others=6)
    assert found.gain > 0
    assert 0 < found.kl <= SHORT.outer.max_kl  # type: ignore[attr-defined]
    assert found.on_others.value not in (0.0, found.gain)
    assert found.on_others.error > 0
    assert found.by_lvc.value not in (0.0, found.on_others.value)
    assert -1 < found.cosine < 1


def test_the_meta_gradient_is_its_first_order_part_and_the_hessian_s() -> None:
    params = SHORT.init().params
    second, first = (seen(override(SHORT, [f"algorithm.first_order={it}"]), params, 4) for it in ("false", "true"))
    assert second.length > 0
    assert -1 < second.hessian < 1
    assert second.first == first.first == first.cosine != second.cosine
    assert first.length == 0
    assert math.isnan(first.hessian)


def test_a_longer_step_gains_more_on_its_own_tasks() -> None:
    params = SHORT.init().params
    long, short = (seen(replace(SHORT, outer=TRPO(max_kl)), params, 4).gain for max_kl in (0.02, 0.002))
    assert long > short


def test_lvc_judges_a_step_of_its_own_as_it_does_itself() -> None:
    found = seen(override(SHORT, ["algorithm.estimator=lvc"]), SHORT.init().params, others=4)
    assert found.by_lvc == found.on_others


def test_a_run_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
