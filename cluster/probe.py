"""Whether somebody is there: a question with a short wait."""

import base64
import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "127.0.0.2", "localhost")


class Answer(NamedTuple):
    """What an HTTP server said."""

    status: int
    body: bytes


def get(url: str, headers: Mapping[str, str] | None = None, timeout: float = 5.0) -> Answer:
    """GET `url`; an error status is an answer too, OSError means there was none."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    # A proxy configured for the outside cannot reach our own loopback.
    proxies = urllib.request.ProxyHandler({}) if is_loopback(url) else urllib.request.ProxyHandler()
    try:
        with urllib.request.build_opener(proxies).open(request, timeout=timeout) as response:
            return Answer(response.status, response.read(65536))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(65536))
    except urllib.error.URLError as error:
        raise OSError(reason(error)) from error
    except http.client.HTTPException as error:  # no OSError in Python's eyes
        raise OSError("what answers there does not speak HTTP") from error


def answers(url: str, headers: Mapping[str, str] | None = None, timeout: float = 2.0) -> bool:
    """Whether `url` says 200."""
    try:
        return get(url, headers, timeout).status == 200
    except (OSError, ValueError):
        return False


def is_loopback(url: str) -> bool:
    """Whether the address is of this machine only."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def is_deserted(path: Path) -> bool:
    """Whether a Unix socket is left over: it exists, and nobody listens. Another's may have got the same name since."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def bearer(token: str) -> dict[str, str]:
    """The header by which Ray knows a client."""
    return {"Authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    """The header by which an MLflow server with accounts knows a client."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def reason(error: OSError) -> str:
    """Why there was no answer, in a few words."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(cause, TimeoutError):
        return "no answer came in time"
    return str(cause) or type(cause).__name__
