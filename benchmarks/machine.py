"""What a figure depends on besides the code: the machine and the versions."""

import os
import platform
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

from benchmarks.device import gpu
from benchmarks.process import PEERS, ROOT

OURS = ("torch", "ray", "numpy")
THEIRS = ("learn2learn", "higher", "torchopt", "jax")


def about(command: str) -> dict[str, str]:
    """Machine, versions, revision and command."""
    found = {
        "command": command,
        "revision": _git("describe", "--always", "--dirty"),
        "processor": _line("/proc/cpuinfo", "model name"),
        "vector instructions": " ".join(
            name for name in _line("/proc/cpuinfo", "flags").split() if name.startswith(("avx", "amx"))
        ),
        "GPU": gpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(_line('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    return found | {name: version(name) for name in OURS} | _peers()


def _peers() -> dict[str, str]:
    found = {package.metadata["Name"].lower(): package.version for package in distributions(path=[str(PEERS)])}
    return {name: found[name] for name in THEIRS if name in found}


def _line(file: str, name: str) -> str:
    """What stands behind a name in one of Linux's files; "0 unknown" where it does not."""
    if Path(file).exists():
        for line in Path(file).read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "0 unknown"


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
