"""Compiling changes the time and nothing else; where it fails, there is a line and the same result."""

from dataclasses import replace

import pytest
import torch

from meta_service.errors import UserError
from meta_service.learner import Learner
from meta_service.models.mlp import MLP
from tests.meta_service.test_maml import STRIDED, job_of, relative, theta_of

JOB = replace(job_of(MLP(hidden=(4,), init_std=0.3), inner_steps=1), compile=True)
SEEDS = [3, 4]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_a_compiled_block_equals_the_block() -> None:
    theta = theta_of(JOB)
    learner = Learner(JOB)
    expected = Learner(replace(JOB, compile=False)).meta_gradient(theta, SEEDS).grads
    for _ in range(2):
        assert relative(learner.meta_gradient(theta, SEEDS).grads, expected) < 1e-12


def test_a_compiler_that_fails_leaves_one_line_and_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("\nno working C++ compiler\nand much more")

    monkeypatch.setattr(torch, "compile", failing)
    theta, learner = theta_of(JOB), Learner(JOB)
    expected = Learner(replace(JOB, compile=False)).meta_gradient(theta, SEEDS)
    for _ in range(2):
        assert relative(learner.meta_gradient(theta, SEEDS).grads, expected.grads) == 0
    assert caplog.messages == ["not compiled, more slowly but with the same result: no working C++ compiler"]


def test_compiling_a_normalised_network_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"compile: .* leave compile out"):
        replace(job_of(STRIDED), compile=True)
