"""The primitives as fused C loops for CPUs (passes.c), compiled once a machine; the same numbers up to rounding."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from meta_service.adjoint.primitives import EPSILON

SOURCE = Path(__file__).with_name("passes.c")
FLAGS = ("-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno", "-fPIC", "-shared")
TIMEOUT_S = 120.0
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled loops, from this machine's cache or made now (about a second); None where that fails."""
    return _load()[0]


def missing() -> str:
    """Why there is no `library`, in one line; "" where there is one."""
    return _load()[1]


def suits(x: Tensor) -> bool:
    """Whether the loops can do this tensor."""
    return x.device.type == "cpu" and x.dtype in _SUFFIX and library() is not None


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    if os.environ.get("META_NATIVE") == "0":
        return None, "META_NATIVE=0 was set"
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meta_service" / "native"
    target = root / f"{_fingerprint()}.so"
    try:
        if not target.exists():
            if compiler is None:
                return None, "no C compiler was found (cc, gcc or clang)"
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root) as folder:
                made = Path(folder) / target.name
                command = [compiler, *FLAGS, "-o", str(made), str(SOURCE), "-lm"]
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
                made.replace(target)  # whole or not at all: a process killed while it compiles leaves nothing behind
        return ctypes.CDLL(str(target)), ""
    except subprocess.CalledProcessError as error:
        return None, f"{compiler} failed: {(error.stderr.strip().splitlines() or ['no message'])[0]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{type(error).__name__}: {error}"


def _fingerprint() -> str:
    """What the compiled file depends on: source, flags and the processor it is made for."""
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(" ".join((*FLAGS, platform.machine(), *platform.libc_ver())).encode())
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        digest.update("\n".join(sorted({line for line in lines if line.startswith(("flags", "Features"))})).encode())
    return digest.hexdigest()[:24]


def _call(name: str, like: Tensor, *arguments: Tensor | int | float | None) -> None:
    passed: list[object] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            passed.append(ctypes.c_void_p(argument.data_ptr()))
        elif isinstance(argument, float):
            passed.append(ctypes.c_double(argument))
        else:
            passed.append(None if argument is None else ctypes.c_long(argument))
    getattr(library(), f"{name}_{_SUFFIX[like.dtype]}")(*passed)


def statistics(z: Tensor, reference: int) -> tuple[Tensor, Tensor]:
    tasks, images, height, width, channels = z.shape
    mean, rstd = z.new_empty(2, tasks, channels)
    pixels = height * width
    _call("statistics", z, tasks, images * pixels, reference * pixels, channels, EPSILON, z, mean, rstd)
    return mean, rstd


def activate(z: Tensor, mean: Tensor, rstd: Tensor, shift: Tensor, pool: bool) -> tuple[Tensor, Tensor | None]:
    tasks, images, height, width, channels = z.shape
    if not pool:
        p = torch.empty_like(z)
        _call("activate", z, tasks, images * height * width, channels, z, mean, rstd, shift, p)
        return p, None
    p = z.new_empty(tasks, images, height // 2, width // 2, channels)
    place = torch.empty_like(p, dtype=torch.int32)
    _call("activate_pooled", z, tasks, images, height, width, channels, z, mean, rstd, shift, p, place)
    return p, place


def masked(g: Tensor, p: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tasks, channels = shift.shape
    gy, (total, dot) = torch.empty_like(g), g.new_empty(2, tasks, channels)
    _call("masked", g, tasks, _rows(g), channels, g, p, shift, gy, total, dot)
    return gy, total, dot


def masked_tangent(
    dg: Tensor, gy: Tensor, p: Tensor, dp: Tensor, shift: Tensor, dshift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    tasks, channels = shift.shape
    dgy, (total, dot) = torch.empty_like(dg), dg.new_empty(2, tasks, channels)
    _call("masked_tangent", dg, tasks, _rows(dg), channels, dg, gy, p, dp, shift, dshift, dgy, total, dot)
    return dgy, total, dot


def tangent_statistics(z: Tensor, dz: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    tasks, channels = mean.shape
    mean_dz, along = z.new_empty(2, tasks, channels)
    _call("tangent_statistics", z, tasks, _rows(z), channels, z, dz, mean, rstd, mean_dz, along)
    return mean_dz, along


def activate_tangent(
    dz: Tensor,
    p: Tensor,
    place: Tensor | None,
    rstd: Tensor,
    shift: Tensor,
    mean_dz: Tensor,
    along: Tensor,
    dshift: Tensor,
) -> Tensor:
    tasks, images, height, width, channels = dz.shape
    dp = torch.empty_like(p)
    if place is None:
        _call("activate_tangent", dz, tasks, _rows(dz), channels, dz, p, rstd, shift, mean_dz, along, dshift, dp)
    else:
        sizes = (tasks, images, height, width, channels)
        _call("activate_tangent_pooled", dz, *sizes, dz, p, place, rstd, shift, mean_dz, along, dshift, dp)
    return dp


def spread(
    z: Tensor,
    dz: Tensor | None,
    a: Tensor,
    b: Tensor,
    c: Tensor | None,
    r: Tensor,
    e: Tensor,
    s: Tensor | None,
    f: Tensor | None,
    place: Tensor | None,
    reference: int,
) -> Tensor:
    out = torch.empty_like(z)
    _call("spread", z, *z.shape, reference, int(place is not None), z, dz, a, b, c, r, e, s, f, place, out)
    return out


def fold(patches: Tensor, stride: int, out: Tensor) -> None:
    """As in `primitives`, into `out`."""
    _, h, w, _, _, _ = patches.shape
    _call("fold", patches, *out.shape, h, w, stride, patches, out)


def _rows(x: Tensor) -> int:
    """N H W of [T, N, H, W, C]."""
    return x.shape[1] * x.shape[2] * x.shape[3]
