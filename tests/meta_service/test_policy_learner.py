"""A block of policies, and the outer updates: functions of theta and seeds, within their bounds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import jobs
from meta_service.algorithms.maml import MAML
from meta_service.algorithms.policy_gradient import PolicyGradient
from meta_service.driver import meta_train
from meta_service.errors import UserError
from meta_service.evaluation import AdaptationCurve, best_of, evaluate
from meta_service.job import Evaluation, JobSpec
from meta_service.objective import MetaGradient
from meta_service.outer.adam import Adam
from meta_service.outer.promp import ProMP
from meta_service.outer.trpo import TRPO, conjugate_gradients
from meta_service.params import Params, add_scaled, norm, sha256
from meta_service.policy_learner import PolicyLearner
from meta_service.pool import LocalPool
from meta_service.state import MetaState
from meta_service.tasks.navigation import Navigation
from tests.meta_service.rl.test_rollout import Unstable

SHORT = replace(
    jobs.find("navigation"),
    tasks=Navigation(shots=5, horizon=15),
    algorithm=PolicyGradient(inner_lr=0.5),
    iterations=3,
    meta_batch_size=5,
    tasks_per_block=2,
    validate_every=3,
    validation=Evaluation("validation", num_tasks=4, steps=1),
    evaluations=(Evaluation("paper", num_tasks=4, steps=2),),
)


class Witness:
    def __init__(self) -> None:
        self.means: list[MetaGradient] = []

    def stepped(self, state: MetaState, mean: MetaGradient) -> None:
        self.means.append(mean)

    def validated(self, state: MetaState, curve: AdaptationCurve) -> None: ...


def train(job: JobSpec) -> tuple[MetaState, list[MetaGradient]]:
    witness = Witness()
    return meta_train(job, LocalPool.of(job), job.init(), witness), witness.means


def off_the_kinks() -> Params:
    """Biases of zero leave every unit at its kink at the start, which is (0, 0); float64."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: value.double() + 0.1 * torch.randn(value.shape, generator=generator).double()
        for name, value in SHORT.init().params.items()
    }


@pytest.mark.parametrize("hvp_eps", [0.0, 1.0])
def test_trpo_keeps_its_bound_and_lowers_the_surrogate_at_every_update(hvp_eps: float) -> None:
    _, means = train(replace(SHORT, iterations=6, outer=TRPO(max_kl=0.01, hvp_eps=hvp_eps)))
    assert all(0 < mean.facts["kl"] <= 0.01 for mean in means)
    assert all(mean.facts["surrogate_gain"] > 0 for mean in means)


def test_where_no_step_keeps_the_bound_theta_stays_as_it_is() -> None:
    job = replace(SHORT, outer=TRPO(max_kl=0.01, stretch=1e6, max_backtracks=1), iterations=1)
    state, means = train(job)
    assert state.iteration == 1
    assert sha256(state.params) == sha256(job.init().params)
    assert means[0].facts["step_accepted"] == 0


def test_the_divergence_of_a_small_step_is_half_its_product_with_the_curvature() -> None:
    learner, seeds, theta = PolicyLearner(SHORT), SHORT.blocks("train", 0, 2)[0], off_the_kinks()
    step = learner.meta_gradient(theta, seeds).grads
    step = {name: 1e-6 / norm(step) * value for name, value in step.items()}
    product = learner.curvature(theta, seeds, step)
    expected = 0.5 * sum(float((step[name] * product[name]).sum()) for name in step)
    assert learner.value(theta, seeds, add_scaled(theta, step, 1.0)).kl == pytest.approx(
        expected, rel=1e-3
    )  # between the kinks of the ReLUs
    assert learner.value(theta, seeds, theta).kl == pytest.approx(0, abs=1e-14)


def test_a_product_that_reaches_nowhere_far_is_the_exact_one() -> None:
    learner, seeds, theta = PolicyLearner(SHORT), SHORT.blocks("train", 0, 2)[0], off_the_kinks()
    vector = learner.meta_gradient(theta, seeds).grads
    near, exact = learner.curvature(theta, seeds, vector, 1e-6), learner.curvature(theta, seeds, vector)
    assert norm(add_scaled(near, exact, -1.0)) < 1e-5 * norm(exact)


