"""The outer loop: a function of job and state, that stops at the first sign of trouble."""

from dataclasses import replace

import pytest

import jobs
from meta_service.driver import Diverged, meta_train
from meta_service.evaluation import AdaptationCurve, evaluate
from meta_service.job import Evaluation, JobSpec
from meta_service.objective import MetaGradient
from meta_service.pool import LocalPool
from meta_service.state import MetaState

SHORT = replace(
    jobs.find("sinusoid"),
    iterations=20,
    meta_batch_size=8,
    tasks_per_block=3,
    validate_every=10,
    validation=Evaluation("validation", num_tasks=10, steps=1),
)


class Witness:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.states: list[MetaState] = []
        self.looks: list[int] = []

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        self.states.append(state)

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None:
        self.looks.append(state.iteration)


def train(job: JobSpec, state: MetaState | None = None, stop_at: int | None = None) -> tuple[MetaState, Witness]:
    witness = Witness()
    state = meta_train(job, LocalPool.of(job), state or job.init(), witness, lambda: len(witness.states) == stop_at)
    return state, witness


def test_the_same_job_gives_the_same_digest_twice() -> None:
    assert train(SHORT)[0].sha256() == train(SHORT)[0].sha256()


def test_another_seed_gives_another_digest() -> None:
    assert train(SHORT)[0].sha256() != train(replace(SHORT, seed=1))[0].sha256()


@pytest.mark.parametrize("stop_at", [1, 7, 10, 19])
def test_a_run_that_was_stopped_and_continued_ends_with_the_same_digest(stop_at: int) -> None:
    half, _ = train(SHORT, stop_at=stop_at)
    assert half.iteration == stop_at
    whole, _ = train(SHORT, state=half)
    assert whole.sha256() == train(SHORT)[0].sha256()


def test_validation_is_looked_at_first_then_regularly_then_last() -> None:
    assert train(SHORT)[1].looks == [0, 10, 20]


def test_divergence_stops_the_run_with_job_iteration_and_seed_and_leaves_theta_alone() -> None:
    job = replace(SHORT, algorithm=replace(SHORT.algorithm, inner_lr=1e30))
    witness = Witness()
    with pytest.raises(Diverged, match=r"job sinusoid \(seed 0\) at iteration \d+ is not finite.*algorithm.inner_lr"):
        meta_train(job, LocalPool.of(job), job.init(), witness)
    assert all(bool(value.isfinite().all()) for state in witness.states for value in state.params.values())


def test_meta_training_makes_one_step_of_adaptation_worth_more() -> None:
    job = replace(SHORT, iterations=2000, meta_batch_size=25, tasks_per_block=25, validate_every=1000)
    state, _ = train(job)
    curve = evaluate(job, LocalPool.of(job), state.params, Evaluation("5-shot", num_tasks=200, shots=5), "test")
    assert curve.mean[0] > 2.5  # no theta fits all sinusoids at once
    assert curve.mean[1] < 0.6 * curve.mean[0]


def test_the_confidence_interval_is_196_standard_errors() -> None:
    pool = LocalPool.of(SHORT)
    theta, evaluation = SHORT.init().params, Evaluation("e", num_tasks=50, steps=2)
    curve = evaluate(SHORT, pool, theta, evaluation, "test")
    values = pool.curves(theta, SHORT.blocks("test", 0, 50), "test", evaluation)
    assert values.shape == (50, 3)
    assert curve.mean == pytest.approx(values.mean(0))
    assert curve.ci95 == pytest.approx(1.96 * values.std(0) / 50**0.5)


def test_numbered_test_tasks_are_the_same_for_every_run() -> None:
    pool, theta = LocalPool.of(SHORT), SHORT.init().params
    evaluation = Evaluation("e", num_tasks=10, steps=1, numbered=True)
    curve = evaluate(SHORT, pool, theta, evaluation, "test")
    assert curve == evaluate(replace(SHORT, seed=1), pool, theta, evaluation, "test")
    assert curve.conditions["seeds"] == "0 to 9"
    assert curve.mean == pytest.approx(pool.curves(theta, [list(range(10))], "test", evaluation).mean(0))
    assert SHORT.blocks_of(evaluation, "validation") == SHORT.blocks("validation", 0, 10)


def test_the_step_size_is_chosen_on_validation_tasks() -> None:
    pool, theta = LocalPool.of(SHORT), SHORT.init().params
    lrs = (1e-5, 0.05, 10.0)
    chosen = evaluate(SHORT, pool, theta, Evaluation("e", num_tasks=50, steps=5, inner_lrs=lrs), "test")
    errors = {
        lr: evaluate(
            replace(SHORT, algorithm=replace(SHORT.algorithm, inner_lr=lr)),
            pool,
            theta,
            Evaluation("e", num_tasks=50, steps=5),
            "validation",
        ).after
        for lr in lrs
    }
    assert chosen.conditions["inner_lr"] == min(errors, key=lambda lr: errors[lr])
