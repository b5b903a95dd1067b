"""Whether Ray, MLflow and S3 answer, asked before anything is sent there."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cluster.probe import basic, get
from cluster.surroundings import Surroundings, ray_headers
from meta_service.errors import UserError


def check(surroundings: Surroundings, ray: bool = True) -> None:
    """Ask all three at once (Ray only where it is needed); raises the UserError of the first that cannot be used."""
    with environment(surroundings.env), ThreadPoolExecutor(3) as pool:
        asked = [check_s3, check_mlflow, check_ray] if ray else [check_s3, check_mlflow]
        questions = [pool.submit(ask, surroundings) for ask in asked]
        for question in questions:
            question.result()


def check_s3(surroundings: Surroundings) -> None:
    """Write, read and delete an object in the bucket, with the credentials of the environment."""
    from meta_service.artifacts import open_store  # loads boto3: only when needed

    open_store(surroundings.artifacts).check()


def check_mlflow(surroundings: Surroundings) -> str:
    """The version of the MLflow server."""
    uri = surroundings.mlflow
    fix = _fix("mlflow", "MLFLOW_TRACKING_URI", surroundings)
    env = {**os.environ, **surroundings.env}
    headers = {}
    if env.get("MLFLOW_TRACKING_TOKEN"):
        headers = {"Authorization": f"Bearer {env['MLFLOW_TRACKING_TOKEN']}"}
    elif env.get("MLFLOW_TRACKING_USERNAME"):
        headers = basic(env["MLFLOW_TRACKING_USERNAME"], env.get("MLFLOW_TRACKING_PASSWORD", ""))
    try:
        health = get(f"{uri}/health", headers)
        search = get(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", headers)
    except (OSError, ValueError) as error:
        raise UserError(f"MLflow was expected to answer at {uri}, but {error}; {fix}") from None
    if 401 in (health.status, search.status) or search.status == 403:
        raise UserError(
            f"MLflow at {uri} refused the account (HTTP {search.status}); "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if health.status != 200 or search.status != 200:
        raise UserError(f"MLflow was expected at {uri}, but it said HTTP {health.status} and {search.status}; {fix}")
    version = get(f"{uri}/version", headers)
    return version.body.decode(errors="replace").strip() if version.status == 200 else "?"


def check_ray(surroundings: Surroundings) -> str:
    """The version of the Ray cluster."""
    address, headers = surroundings.ray, ray_headers(surroundings)
    fix = _fix("ray", "RAY_ADDRESS", surroundings)
    try:
        answer = get(f"{address}/api/version", headers)
    except (OSError, ValueError) as error:
        raise UserError(f"Ray's Jobs API was expected at {address}, but {error}; {fix}") from None
    if answer.status in (401, 403):
        came = "asks for a token" if not headers else f"refused the token (HTTP {answer.status})"
        raise UserError(
            f"Ray at {address} {came}; "
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        )
    try:
        return str(json.loads(answer.body)["ray_version"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"Ray's Jobs API was expected at {address}, but something else answers there; {fix}") from None


def _fix(part: str, variable: str, surroundings: Surroundings) -> str:
    if part in surroundings.embedded:
        return "run `make down`, then the command again"
    return f"start it, correct {variable}, or unset {variable} to have one started here"


@contextmanager
def environment(env: dict[str, str]) -> Iterator[None]:
    """Lets `env` be the environment for a while: boto3 reads its settings there only."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
