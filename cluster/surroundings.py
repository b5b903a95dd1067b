"""What stands around a job: Ray, MLflow and S3, each either configured by the user or embedded here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cluster.probe import is_loopback
from cluster.services import DATA_FOLDERS, FOLDERS, Place, account
from meta_service.errors import UserError


class Surroundings(NamedTuple):
    """Addresses, and the environment that a job's driver and workers need to use them."""

    ray: str
    """Address of the Jobs API, http://... or https://..."""
    mlflow: str
    """Tracking URI."""
    artifacts: str
    """Where checkpoints go: s3://bucket or s3://bucket/prefix."""
    env: dict[str, str]
    embedded: frozenset[str]
    """Which of "ray", "mlflow" and "s3" are ours."""


EMBEDDED = "META_EMBEDDED"  # the addresses in an environment that are of embedded services, not the user's


class Configured(NamedTuple):
    """The addresses the user gave; None where one is to be embedded."""

    ray: str | None
    mlflow: str | None
    artifacts: str | None

    @property
    def embedded(self) -> frozenset[str]:
        """The parts that are not configured. An external ARTIFACT_ROOT also takes the embedded MLflow's artifacts."""
        parts = {"ray": self.ray, "mlflow": self.mlflow, "s3": self.artifacts}
        return frozenset(part for part, address in parts.items() if address is None)


def configured(env: Mapping[str, str] = os.environ) -> Configured:
    """Read RAY_ADDRESS, MLFLOW_TRACKING_URI and ARTIFACT_ROOT; an address of the wrong kind is a UserError.

    What `Surroundings.env` has brought into the environment is not the user's, and counts as not set.
    """
    ours = {"", *env.get(EMBEDDED, "").split()}
    names = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "ARTIFACT_ROOT")
    ray, mlflow, artifacts = (None if env.get(name, "") in ours else env[name] for name in names)
    if ray and not _is_http(ray):
        host = urlsplit(ray if "://" in ray else f"//{ray}").hostname or "HOST"
        raise UserError(
            f"RAY_ADDRESS was expected to be the Jobs API, http(s)://..., not {ray!r}; it is the dashboard's address, "
            f"usually http://{'HOST' if host in ('auto', 'local') else host}:8265"
        )
    if mlflow and not _is_http(mlflow):
        raise UserError(f"MLFLOW_TRACKING_URI was expected to be a server, http(s)://..., not {mlflow!r}")
    if artifacts and not (artifacts.startswith("s3://") and urlsplit(artifacts).netloc):
        raise UserError(f"ARTIFACT_ROOT was expected to be s3://bucket or s3://bucket/prefix, not {artifacts!r}")
    result = Configured(*(address.rstrip("/") if address else None for address in (ray, mlflow, artifacts)))
    if result.ray and not is_loopback(result.ray) and result.embedded:
        variables = {"mlflow": "MLFLOW_TRACKING_URI", "s3": "ARTIFACT_ROOT"}
        missing = [variables[part] for part in sorted(result.embedded)]
        raise UserError(
            f"the cluster at RAY_ADDRESS={result.ray} cannot reach services that listen on this machine only; "
            f"set {' and '.join(missing)} too"
        )
    return result


def state_folder() -> Path:
    """Where the embedded parts keep their state: META_STATE, else .state in the repository."""
    return Path(os.environ.get("META_STATE") or Path(__file__).resolve().parents[1] / ".state").expanduser().resolve()


def compose(place: Place, given: Configured, ports: Mapping[str, int]) -> Surroundings:
    """The surroundings, once it is known where the embedded parts listen."""
    mlflow = given.mlflow or f"http://127.0.0.1:{ports.get('mlflow', 0)}"
    artifacts = given.artifacts or "s3://runs"
    env = {"MLFLOW_TRACKING_URI": mlflow, "ARTIFACT_ROOT": artifacts, "MLFLOW_DISABLE_TELEMETRY": "true"}
    addresses = {"mlflow": mlflow, "s3": artifacts}
    env[EMBEDDED] = " ".join(addresses[part] for part in sorted(given.embedded - {"ray"}))
    if given.mlflow:  # user, password, token, certificate
        env |= {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_")}
        env["MLFLOW_TRACKING_URI"] = mlflow
    env |= aws(place, given, ports)
    if "ray" in given.embedded:
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place.token)}
    else:  # never left open: an unset mode takes whatever lies in the home folder; the token the cluster has itself
        given_token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
        env["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE") or ("token" if given_token else "disabled")
    for name in FOLDERS if "ray" in given.embedded else DATA_FOLDERS:  # absolute: a driver starts in another folder
        if os.environ.get(name):
            env[name] = str(Path(os.environ[name]).expanduser().resolve())
    env |= {name: os.environ[name] for name in ("META_NATIVE",) if os.environ.get(name)}
    if any(name.lower().endswith("_proxy") for name in os.environ) and given.embedded:
        hosts = {*os.environ.get("no_proxy", "").split(","), "127.0.0.1", "127.0.0.2", "localhost"} - {""}
        env |= dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(sorted(hosts)))
    ray = given.ray or f"http://127.0.0.1:{ports.get('ray.dashboard', 0)}"
    return Surroundings(ray, mlflow, artifacts, env, given.embedded)


def aws(place: Place, given: Configured, ports: Mapping[str, int]) -> dict[str, str]:
    """How to reach S3: the user's AWS_* as they are, or the embedded server's."""
    if given.artifacts:
        return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    key, secret = account(place)
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    env = {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # else boto3 asks an address that does not answer
        "AWS_ENDPOINT_URL": endpoint,
    }
    # What the user's shell has for the real S3 must not win over ours.
    overrides = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_SESSION_TOKEN": "", "AWS_REGION": "us-east-1"}
    return env | {name: value for name, value in overrides.items() if os.environ.get(name)}


def ray_headers(surroundings: Surroundings) -> dict[str, str]:
    """What a request to Ray's Jobs API must show."""
    env = {**os.environ, **surroundings.env}
    if env.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = env.get("RAY_AUTH_TOKEN", "") if "ray" not in surroundings.embedded else ""
    path = env.get("RAY_AUTH_TOKEN_PATH", "")
    if not token and path:
        try:
            token = Path(path).expanduser().read_text().strip()
        except OSError as error:
            raise UserError(f"Ray's token was expected in RAY_AUTH_TOKEN_PATH={path}: {error.strerror}") from None
    return {"Authorization": f"Bearer {token}"} if token else {}


def _is_http(address: str) -> bool:
    return urlsplit(address).scheme in ("http", "https") and bool(urlsplit(address).hostname)
