"""Runs as Ray jobs: submitted, followed, stopped and continued through the Jobs API."""

import asyncio
import logging
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import requests

from cluster.local import Surroundings
from meta_service.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SENT = ("meta_service", "cluster", "jobs", "requirements.lock")  # all a driver needs; no .env, no data
_LOG = logging.getLogger(__name__)
_RAY_TALK = re.compile(r"\sINFO (job_manager|worker)\.py:\d+ -- |^Running entrypoint for job ")
STOP_S = 75.0  # for the outer step at work and a checkpoint
INTERRUPTED = 130  # the exit code of a run that was asked to stop
JOBS_OUTPUT_S = 10.0  # how long a job that has just ended may take to show its exit code


def new_run(job_name: str) -> str:
    """A name nobody else has: job, date, time and four random letters."""
    return f"{job_name}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def revision() -> str:
    """The git revision of the code, with `+changes` where the working tree differs; "" outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()

    with suppress(OSError):
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", *SENT) else "")
    return ""


class NotReached(UserError):
    """Ray does not answer, or no longer."""


class Jobs:
    """Ray's Jobs API, with errors as people can read them."""

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        if not surroundings.ray:
            raise UserError("Ray is not running on this machine; `make submit JOB=sinusoid` starts it")
        os.environ.update({k: v for k, v in surroundings.env.items() if k.startswith("RAY_")})
        # Ray reads how to authenticate when it is imported
        from ray.job_submission import JobSubmissionClient

        for name in ("job.sdk", "dashboard_sdk"):  # they set their own level when imported
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
        with _readable(surroundings.ray):
            self.client = JobSubmissionClient(surroundings.ray)

    def submit(self, run: str, arguments: Sequence[str] = ()) -> str:
        """Sends the code and starts `python -m jobs drive RUN ...` on the cluster; returns the submission's id."""
        python = sys.executable if "ray" in self.surroundings.embedded else "python"
        env = self.surroundings.env | {"META_REVISION": revision(), "PYTHONUNBUFFERED": "1"}
        with tempfile.TemporaryDirectory() as folder, _readable(self.surroundings.ray):
            for name in SENT:
                source, target = ROOT / name, Path(folder, name)
                if source.is_dir():
                    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, target)
            return str(
                self.client.submit_job(
                    entrypoint=shlex.join([python, "-m", "jobs", "drive", run, *arguments]),
                    submission_id=f"{run}.{secrets.token_hex(2)}",
                    runtime_env={"working_dir": folder, "env_vars": env},
                    metadata={"run": run},
                )
            )

    def of_run(self, run: str) -> list[Any]:
        """The submissions of a run, oldest first."""
        with _readable(self.surroundings.ray):
            found = [job for job in self.client.list_jobs() if (job.metadata or {}).get("run") == run]
        return sorted(found, key=lambda job: job.start_time or 0)

    def active(self, run: str | None = None) -> list[str]:
        """The submissions that are at work or about to be: of this run, or of all."""
        with _readable(self.surroundings.ray):
            found = [job for job in self.client.list_jobs() if not job.status.is_terminal()]
        return [str(job.submission_id) for job in found if run in (None, (job.metadata or {}).get("run"))]

    def lines(self, submission: str) -> Iterator[str]:
        """The output of a submission, line by line as it comes, until its end."""
        chunks: SimpleQueue[str | None] = SimpleQueue()

        async def read() -> None:
            async for chunk in self.client.tail_job_logs(submission):
                chunks.put(chunk)

        def listen() -> None:
            try:
                asyncio.run(read())
            except Exception:  # of whatever kind: the connection broke, exit_code tells why
                _LOG.debug("%s: the output broke off", submission, exc_info=True)
            finally:
                chunks.put(None)

        # on a thread of its own: Ctrl-C meets this loop, and not one that would have to be wound up first
        Thread(target=listen, daemon=True).start()
        rest = ""
        while (chunk := chunks.get()) is not None:
            *lines, rest = (rest + chunk).split("\n")
            yield from (line for line in lines if not _RAY_TALK.search(line))
        if rest:
            yield rest

    def exit_code(self, submission: str, patience: float = JOBS_OUTPUT_S) -> int:
        """The exit code of the driver; 1 where it was killed. Waits for a driver that is about to end."""
        with _readable(self.surroundings.ray):
            deadline = time.monotonic() + patience
            while not (info := self.client.get_job_info(submission)).status.is_terminal():
                if time.monotonic() > deadline:
                    raise UserError(f"the output of {submission} broke off, it is still running; try `make logs`")
                time.sleep(0.1)
        if info.status == "SUCCEEDED":
            return 0
        if info.status == "STOPPED":
            return INTERRUPTED  # by `stop`; Ray keeps no exit code of those
        return int(info.driver_exit_code or 1)

    def stop(self, submissions: Sequence[str]) -> None:
        """Asks the drivers to save a checkpoint and end, and waits until they have."""
        with _readable(self.surroundings.ray):
            for submission in submissions:
                self.client.stop_job(submission)
        for submission in submissions:
            self.exit_code(submission, patience=STOP_S)


@contextmanager
def _readable(address: str) -> Iterator[None]:
    """Whatever Ray's client raises, as one line."""
    try:
        yield
    except (ConnectionError, requests.ConnectionError, requests.Timeout) as error:
        raise NotReached(f"Ray at {address} is not reached; try `make doctor`") from error
    except (RuntimeError, ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"Ray at {address} does not do what was asked: {text[:300]}; try `make doctor`") from error
