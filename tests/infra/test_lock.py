"""The locks can be installed with hashes anywhere: complete, exact, and without an address."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-cpu.lock", "requirements-cuda.lock", "requirements-dev.lock")
BENCH = "requirements-bench.lock"
HEAD = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^\s;]+)(?: ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def pins(name: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        if match := HEAD.match(line):
            assert match[1] not in found, f"{match[1]} twice"
            found[match[1]] = match[2]
    return found


@pytest.mark.parametrize("name", [*LOCKS, BENCH])
def test_every_line_is_an_exact_pin_or_a_hash_so_nothing_else_and_no_address_stands_there(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert lines
    assert [line for line in lines if not HEAD.match(line) and not HASH.match(line)] == []


@pytest.mark.parametrize("name", [*LOCKS, BENCH])
def test_every_pin_has_a_hash(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert not HEAD.match(line) or HASH.match(following), line


def test_the_lock_keeps_to_every_version_required() -> None:
    locked = pins("requirements.lock")
    required = re.findall(r"^([a-z0-9-]+)(?:\[.*?\])?==(\S+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert len(required) >= 6
    assert {name: locked.get(name) for name, _ in required} == dict(required)


def test_every_package_asked_for_is_locked() -> None:
    for source, locks in (
        ("requirements.in", LOCKS[:1]),
        ("requirements-dev.in", LOCKS),
        ("requirements-bench.in", (BENCH,)),
    ):
        names = re.findall(r"^([a-z0-9-]+)", (ROOT / source).read_text(), re.MULTILINE)
        locked = set().union(*(pins(lock) for lock in locks))
        assert set(names) <= locked


def test_the_lock_has_no_cuda_package_and_the_cuda_lock_nothing_else() -> None:
    cuda = re.compile(r"nvidia-|cuda-|triton$")
    assert [name for name in pins("requirements.lock") if cuda.match(name)] == []
    assert [name for name in pins("requirements-cuda.lock") if not cuda.match(name)] == []


def test_torch_may_be_either_build() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entry = lock[lock.index("\ntorch==") :].split("\n", 2)[2]
    hashes = set(re.findall(r"sha256:\w+", entry[: re.search(r"^\S", entry, re.MULTILINE).start()]))  # type: ignore[union-attr]
    cpu = set(re.findall(r"sha256:\w+", (ROOT / "requirements-cpu.lock").read_text()))
    assert cpu
    assert cpu < hashes
    assert pins("requirements-cpu.lock") == {"torch": f"{pins('requirements.lock')['torch']}+cpu"}


@pytest.mark.parametrize("name", ["requirements-dev.lock", BENCH])
def test_the_locks_for_development_and_benchmark_add_to_the_lock_and_repeat_nothing(name: str) -> None:
    assert not pins(name).keys() & pins("requirements.lock").keys()


@pytest.mark.parametrize(("name", "floor"), [("mlflow", (3, 17, 0)), ("ray", (2, 56)), ("torch", (2, 10, 0))])
def test_versions_are_above_their_security_floors(name: str, floor: tuple[int, ...]) -> None:
    assert tuple(map(int, pins("requirements.lock")[name].split("."))) >= floor
