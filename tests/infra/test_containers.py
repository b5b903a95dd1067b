"""The image and the compose file, as far as a machine without a container engine can tell."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import services
from cluster.services import Place

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "RAY_AUTH_TOKEN"}


def test_the_dockerfile_has_no_finding_of_its_linter() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)[-1] != "0"


def test_the_image_installs_from_the_hashed_locks_only() -> None:
    assert "infra/install.sh" in DOCKERFILE
    assert "pip install" not in DOCKERFILE
    assert "--require-hashes --no-deps --only-binary :all:" in (ROOT / "infra/install.sh").read_text()


def test_every_file_the_image_copies_exists_and_is_let_through_to_the_engine() -> None:
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    ]
    assert len(copied) >= 7
    assert [name for name in copied if not (ROOT / name).exists() or name not in allowed] == []


def test_every_port_is_published_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_lasting_service_has_a_health_check() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" not in service} == {"submit"}


def test_every_secret_comes_from_the_environment_and_is_missed_when_it_is_not_there() -> None:
    text = (ROOT / "infra/compose.yaml").read_text()
    assert {name for name, _ in re.findall(r"\$\{(\w+):(\?)", text)} == SECRETS
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", name):
                assert str(value).startswith("${"), name


def test_the_example_of_the_environment_names_all_secrets_and_gives_none() -> None:
    lines = (ROOT / "infra/env.example").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == {f"{name}=" for name in SECRETS}


def test_all_of_our_services_are_of_one_image() -> None:
    assert {service["image"] for name, service in SERVICES.items() if name != "postgres"} == {"meta-service"}


def test_what_waits_for_another_service_waits_for_one_that_exists() -> None:
    for service in SERVICES.values():
        assert service.get("depends_on", {}).keys() <= SERVICES.keys()


@pytest.mark.parametrize(
    ("service", "program", "help_flag", "marker"),
    [("s3", "weed", "-h", "-"), ("mlflow", "mlflow", "--help", "--"), ("ray-head", "ray", "--help", "--")],
)
def test_every_option_of_a_command_is_one_the_installed_program_knows(
    service: str, program: str, help_flag: str, marker: str
) -> None:
    commands = [SERVICES[service]["command"]]
    if program == "ray":
        commands.append(SERVICES["ray-worker"]["command"])
    assert commands[0][0] == program
    done = subprocess.run([BIN / program, commands[0][1], help_flag], capture_output=True, text=True)
    known = set(re.findall(rf"^\s+(?:-\w, )?{marker}([\w.-]+)", done.stdout + done.stderr, re.MULTILINE))
    for command in commands:
        options = {word.removeprefix(marker).split("=")[0] for word in command[2:]}
        assert options
        assert options <= known


def test_the_workers_join_the_port_the_head_listens_on() -> None:
    assert "--port=6379" in SERVICES["ray-head"]["command"]
    assert "--address=ray-head:6379" in SERVICES["ray-worker"]["command"]


def test_a_driver_has_as_long_to_save_a_checkpoint_as_with_the_embedded_ray(tmp_path: Path) -> None:
    embedded = services.ray(Place(tmp_path), {port.name: 1 for port in services.RAY_PORTS}).env
    name = "RAY_JOB_STOP_WAIT_TIME_S"
    assert {SERVICES[node]["environment"][name] for node in ("ray-head", "ray-worker")} == {embedded[name]}


def test_mlflow_accepts_the_host_name_its_clients_use() -> None:
    host = SERVICES["ray-head"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
    (allowed,) = [word for word in SERVICES["mlflow"]["command"] if word.startswith("--allowed-hosts=")]
    assert host in allowed.removeprefix("--allowed-hosts=").split(",")