def test_a_product_that_reaches_far_is_the_difference_of_two_slopes_of_the_divergence() -> None:
    learner, seeds, theta = PolicyLearner(SHORT), SHORT.blocks("train", 0, 2)[0], off_the_kinks()
    vector, reach, h = learner.meta_gradient(theta, seeds).grads, 0.3, 1e-7  # between the kinks of the ReLUs

    def slope(at: float) -> float:  # of the divergence along vector, at theta + at * vector
        ahead, behind = (learner.value(theta, seeds, add_scaled(theta, vector, at + d)).kl for d in (h, -h))
        return (ahead - behind) / (2 * h)

    product = learner.curvature(theta, seeds, vector, reach)
    along = sum(float((vector[name] * product[name]).sum()) for name in vector)
    assert along == pytest.approx((slope(reach) - slope(-reach)) / (2 * reach), rel=1e-4)


@pytest.mark.parametrize("hvp_eps", [0.0, 2.0])
def test_trpo_s_products_reach_as_far_as_its_field_over_the_norm_of_theta(
    hvp_eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[float] = []
    product = PolicyLearner.curvature

    def curvature(self: PolicyLearner, params: Params, seeds: list[int], vector: Params, reach: float) -> Params:
        reached.append(reach)
        return product(self, params, seeds, vector, reach)

    monkeypatch.setattr(PolicyLearner, "curvature", curvature)
    train(replace(SHORT, iterations=1, outer=TRPO(max_kl=0.01, hvp_eps=hvp_eps)))
    assert set(reached) == {hvp_eps / norm(SHORT.init().params)}


def test_conjugate_gradients_solve_a_small_system() -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(6, 6))
    H, b = root @ root.T + np.eye(6), generator.normal(size=6)
    x, squared = conjugate_gradients(lambda v: H @ v, b, 6)
    assert x == pytest.approx(np.linalg.solve(H, b))
    assert squared == pytest.approx(x @ H @ x)


def test_what_is_kept_of_a_block_changes_no_bit_of_an_answer() -> None:
    theta, seeds = SHORT.init().params, SHORT.blocks("train", 0, 2)[0]
    asked = PolicyLearner(SHORT)
    gradient = asked.meta_gradient(theta, seeds).grads
    kept = asked.curvature(theta, seeds, gradient), asked.value(theta, seeds, gradient)
    fresh = PolicyLearner(SHORT).curvature(theta, seeds, gradient), PolicyLearner(SHORT).value(theta, seeds, gradient)
    assert sha256(kept[0]) == sha256(fresh[0])
    assert kept[1] == fresh[1]


def test_another_theta_gathers_its_own_trajectories() -> None:
    learner, seeds = PolicyLearner(SHORT), SHORT.blocks("train", 0, 2)[0]
    theta = SHORT.init().params
    other = {name: value + 0.1 for name, value in theta.items()}
    learner.meta_gradient(theta, seeds)
    assert learner.meta_gradient(other, seeds).loss == PolicyLearner(SHORT).meta_gradient(other, seeds).loss


@pytest.mark.parametrize(
    ("algorithm", "outer"),
    [
        (PolicyGradient(estimator="lvc", clip=0.3, inner_kl=5e-4), ProMP()),
        (PolicyGradient(estimator="dice"), TRPO()),
        (PolicyGradient(inner_steps=2), TRPO()),
        (PolicyGradient(inner_steps=2, loss_weights=(1, 1)), TRPO(hvp_eps=1.0)),
        (PolicyGradient(inner_steps=0), TRPO()),
        (PolicyGradient(first_order=True), Adam()),
    ],
    ids=["promp", "dice", "two steps", "a loss after each of two steps", "pretrained", "first order with Adam"],
)
def test_every_algorithm_trains_and_gives_the_same_digest_twice(algorithm: PolicyGradient, outer: TRPO) -> None:
    job = replace(SHORT, algorithm=algorithm, outer=outer)
    state, _ = train(job)
    assert state.sha256() == train(job)[0].sha256()
    assert sha256(state.params) != sha256(job.init().params)


