"""The memory of a process and its children as Linux counts it."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
SCARCE_MB = 4000.0
WORKER = "ray::TaskWorker"


def peak_mb() -> float:
    """The most this process held resident since `reset_peak`; with Ray workers below it: the largest of them."""
    workers = [pid for pid in _descendants(os.getpid()) if _name(pid).startswith(WORKER[:15])]
    return max(_field(f"/proc/{pid}/status", "VmHWM") for pid in workers or [os.getpid()])


def reset_peak() -> None:
    with suppress(OSError):  # where the kernel does not allow it, the peak is that since the start
        Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Frees what the allocator keeps."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def give_back_if_scarce() -> bool:
    """Frees it where other sleeping contenders need the room; whether it did."""
    if _field("/proc/meminfo", "MemAvailable") > SCARCE_MB:
        return False
    give_back()
    return True


def _field(file: str, name: str) -> float:
    """A field given in kB, in MB; 0 where it is missing."""
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1]) / 1024
    return 0.0


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        with suppress(OSError, ValueError):
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
