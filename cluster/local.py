"""The embedded surroundings of one machine: brought up when needed, found again, taken down without a trace."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from filelock import FileLock, Timeout

from cluster import ports, process, services
from cluster.preflight import check
from cluster.probe import is_deserted
from cluster.services import Place, Service
from cluster.surroundings import Configured, Surroundings, aws, compose, configured, state_folder
from meta_service.errors import UserError
from meta_service.s3_store import abort_uploads

__all__ = ["Surroundings", "bring_up", "check", "find", "take_down", "ui"]

ORDER = ("s3", "mlflow", "ray")
BUSY = 10.0  # seconds in which a service that only has much to do answers
SLOW = 30.0  # seconds a running service may stay silent before it counts as dead: machines are loaded at times

Say = Callable[[str], None]


class Attempt(NamedTuple):
    """One service on its way up."""

    service: Service
    record: process.Record
    since: float
    number: int


@contextmanager
def _readable() -> Iterator[None]:
    """Whatever the system refuses in the state folder, as one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the state folder {state_folder()} cannot be used ({error}); set META_STATE to a folder of your own"
        ) from error


@_readable()
def bring_up(say: Say, ray: bool = True) -> Surroundings:
    """Start what is neither configured nor running, and wait until all of it answers; Ray only if asked for.

    Harmless to repeat: a healthy service is left alone, a dead or silent one is started again. Raises UserError.
    """
    given, place = configured(), Place(state_folder())
    if not given.embedded:
        return compose(place, given, {})
    with _locked(place, say):
        needed = [name for name in ORDER if name in given.embedded and (ray or name != "ray")]
        missing = [name for name in needed if not _healthy(name, place, given, say)]
        if missing:
            _make_folders(place)
            for name in missing:
                process.stop(place.logs, name)  # what a half-dead one has left behind
            if "ray" in missing:
                shutil.rmtree(place.temp / "ray", ignore_errors=True)
            known: dict[str, int] = {}
            for name in missing:  # before anything starts: MLflow must know where S3 will be
                known = ports.choose(place.state, services.PORTS[name], place.temp)
            say(f"Starting {_titles(missing)} (half a minute, once)")
            _start_all([_service(name, place, given, known) for name in missing], place, given, say)
        surroundings = compose(place, given, ports.remembered(place.state))
        _remember(place, surroundings)
        return surroundings if ray or given.ray else surroundings._replace(ray="")


@_readable()
def find() -> Surroundings | None:
    """The surroundings as they are, without starting anything; None where an embedded S3 does not run.

    An embedded Ray may be missing: runs can be asked about without it. Then its address is "". MLflow may too. A
    service that runs but stays silent is given all the same: who asks it is told what is wrong.
    """
    given, place = configured(), Place(state_folder())
    known = ports.remembered(place.state)
    deadline = time.monotonic() + BUSY
    for name in ("s3", "ray"):
        record = process.read(place.logs, name)
        if name in given.embedded and record and process.alive(record):
            _answers(_service(name, place, given, known), record, deadline)
    if "s3" in given.embedded and not _running("s3", place):
        return None
    surroundings = compose(place, given, known)
    return surroundings if given.ray or _running("ray", place) else surroundings._replace(ray="")


@_readable()
def take_down(say: Say) -> None:
    """End every embedded service and all it started; what S3 and MLflow have stored stays."""
    place = Place(state_folder())
    if not place.state.exists():
        say("Nothing was running")
        return
    with _locked(place, say):
        # At once, and in threads: what they do is wait. S3 last: the others may have left something half done there.
        with ThreadPoolExecutor(len(ORDER)) as pool:
            found = list(pool.map(lambda name: process.stop(place.logs, name), reversed(ORDER[1:])))
        if _running("s3", place):
            abort_uploads(services.BUCKETS, aws(place, Configured(None, None, None), ports.remembered(place.state)))
        found.append(process.stop(place.logs, "s3"))
        stopped = [name for name, was_there in zip(reversed(ORDER), found, strict=True) if was_there]
        shutil.rmtree(place.temp, ignore_errors=True)
        for path in filter(is_deserted, services.socket_files(ports.remembered(place.state))):
            path.unlink(missing_ok=True)
    say(f"Stopped {_titles(stopped)}" if stopped else "Nothing was running")


@_readable()
def ui() -> list[tuple[str, str, str]]:
    """Name, address and a note for each part, whether it runs or not."""
    given, place = configured(), Place(state_folder())
    known = ports.remembered(place.state)
    notes = {
        "ray": f"asks for the token in {place.token}",
        "mlflow": "runs, curves, checkpoints, models",
        "s3": f"S3 endpoint of s3://{' and s3://'.join(services.BUCKETS)}; account in {place.credentials}",
    }
    rows = []
    for name in reversed(ORDER):
        if name not in given.embedded:
            rows.append((TITLES[name], _given_address(name, given), "configured"))
        elif _running(name, place):
            rows.append((TITLES[name], f"http://127.0.0.1:{known[services.PORTS[name][0].name]}", notes[name]))
        else:
            rows.append((TITLES[name], "-", "not running; the next `make submit` starts it"))
    return rows