def test_the_policies_that_acted_are_the_ones_that_the_derivatives_adapt() -> None:
    algorithm = PolicyGradient(inner_steps=3, later_lr=0.3, loss_weights=(1, 1, 1))
    learner, theta, seeds = PolicyLearner(replace(SHORT, algorithm=algorithm)), SHORT.init().params, [3, 4]
    learner.meta_gradient(theta, seeds)
    adapted = learner._block(theta, seeds).adapted
    assert [list(task.queries) for task in adapted] == [[1, 2, 3]] * 2
    assert max(query.kl() for task in adapted for query in task.queries.values()) < 1e-9


def test_promp_s_later_steps_are_on_the_trajectories_of_the_first() -> None:
    learner, theta, seeds = PolicyLearner(SHORT), SHORT.init().params, SHORT.blocks("train", 0, 2)[0]
    one = learner.meta_gradient(theta, seeds, {name: value + 0.01 for name, value in theta.items()})
    assert one.loss == learner.meta_gradient(theta, seeds).loss


def test_unstable_simulations_are_counted_and_nothing_of_them_is_trained_on() -> None:
    job = replace(SHORT, tasks=Unstable(shots=2, horizon=8))
    state, means = train(job)
    assert means[0].facts["unstable"] == 2  # of 4 trajectories a task, before and after
    assert all(bool(value.isfinite().all()) for value in state.params.values())


def test_meta_training_raises_the_return_after_one_step_of_adaptation() -> None:
    job = replace(
        jobs.find("navigation"),
        tasks=Navigation(shots=10, horizon=40),
        algorithm=PolicyGradient(inner_lr=0.5),
        iterations=8,
        meta_batch_size=10,
        tasks_per_block=10,
        outer=TRPO(max_kl=0.03, hvp_eps=1.0),
        validate_every=100,
        validation=Evaluation("validation", num_tasks=20, steps=1),
    )
    pool = LocalPool.of(job)
    before = evaluate(job, pool, job.init().params, job.validation, "test")
    after = evaluate(job, pool, train(job)[0].params, job.validation, "test")
    assert after.mean[1] > before.mean[1] + 3


def test_a_higher_return_is_the_better_one() -> None:
    curves = [AdaptationCurve("return", (0.0, value), (1.0, 1.0), {}) for value in (-9.0, -3.0, -5.0)]
    best = best_of(list(enumerate(curves)))
    assert best is not None
    assert best[0] == 1


def test_steps_after_the_first_are_of_half_the_size_when_testing() -> None:
    learner, theta, seeds = PolicyLearner(SHORT), SHORT.init().params, [3, 4]
    half, full = (
        PolicyLearner(replace(SHORT, algorithm=replace(SHORT.algorithm, later_lr=share)))  # type: ignore[type-var]
        for share in (0.5, 1.0)
    )
    evaluation = Evaluation("e", steps=2, num_tasks=2)
    curves = [one.curves(theta, seeds, "test", evaluation) for one in (learner, half, full)]
    assert np.array_equal(curves[0], curves[1])
    assert np.array_equal(curves[0][:, :2], curves[2][:, :2])
    assert not np.array_equal(curves[0][:, 2], curves[2][:, 2])


def test_an_algorithm_for_other_tasks_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"algorithm: PolicyGradient is expected for tasks that are environments"):
        replace(SHORT, algorithm=MAML())
    sinusoid = jobs.find("sinusoid")
    with pytest.raises(UserError, match="outer: TRPO is for policies"):
        meta_train(replace(sinusoid, outer=TRPO()), LocalPool.of(sinusoid), sinusoid.init(), Witness())


@pytest.mark.parametrize("field", ["inner_lr=0", "later_lr=0", "discount=2", "clip=-1", "inner_kl=-1"])
def test_impossible_settings_of_the_algorithm_are_refused(field: str) -> None:
    name, value = field.split("=")
    with pytest.raises(UserError, match=r"algorithm: .* expected"):
        PolicyGradient(**{name: float(value)})  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (-1.0, 1.0)])
def test_weights_that_do_not_suit_the_inner_steps_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"loss_weights: none are expected, or 2 >= 0 .* came"):
        PolicyGradient(inner_steps=2, loss_weights=weights)


def test_the_torch_threads_of_a_learner_are_one() -> None:
    PolicyLearner(SHORT)
    assert torch.get_num_threads() == 1
