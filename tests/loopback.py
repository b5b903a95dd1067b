"""What the tests of the embedded services ask of this machine."""

import socket
from pathlib import Path

CONFIGURING = (
    "RAY_ADDRESS",
    "MLFLOW_TRACKING_URI",
    "ARTIFACT_ROOT",
    "META_EMBEDDED",
    "MLFLOW_PORT",
    "S3_PORT",
    "RAY_DASHBOARD_PORT",
)
"""What names other services than the embedded ones, or other ports for those."""


def refuse_to_start(*_: object, **__: object) -> None:
    raise AssertionError("nothing should have been started")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening() -> set[tuple[str, int]]:
    """Address and port of every TCP listener of this machine."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                packed = bytes.fromhex(address)[-4:][::-1]
                found.add((socket.inet_ntoa(packed), int(port, 16)))
    return found
