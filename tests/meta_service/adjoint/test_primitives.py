"""The compiled loops give what torch gives; and the losses' derivatives are torch's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad
from torch.nn import functional as F

from meta_service.adjoint import native, primitives
from meta_service.losses import CrossEntropy, OutputLoss, SquaredError

SHAPES = [(2, 3, 5, 7, 6), (1, 4, 2, 2, 33), (3, 2, 1, 1, 8), (2, 70, 3, 2, 3)]
ROOT = Path(__file__).resolve().parents[3]

compiled = pytest.mark.skipif(native.library() is None, reason=native.missing() or "the loops are compiled")


def values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@compiled
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pool", [False, True], ids=["every pixel", "pooled"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_compiled_loop_equals_its_reference(shape: tuple[int, ...], pool: bool, dtype: torch.dtype) -> None:
    if pool and min(shape[2:4]) < 2:
        pool = False
    tasks, images, *_, channels = shape
    tolerance = {"rtol": 1e-11, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}

    def same(ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs, **tolerance)

    z, dz = values(*shape, dtype=dtype) + 3, values(*shape, seed=1, dtype=dtype)
    shift, dshift, a, b, c = values(5, tasks, channels, seed=2, dtype=dtype)
    reference = images - 1
    for ours, theirs in zip(native.statistics(z, reference), primitives.statistics(z, reference), strict=True):
        same(ours, theirs)
    mean, rstd = native.statistics(z, images)
    p, place = native.activate(z, mean, rstd, shift, pool)
    p_reference, place_reference = primitives.activate(z, mean, rstd, shift, pool)
    same(p, p_reference)
    g, dg = values(*p.shape, seed=3, dtype=dtype), values(*p.shape, seed=4, dtype=dtype)
    gy, total, dot = native.masked(g, p, shift)
    for ours, theirs in zip((gy, total, dot), primitives.masked(g, p, shift), strict=True):
        same(ours, theirs)
    along = native.tangent_statistics(z, dz, mean, rstd)
    for ours, theirs in zip(along, primitives.tangent_statistics(z, dz, mean, rstd), strict=True):
        same(ours, theirs)
    dp = native.activate_tangent(dz, p, place, rstd, shift, *along, dshift)
    same(dp, primitives.activate_tangent(dz, p, place_reference, rstd, shift, *along, dshift))
    for ours, theirs in zip(
        native.masked_tangent(dg, gy, p, dp, shift, dshift),
        primitives.masked_tangent(dg, gy, p, dp, shift, dshift),
        strict=True,
    ):
        same(ours, theirs)
    for tangent, factor, s, f in ((None, None, None, None), (dz, c, a, gy)):
        same(
            native.spread(z, tangent, a, b, factor, rstd, g, s, f, place, reference),
            primitives.spread(z, tangent, a, b, factor, rstd, g, s, f, place_reference, reference),
        )


@compiled
@pytest.mark.parametrize(("size", "stride"), [((5, 7), 1), ((8, 6), 2), ((7, 5), 2), ((1, 1), 1)])
def test_folding_patches_equals_its_reference(size: tuple[int, int], stride: int) -> None:
    height, width = size
    h, w = (height - 1) // stride + 1, (width - 1) // stride + 1
    patches = values(3, h, w, 3, 3, 4)
    out = patches.new_empty(3, height, width, 4)
    native.fold(patches, stride, out)
    torch.testing.assert_close(out, primitives.fold(patches, height, width, stride))


@pytest.mark.parametrize("do", [pytest.param(native, marks=compiled), primitives], ids=["compiled", "torch"])
def test_what_is_not_a_number_is_not_repaired_on_the_way(do: object) -> None:
    z = values(1, 2, 2, 2, 3)
    z[0, 1, 1, 0, 2] = torch.nan
    mean, rstd = do.statistics(z, 2)  # type: ignore[attr-defined]
    p, _ = do.activate(z, mean, rstd, torch.zeros(1, 3).double(), False)  # type: ignore[attr-defined]
    assert p[..., 2].isnan().all()
    assert p[..., :2].isfinite().all()


def test_without_a_compiler_torch_computes_and_the_reason_is_one_line(tmp_path: Path) -> None:
    program = (
        "import torch; from meta_service.adjoint import native; print(native.suits(torch.zeros(1)), native.missing())"
    )
    environment = os.environ | {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "False no C compiler was found (cc, gcc or clang)\n"
    assert run.stderr == ""


def test_a_compiler_that_fails_is_named_with_its_first_line(tmp_path: Path) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\necho 'cc: no space left' >&2\necho more >&2\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    program = "from meta_service.adjoint import native; print(native.library(), native.missing())"
    environment = os.environ | {"CC": str(tmp_path / "cc"), "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == f"None {tmp_path / 'cc'} failed: cc: no space left\n"


@pytest.mark.parametrize(
    ("loss", "theirs", "targets"),
    [
        (SquaredError(), F.mse_loss, values(4, 3, seed=1)),
        (CrossEntropy(), F.cross_entropy, torch.tensor([0, 2, 1, 1])),
        (CrossEntropy(2), lambda o, y: F.cross_entropy(o, y, reduction="sum") / 2, torch.tensor([0, 2, 1, 1])),
    ],
    ids=["squared error", "cross-entropy", "cross-entropy over shots"],
)
def test_a_loss_and_its_derivatives_are_torch_s(loss: OutputLoss, theirs: object, targets: Tensor) -> None:
    outputs, direction = values(4, 3), values(4, 3, seed=2)

    def value(o: Tensor) -> Tensor:
        return theirs(o, targets)  # type: ignore[operator, no-any-return]

    torch.testing.assert_close(loss.value(outputs, targets), value(outputs))
    torch.testing.assert_close(loss.gradient(outputs, targets), grad(value)(outputs))
    ahead, behind = (grad(value)(outputs + e * direction) for e in (1e-6, -1e-6))
    torch.testing.assert_close(
        loss.curvature(outputs, targets, direction), (ahead - behind) / 2e-6, atol=1e-8, rtol=1e-6
    )
