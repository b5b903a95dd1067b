import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from meta_service.data import download as module
from meta_service.data.download import DownloadError, download

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """A web site on this machine that serves CONTENT, as well as it is told to."""

    def __init__(self):
        self.ranges: list[str | None] = []
        self.cut_after: list[int] = []
        """Bytes after which the connection breaks, a number for each of the first requests."""
        self.understands_ranges = True
        self.status: int | None = None


@pytest.fixture
def site():
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            site.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.understands_ranges else 0
            if site.status or start >= len(CONTENT):
                self.send_error(site.status or 416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            end = start + site.cut_after.pop(0) if site.cut_after else None
            self.wfile.write(CONTENT[start:end])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        site.address = f"http://127.0.0.1:{server.server_port}/images.zip"
        yield site
        server.shutdown()


def test_a_file_comes_whole_and_checked(site, tmp_path):
    download(site.address, tmp_path / "new" / "images.zip", DIGEST)
    assert (tmp_path / "new" / "images.zip").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["images.zip"]


def test_a_file_that_is_there_is_not_fetched_again(site, tmp_path):
    (tmp_path / "images.zip").write_bytes(b"mine")
    download(site.address, tmp_path / "images.zip", DIGEST)
    assert site.ranges == []
    assert (tmp_path / "images.zip").read_bytes() == b"mine"


def test_another_content_is_refused_and_leaves_nothing(site, tmp_path):
    with pytest.raises(DownloadError, match=f"has SHA-256 {DIGEST}, expected 00"):
        download(site.address, tmp_path / "images.zip", "00")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_connection_is_continued_where_it_broke(site, tmp_path):
    site.cut_after = [300_000, 200_000]
    download(site.address, tmp_path / "images.zip", DIGEST)
    assert site.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert (tmp_path / "images.zip").read_bytes() == CONTENT


def test_what_an_earlier_process_fetched_is_continued(site, tmp_path):
    (tmp_path / "images.zip.part").write_bytes(CONTENT[:1000])
    download(site.address, tmp_path / "images.zip", DIGEST)
    assert site.ranges == ["bytes=1000-"]
    assert (tmp_path / "images.zip").read_bytes() == CONTENT


def test_a_site_that_cannot_continue_is_asked_for_all(site, tmp_path):
    site.understands_ranges = False
    (tmp_path / "images.zip.part").write_bytes(b"x" * 1000)
    download(site.address, tmp_path / "images.zip", DIGEST)
    assert (tmp_path / "images.zip").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_fetched_anew(site, tmp_path):
    (tmp_path / "images.zip.part").write_bytes(CONTENT + b"x")
    download(site.address, tmp_path / "images.zip", DIGEST)
    assert (tmp_path / "images.zip").read_bytes() == CONTENT


def test_a_connection_that_breaks_at_once_ends_in_an_error(site, tmp_path):
    site.cut_after = [0] * 10
    with pytest.raises(DownloadError, match="0 of 1,024,000 bytes came"):
        download(site.address, tmp_path / "images.zip", DIGEST)
    assert len(site.ranges) == 1
    assert not (tmp_path / "images.zip").exists()


def test_a_missing_file_is_an_error_with_its_address(site, tmp_path):
    site.status = 404
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:\d+/images\.zip answers 404 Not Found"):
        download(site.address, tmp_path / "images.zip", DIGEST)


def test_a_refused_connection_is_an_error_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(DownloadError, match="refused"):
        download(f"http://127.0.0.1:{port}/a", tmp_path / "a")
    assert time.monotonic() - start < 2


def test_a_server_that_never_answers_is_an_error_within_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(DownloadError, match=r"timed out|no answer"):
            download(f"http://127.0.0.1:{silent.getsockname()[1]}/a", tmp_path / "a")
    assert time.monotonic() - start < 3


def test_a_name_that_is_looked_up_for_ever_is_an_error_within_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.2)
    monkeypatch.setattr(module.urllib.request, "urlopen", lambda *_, **__: time.sleep(5))
    start = time.monotonic()
    with pytest.raises(DownloadError, match="no answer within"):
        download("http://nowhere.invalid/a", tmp_path / "a")
    assert time.monotonic() - start < 3


def test_progress_is_one_line_at_each_end_where_there_is_no_terminal(site, tmp_path, capsys):
    download(site.address, tmp_path / "images.zip", DIGEST)
    assert capsys.readouterr().out == ""


def test_the_lines_name_the_address(site, tmp_path, capsys):
    download(site.address, tmp_path / "images.zip", DIGEST)
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"Downloading {site.address}"
    assert last.startswith(f"Downloading {site.address}: done in")
