"""Where runs are disturbed: a real Ray, S3 and MLflow, the last two behind proxies that can misbehave."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cluster.local import Surroundings
from cluster.runs import Runs
from meta_service.artifacts import open_store
from tests.chaos.nodes import Nodes
from tests.chaos.proxy import Proxy
from tests.chaos.zygote import Zygote


class Scene:
    """The surroundings, the proxies before them, and the process that drivers are forked from."""

    def __init__(
        self, surroundings: Surroundings, ray_address: str, raylets: Callable[[], set[int]], nodes: Nodes | None = None
    ) -> None:
        """raylets: the pids of the Ray nodes' processes, whose children the workers are. nodes: if they can be lost."""
        self.surroundings, self.raylets, self.nodes = surroundings, raylets, nodes
        self.folder = Path(tempfile.mkdtemp(prefix="meta-chaos-"))
        self.s3 = Proxy(_port(surroundings.env["AWS_ENDPOINT_URL"]))
        self.mlflow = Proxy(_port(surroundings.mlflow))
        self.env = {**os.environ, **surroundings.env}
        self.env |= {
            "RAY_ADDRESS": ray_address,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3.port}",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow.port}",
            "ARTIFACT_ROOT": f"{surroundings.artifacts}/chaos-{os.urandom(3).hex()}",
            "XDG_STATE_HOME": str(self.folder / "home"),
            "DATA_CACHE": str(self.folder / "cache"),
            "RAY_DEDUP_LOGS": "0",
        }
        self._zygote: Zygote | None = None

    @property
    def zygote(self) -> Zygote:
        if self._zygote is None:
            self._zygote = Zygote(self.env)
        return self._zygote

    def runs(self) -> Runs:
        """As this process sees them: without the proxy."""
        with environment(self.env | {"AWS_ENDPOINT_URL": self.surroundings.env["AWS_ENDPOINT_URL"]}):
            return Runs(open_store(self.env["ARTIFACT_ROOT"]))

    def spool(self, run: str) -> Path:
        return self.folder / "home" / "meta_service" / "spool" / run

    def workers(self) -> dict[int, str]:
        """The pids of all workers on this Ray, and what each calls itself: `ray::TaskWorker.method` while at work."""
        found, parents = {}, self.raylets()
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError, ValueError, IndexError):
                    title = Path(entry.path, "cmdline").read_bytes().split(b"\0")[0].decode()
                    if title.startswith("ray::TaskWorker") and parent_of(int(entry.name)) in parents:
                        found[int(entry.name)] = title
        return found

    def close(self) -> None:
        if self._zygote:
            self._zygote.close()
        self.s3.close()
        self.mlflow.close()
        shutil.rmtree(self.folder)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def raylets_of(temp: Path) -> set[int]:
    """The pids of the raylets whose session lies in that folder."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):
                command = Path(entry.path, "cmdline").read_bytes()
                if command.split(b"\0")[0].endswith(b"/raylet") and str(temp).encode() in command:
                    found.add(int(entry.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _port(address: str) -> int:
    return urlsplit(address).port or 80
