"""Where the contenders compute: on CPU cores, or (`--device cuda`) on one GPU, all in float32 without TF32.

Not run on a GPU yet: no machine of this project had one. Imports torch only where it is used.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "BENCH_DEVICE"
NAMES = ("cpu", "cuda")


def choose(name: str) -> None:
    """For this process and those it starts."""
    os.environ[VARIABLE] = name


def device() -> str:
    return os.environ.get(VARIABLE, "cpu")


def on_gpu() -> bool:
    return device() == "cuda"


def gpu() -> str:
    """Its name."""
    import torch

    return torch.cuda.get_device_name(0) if on_gpu() else "none used"


def here(array: Any) -> "Tensor":
    """A NumPy array as a tensor on the device."""
    import torch

    return torch.from_numpy(array).to(device())


def exactly() -> None:
    """Float32 is float32 for everybody."""
    if on_gpu():
        import torch

        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def settle() -> None:
    """Waits for what a GPU was asked to do."""
    if on_gpu():
        import torch

        torch.cuda.synchronize()


def reset_peak() -> None:
    if on_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_mb() -> float:
    """The most that this process held on the GPU since `reset_peak`."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**20
