"""The benchmark of fewer bits rounds as the hardware does, on all ways back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.precision import RoundedConvolutions, main, meta_gradient, rounded, rows
from tests.meta_service.test_maml import POOLED, job_of, theta_of

BLOCKS = [[3, 4], [5]]


def test_eight_bits_are_bfloat16_s() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    assert torch.equal(rounded(x, 8), x.bfloat16().float())


def test_all_bits_change_nothing_of_a_meta_gradient_and_fewer_do() -> None:
    job = replace(job_of(POOLED, inner_steps=2), vectorize="loop")
    theta = theta_of(job)
    exact = meta_gradient(job, theta, BLOCKS, torch.float64)
    errors = []
    for bits in (53, 24, 11):
        with RoundedConvolutions(bits):
            errors.append(np.linalg.norm(meta_gradient(job, theta, BLOCKS, torch.float64) - exact))
    assert errors[0] < 1e-12 * np.linalg.norm(exact)  # the bias is added elsewhere
    assert 1e3 * errors[0] < errors[1] < errors[2]


def test_rounded_hessian_products_are_nearer_than_rounded_activations() -> None:
    job = job_of(POOLED, inner_steps=2)
    found = rows(job, theta_of(job), BLOCKS)
    assert found["float32"][0] < found["precision=bf16"][0] < found["bfloat16 in all convolutions"][0]
    assert found["precision=bf16"][1] > 0.999


def test_a_job_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
