"""A block's numbers do not depend on how it is computed, and a curve is what adapting step by step gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from meta_service.job import Evaluation, JobSpec
from meta_service.learner import Learner, loss_of
from meta_service.models.conv4 import Conv4
from meta_service.params import flatten
from tests.meta_service.tiny import TinyImages

JOB = JobSpec("tiny", TinyImages(double=False), Conv4(filters=4))
SEEDS = [5, 6, 7]


def test_the_same_block_gives_the_same_bits_twice() -> None:
    learner, theta = Learner(JOB), JOB.init().params
    first, second = (flatten(learner.meta_gradient(theta, SEEDS).grads) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_tasks_drawn_in_advance_give_the_same_bits_and_are_kept_for_one_block_and_one_use() -> None:
    learner, theta = Learner(JOB), JOB.init().params
    expected = flatten(learner.meta_gradient(theta, SEEDS).grads)
    learner.prepare([1, 2])
    learner.prepare(SEEDS)
    assert list(learner.drawn) == [tuple(SEEDS)]
    assert flatten(learner.meta_gradient(theta, SEEDS).grads).tobytes() == expected.tobytes()
    assert not learner.drawn


def test_the_loss_of_a_block_is_the_sum_over_its_tasks() -> None:
    learner, theta = Learner(JOB), JOB.init().params
    alone = sum(learner.meta_gradient(theta, [seed]).loss for seed in SEEDS)
    assert learner.meta_gradient(theta, SEEDS).loss == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("vectorize", ["adjoint", "vmap", "loop"])
def test_a_curve_has_the_metric_after_each_inner_step_on_the_same_query_set(vectorize: str) -> None:
    job = replace(JOB, vectorize=vectorize)  # type: ignore[arg-type]
    theta = job.init().params
    curves = Learner(job).curves(theta, SEEDS, "test", Evaluation("e", steps=3), inner_lr=0.2)
    algorithm, loss = replace(job.algorithm, inner_lr=0.2), loss_of(job, job.tasks)
    expected = np.empty((3, 4))
    for row, seed in enumerate(SEEDS):
        support, query = job.tasks.sample(seed, "test")
        adapted = theta
        for step in range(4):
            logits = job.model.apply(adapted, *query.inputs)
            expected[row, step] = float((logits.argmax(1) == query.targets).float().mean())
            adapted = algorithm.inner_step(loss, adapted, support)
    np.testing.assert_allclose(curves, expected, atol=1e-6)


def test_an_evaluation_can_ask_for_other_shots_and_queries_than_training() -> None:
    tasks = Evaluation("e", shots=4, query_shots="shots", transductive=False).tasks_of(JOB.tasks)
    assert tasks == replace(JOB.tasks, shots=4, query_shots=4, transductive=False)  # type: ignore[type-var]


def test_a_learner_computes_with_one_thread_because_their_number_changes_bits() -> None:
    torch.set_num_threads(2)
    Learner(JOB)
    assert torch.get_num_threads() == 1
