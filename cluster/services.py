"""The three servers a machine of its own needs: what to run, where it listens, and when it is ready."""

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cluster.ports import Port
from cluster.probe import answers, bearer
from meta_service.errors import UserError

S3_PORTS = (
    Port("s3", 8333, "S3_PORT"),
    # SeaweedFS is four servers in one process, and each has an HTTP and a gRPC side.
    *(Port(f"s3.{name}", 21110 + i) for i, name in enumerate(
        ("s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "admin", "admin.grpc")
    )),
)  # fmt: skip
MLFLOW_PORTS = (Port("mlflow", 5000, "MLFLOW_PORT"),)
RAY_PORTS = (
    Port("ray.dashboard", 8265, "RAY_DASHBOARD_PORT"),
    *(Port(f"ray.{name}", 21100 + i) for i, name in enumerate(
        ("gcs", "agent", "client", "dashboard-metrics", "autoscaler-metrics")
    )),
)  # fmt: skip
INLINE = {"RAY_max_direct_call_object_size": "1000000"}  # theta and gradients up to here travel with the call: faster
PORTS = {"s3": S3_PORTS, "mlflow": MLFLOW_PORTS, "ray": RAY_PORTS}
BUCKETS = ("mlflow", "runs")
DATA_FOLDERS = ("DATA_ROOT", "DATA_CACHE")
FOLDERS = (*DATA_FOLDERS, "XDG_CACHE_HOME", "XDG_STATE_HOME")
"""Where a driver's files are comes with each job: what held when the services were started may not hold any more."""


class Place(NamedTuple):
    """Where the embedded services keep what they know."""

    state: Path

    @property
    def temp(self) -> Path:
        """Ray's folder; short, because the path of a Unix socket ends at 107 bytes."""
        return Path(f"/tmp/meta-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}")

    @property
    def credentials(self) -> Path:
        """The embedded S3 server's configuration with the one account it knows."""
        return self.state / "s3.json"

    @property
    def token(self) -> Path:
        """What a client of the embedded Ray must show."""
        return self.state / "token"

    @property
    def logs(self) -> Path:
        """Pid files and logs."""
        return self.state / "services"


class Service(NamedTuple):
    """One server process."""

    name: str
    title: str
    command: tuple[str, ...]
    env: dict[str, str]
    ready: Callable[[], bool]
    patience: float
    """Seconds until a start is given up: many times the normal, for loaded machines."""
    attempts: int
    setting: str = ""
    """A running service with another setting is not the one asked for."""


def s3(place: Place, ports: dict[str, int]) -> Service:
    """SeaweedFS, all its parts in one process, every port on loopback."""
    flags = {
        "dir": place.state / "s3",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",  # its default is every address
        "s3.config": place.credentials,
        "s3.localSocket": place.temp / "s3.sock",
        "filer.localSocket": place.temp / "filer.sock",
        "bucket": ",".join(BUCKETS),
        "webdav": "false",
        "admin.ui": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.preStopSeconds": 0,  # nobody is left to be told
        "s3.port": ports["s3"],
        "s3.port.grpc": ports["s3.s3.grpc"],
        **{
            f"{part}.port{side}": ports[f"s3.{part}{side}"]
            for part in ("master", "volume", "filer", "admin")
            for side in ("", ".grpc")
        },
    }
    return Service(
        name="s3",
        title="S3",
        command=(
            *(_program("weed"), f"-logdir={place.temp}", "mini"),
            *(f"-{name}={value}" for name, value in flags.items()),
        ),
        # Else it keeps 700 MB after large uploads. It lives on 230: at a limit near that it would collect all the time.
        env=_environment(GOMEMLIMIT="512MiB"),
        # The buckets come half a second after the S3 port answers; the filer tells whether they are there. Where the
        # volumes are, the master knows a little later yet; it then has a place for a new file.
        ready=lambda: (
            answers(f"http://127.0.0.1:{ports['s3']}/healthz")
            and answers(f"http://127.0.0.1:{ports['s3.master']}/dir/assign")
            and all(
                answers(f"http://127.0.0.1:{ports['s3.filer']}/buckets/{bucket}?metadata=true") for bucket in BUCKETS
            )
        ),
        patience=60,
        attempts=2,
    )


def mlflow(place: Place, ports: dict[str, int], artifacts: str, aws: dict[str, str]) -> Service:
    """MLflow's server, its tables in SQLite, its artifacts passed on to `artifacts`."""
    port = ports["mlflow"]
    env = _environment(
        **aws,
        MLFLOW_S3_ENDPOINT_URL=aws.get("AWS_ENDPOINT_URL", ""),
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # saves eight helper processes nobody needs here
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
    )
    return Service(
        name="mlflow",
        title="MLflow",
        command=(
            *(_program("mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{place.state}/mlflow.db"),
            *("--artifacts-destination", artifacts),
        ),
        env={name: value for name, value in env.items() if value},
        ready=lambda: answers(f"http://127.0.0.1:{port}/health"),
        patience=180,  # 15-31 s were seen on a loaded machine
        attempts=2,
        setting=f"{artifacts} at {aws.get('AWS_ENDPOINT_URL', 'AWS')}",
    )


def ray(place: Place, ports: dict[str, int]) -> Service:
    """A Ray head with token authentication, and all ports its own so that two of them can run side by side.

    Its scheduler and object manager listen on every address whatever they are told; the token is the protection there.
    """
    dashboard, agent = f"http://127.0.0.1:{ports['ray.dashboard']}", f"http://127.0.0.1:{ports['ray.agent']}"
    flags = {
        "node-ip-address": "127.0.0.2",  # 127.0.0.1 would silently become the machine's outer address
        "port": ports["ray.gcs"],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": ports["ray.dashboard"],
        "dashboard-agent-listen-port": ports["ray.agent"],
        "ray-client-server-port": ports["ray.client"],
        "min-worker-port": 0,  # any free port, instead of a range that two heads would share
        "max-worker-port": 0,
        # Ray counts CPUs, it does not pin them: at least four, so that a job with three workers is not left waiting
        # for ever on a laptop; they then share the cores.
        "num-cpus": max(os.cpu_count() or 1, 4),
        "object-store-memory": 300_000_000,  # theta is a few MB; Ray's default is a third of the memory
        "temp-dir": place.temp / "ray",
    }
    return Service(
        name="ray",
        title="Ray",
        command=(
            *(_program("ray"), "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--{name}={value}" for name, value in flags.items()),
        ),
        env=_environment(
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(place.token),
            RAY_USAGE_STATS_ENABLED="0",
            **INLINE,
            RAY_JOB_STOP_WAIT_TIME_S="60",  # a driver ends its outer step and saves a checkpoint; Ray waits 3 s
            RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0",  # nobody takes over from the only node: do not wait 30 s
            DASHBOARD_METRIC_PORT=str(ports["ray.dashboard-metrics"]),
            AUTOSCALER_METRIC_PORT=str(ports["ray.autoscaler-metrics"]),
            PYTHONUNBUFFERED="1",
        ),
        # The agent starts after the dashboard, and a job submitted in between would fail.
        ready=lambda: (
            answers(f"{agent}/api/local_raylet_healthz", bearer(token(place)))
            and answers(f"{dashboard}/api/jobs/", bearer(token(place)))
        ),
        patience=90,
        attempts=3,  # a fixed wait inside Ray is at times too short on a loaded machine
    )


def token(place: Place) -> str:
    """The embedded Ray's token, made at the first call."""
    return _secret_file(place.token, lambda: secrets.token_hex(32))


def account(place: Place) -> tuple[str, str]:
    """Key and secret of the embedded S3 server's only account, made at the first call."""

    def fresh() -> str:
        keys = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_hex(20)}
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        return json.dumps({"identities": [{"name": "meta", "credentials": [keys], "actions": rights}]})

    keys = json.loads(_secret_file(place.credentials, fresh))["identities"][0]["credentials"][0]
    return keys["accessKey"], keys["secretKey"]


def socket_files(ports: dict[str, int]) -> list[Path]:
    """The Unix sockets SeaweedFS puts beside its gRPC ports, in a folder that cannot be chosen."""
    parts = ("s3", "master", "volume", "filer", "admin")
    grpc = [(part, ports.get(f"s3.{part}.grpc")) for part in parts]
    return [Path(f"/tmp/seaweedfs-{part}-grpc-{number}.sock") for part, number in grpc if number]


def _secret_file(path: Path, fresh: Callable[[], str]) -> str:
    if not path.exists():
        draft = path.with_name(path.name + ".new")
        draft.unlink(missing_ok=True)
        # The mode is given at birth: there is no moment in which others could read it.
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(fresh())
        draft.replace(path)
    return path.read_text()


def _environment(**own: str) -> dict[str, str]:
    """The environment of a service: ours, without what would turn it to somebody else's cluster, server or account."""
    foreign = ("RAY_", "MLFLOW_", "AWS_", "S3_", "ARTIFACT_ROOT", "META_EMBEDDED", *FOLDERS)
    ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # Entry points of jobs say `python`, and that has to be this one.
    path = f"{Path(sys.executable).parent}{os.pathsep}{ours.get('PATH', os.defpath)}"
    return {**ours, "PATH": path, **own}


def _program(name: str) -> str:
    program = Path(sys.executable).parent / name
    if not program.exists():
        raise UserError(f"the program `{name}` was expected in {program.parent}, but is not there; run `make install`")
    return str(program)
