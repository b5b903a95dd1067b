"""Divides uv's output into the locks that pip installs; lock.sh says why there are three."""

import hashlib
import re
import sys
from pathlib import Path

CUDA = re.compile(r"nvidia-|cuda-|triton==")
ELSEWHERE = re.compile(r"; *(python_full_version >= '3\.12'|sys_platform == '(win32|emscripten)')")
ALWAYS = re.compile(r" ; python_full_version < '[0-9.]+'$|python_full_version < '[0-9.]+' and ")
HASH = re.compile(r"sha256:[0-9a-f]{64}")


def entries(lock: Path) -> dict[str, str]:
    """`name==version ; marker` -> the lines of its hashes."""
    text = lock.read_text() if lock.exists() else ""
    found = re.findall(r"^(\S+==[^\\\n]*?) *\\\n((?:    --hash=.*\n)+)", text, re.MULTILINE)
    # Linux and Python 3.11 are what runs: entries for others go, and so does what is always true of these.
    return {ALWAYS.sub("", head): body for head, body in found if not ELSEWHERE.search(head)}


def write(path: str, chosen: dict[str, str]) -> None:
    """Write one lock, in the order uv gave it."""
    Path(path).write_text("".join(f"{head} \\\n{body}" for head, body in chosen.items()))


def hash_lines(hashes: set[str]) -> str:
    """The hashes of one requirement, as pip reads them."""
    return " \\\n".join(f"    --hash={value}" for value in sorted(hashes)) + "\n"


def main(run_file: str, dev_file: str, bench_file: str, *wheels: str) -> None:
    """Write the five locks."""
    run, dev, bench = (entries(Path(file)) for file in (run_file, dev_file, bench_file))
    torch = next(head for head in run if head.startswith("torch=="))
    # A machine that does not see the CPU wheel keeps the hash that one which saw it has found.
    cpu = set(HASH.findall(entries(Path("requirements-cpu.lock")).get(f"{torch}+cpu", "")))
    cpu.update(f"sha256:{hashlib.sha256(Path(wheel).read_bytes()).hexdigest()}" for wheel in wheels)
    run[torch] = hash_lines({*HASH.findall(run[torch]), *cpu})
    write("requirements-cpu.lock", {f"{torch}+cpu": hash_lines(cpu)} if cpu else {})
    write("requirements.lock", {head: body for head, body in run.items() if not CUDA.match(head)})
    write("requirements-cuda.lock", {head: body for head, body in run.items() if CUDA.match(head)})
    write("requirements-dev.lock", {head: body for head, body in dev.items() if head not in run})
    write("requirements-bench.lock", {head: body for head, body in bench.items() if head not in run})


if __name__ == "__main__":
    main(*sys.argv[1:])