TITLES = {"s3": "S3", "mlflow": "MLflow", "ray": "Ray"}


def _start_all(wanted: list[Service], place: Place, given: Configured, say: Say) -> None:
    """Start all at once and watch them in one loop, so that Ctrl-C ends the waiting at once."""
    pending = {service.name: _launch(service, place, 1) for service in wanted}
    while pending:
        for name, attempt in list(pending.items()):
            waited = time.monotonic() - attempt.since
            if attempt.service.ready() and process.alive(attempt.record):
                say(f"{attempt.service.title} is ready after {waited:.0f} s")
                del pending[name]
            elif not process.alive(attempt.record) or waited > attempt.service.patience:
                pending[name] = _again(attempt, waited, place, given, say)
        time.sleep(0.1)


def _again(attempt: Attempt, waited: float, place: Place, given: Configured, say: Say) -> Attempt:
    """The next attempt on a service that did not come up, or the UserError that says why there is none."""
    service, died = attempt.service, not process.alive(attempt.record)
    words = process.last_words(place.logs, service.name)
    process.stop(place.logs, service.name)
    log = process.log_file(place.logs, service.name)
    if attempt.number == service.attempts:
        came = f"its process ended ({words})" if died else f"it did not answer within {waited:.0f} s"
        raise UserError(f"{service.title} was expected to start, but {came}; see {log}")
    say(f"{service.title} did not come up, trying again (see {log})")
    known = ports.choose(place.state, services.PORTS[service.name], place.temp)  # perhaps somebody took one in between
    return _launch(_service(service.name, place, given, known), place, attempt.number + 1)


def _launch(service: Service, place: Place, number: int) -> Attempt:
    record = process.start(place.logs, service.name, service.command, service.env, service.setting)
    return Attempt(service, record, time.monotonic(), number)


def _healthy(name: str, place: Place, given: Configured, say: Say) -> bool:
    """Whether the service runs and answers; patient, for taking a busy Ray for a dead one would kill its jobs."""
    record = process.read(place.logs, name)
    if record is None or not process.alive(record):
        return False
    known = ports.remembered(place.state)
    for port in services.PORTS[name]:
        fixed = ports.fixed_by_user(port)
        if fixed is not None and fixed != known.get(port.name):
            raise UserError(
                f"{TITLES[name]} was expected on {port.variable}={fixed}, but it already runs on "
                f"{known.get(port.name)}; run `make down` first, or unset {port.variable}"
            )
    service = _service(name, place, given, known)
    if record.setting != service.setting:
        say(f"Restarting {service.title}: its artifacts now go to {service.setting}")
        return False
    if not _answers(service, record, time.monotonic() + SLOW):
        say(f"Restarting {service.title}: it runs but does not answer")
        return False
    return True


def _answers(service: Service, record: process.Record, deadline: float) -> bool:
    """Waits until the service answers; False where it ends, or the time does."""
    while process.alive(record) and time.monotonic() < deadline:
        if service.ready():
            return True
        time.sleep(0.2)
    return False


def _running(name: str, place: Place) -> bool:
    record = process.read(place.logs, name)
    return record is not None and process.alive(record)


def _service(name: str, place: Place, given: Configured, known: dict[str, int]) -> Service:
    if name == "s3":
        services.account(place)
        return services.s3(place, known)
    if name == "mlflow":
        # An ARTIFACT_ROOT of the user's takes these artifacts too: all that lasts then lies in one place.
        target = f"{given.artifacts}/mlflow" if given.artifacts else "s3://mlflow/artifacts"
        return services.mlflow(place, known, target, aws(place, given, known))
    services.token(place)
    return services.ray(place, known)


def _make_folders(place: Place) -> None:
    place.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.state.chmod(0o700)
    (place.state / "s3").mkdir(mode=0o700, exist_ok=True)
    place.temp.mkdir(mode=0o700, exist_ok=True)
    about = place.temp.lstat()
    # The name can be guessed, so somebody else of this machine could have made the folder first.
    if about.st_uid != os.getuid() or about.st_mode & 0o077 or place.temp.is_symlink():
        raise UserError(f"{place.temp} was expected to be yours alone; remove it, or set META_STATE to another folder")


@contextmanager
def _locked(place: Place, say: Say) -> Iterator[None]:
    """One command at a time starts or stops services."""
    place.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(place.state / "lock", mode=0o600)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        say("Waiting for another command that starts or stops the services")
        lock.acquire(timeout=600)
    try:
        yield
    finally:
        lock.release()


def _remember(place: Place, surroundings: Surroundings) -> None:
    """Leaves the environment for a plain Python session: `meta_service.load` reads it there."""
    draft = place.state / "env.json.new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(surroundings.env, file)
    draft.replace(place.state / "env.json")


def _given_address(name: str, given: Configured) -> str:
    return {"ray": given.ray, "mlflow": given.mlflow, "s3": given.artifacts}[name] or ""


def _titles(names: list[str]) -> str:
    titles = [TITLES[name] for name in names]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
