"""One file from the network, whole and checked or not at all."""

import hashlib
import http.client
import os
import queue
import threading
import urllib.error
import urllib.request
from pathlib import Path

from meta_service.data.progress import progress

SECONDS = 8.0  # to get an answer, and between two parts of it
ATTEMPTS = 5
_CHUNK = 2**18


class DownloadError(Exception):
    """Why a file could not be fetched; the caller knows what a person can do instead."""


def download(address: str, path: Path, sha256: str | None = None) -> None:
    """Fetches `address` into `path`, unless it is there already.

    What has come stays in `<path>.part` and is continued after an interruption, so `path` is never a part of the file.
    Raises DownloadError within about SECONDS where there is no network, and where the SHA-256 differs.
    """
    if path.exists():
        return
    part = path.with_name(f"{path.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        before = _size(part)
        try:
            _fetch(address, part)
            break
        except urllib.error.HTTPError as error:
            error.close()  # it is the response, too
            part.unlink(missing_ok=True)  # 416: the part does not belong to what is there now
            if error.code != 416 or attempt + 1 == ATTEMPTS:
                raise DownloadError(f"{address} answers {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt + 1 == ATTEMPTS or _size(part) == before:
                raise DownloadError(f"{address}: {getattr(error, 'reason', None) or error or 'no answer'}") from error
    if sha256 is not None and (came := _sha256(part)) != sha256:
        part.unlink()
        raise DownloadError(f"{address} has SHA-256 {came}, expected {sha256}")
    part.replace(path)


def _fetch(address: str, part: Path) -> None:
    start = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    with _open(request) as response:
        if response.status != 206:  # the server sends all of it
            start = 0
        length = response.headers.get("Content-Length")
        expected = start + int(length) if length else None
        with progress(f"Downloading {address}", expected) as advance, open(part, "ab" if start else "wb") as file:
            advance(start)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                advance(len(chunk))
        if expected is not None and _size(part) != expected:
            raise ConnectionError(f"{_size(part):,} of {expected:,} bytes came")


def _open(request: urllib.request.Request) -> http.client.HTTPResponse:
    """urlopen with a limit that also holds while the name is looked up, which no socket's timeout covers."""
    answers: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=SECONDS))
        except Exception as error:  # handed to the caller's thread, which raises it
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=SECONDS + 1)
    except queue.Empty:
        raise TimeoutError(f"no answer within {SECONDS:.0f} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _size(path: Path) -> int:
    return os.path.getsize(path) if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
