"""The two stores keep one contract, and each failure is one line that says what to do."""

import errno
import fcntl
import os
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cluster.surroundings import Surroundings
from meta_service.artifacts import ArtifactStore, DirectoryStore, MissingArtifact, S3Store, StorageError, open_store
from meta_service.errors import UserError
from meta_service.s3_store import abort_uploads
from tests.loopback import free_port

OUTSIDE = ("", "/absolute", "../up", "a/../../up", "a//b", "a/./b", "..", "a\\b", "a/", "nul\0")


@pytest.fixture
def s3(surroundings: Surroundings, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in surroundings.env.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"{surroundings.artifacts}/test-{uuid.uuid4().hex}")
    assert isinstance(store, S3Store)
    return store


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "directory":
        return open_store(str(tmp_path / "store"))
    found: ArtifactStore = request.getfixturevalue("s3")
    return found


def test_what_is_written_is_read(store: ArtifactStore) -> None:
    data = os.urandom(100_000)
    store.write("folder/file", data)
    assert store.read("folder/file") == data


def test_nothing_is_a_content_too(store: ArtifactStore) -> None:
    store.write("empty", b"")
    assert store.read("empty") == b""


def test_writing_again_replaces(store: ArtifactStore) -> None:
    store.write("file", b"longer than the other")
    store.write("file", b"short")
    assert store.read("file") == b"short"


def test_a_name_without_content_is_missing(store: ArtifactStore) -> None:
    with pytest.raises(MissingArtifact, match="none does not exist"):
        store.read("none")


def test_a_folder_is_no_artifact(store: ArtifactStore) -> None:
    store.write("folder/file", b"")
    assert not store.exists("folder")
    with pytest.raises(MissingArtifact):
        store.read("folder")


def test_exists_after_writing_and_not_after_deleting(store: ArtifactStore) -> None:
    store.write("file", b"")
    assert store.exists("file")
    store.delete("file")
    assert not store.exists("file")


def test_deleting_what_is_not_there_does_nothing(store: ArtifactStore) -> None:
    store.delete("none")


def test_a_list_holds_the_names_with_the_prefix_in_order(store: ArtifactStore) -> None:
    for name in ("b/2", "b/1", "bc", "a"):
        store.write(name, b"")
    assert store.list() == ["a", "b/1", "b/2", "bc"]
    assert store.list("b") == ["b/1", "b/2", "bc"]
    assert store.list("b/") == ["b/1", "b/2"]
    assert store.list("none/") == []


def test_names_under_a_prefix_are_relative_to_it(store: ArtifactStore) -> None:
    under = store.under("run")
    under.write("file", b"1")
    assert store.read("run/file") == b"1"
    assert under.list() == ["file"]
    assert under.address("file") == store.address("run/file")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_cannot_leave_the_store(store: ArtifactStore, name: str) -> None:
    with pytest.raises(StorageError, match="are expected"):
        store.write(name, b"")
    with pytest.raises(StorageError, match="are expected"):
        store.read(name)


def test_a_check_leaves_nothing_behind(store: ArtifactStore) -> None:
    store.check()
    assert store.list() == []


def test_threads_may_share_a_store(store: ArtifactStore) -> None:
    def there_and_back(i: int) -> bool:
        store.write(f"file{i}", bytes([i]) * 1000)
        return store.read(f"file{i}") == bytes([i]) * 1000

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(there_and_back, range(40)))


def test_a_full_disk_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(tmp_path)
    store.write("file", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        store.write("file", b"new")
    assert store.read("file") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_half_written_file_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".file.0123.tmp").write_bytes(b"half")
    assert DirectoryStore(tmp_path).list() == []


def test_a_symbolic_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="leads out of it"):
        DirectoryStore(tmp_path / "store").write("link/file", b"")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=f"{tmp_path}/file/store.*check the folder"):
        DirectoryStore(tmp_path / "file" / "store").check()


@pytest.mark.parametrize("root", ["", "gs://bucket", "s3://", "s3:///prefix"])
def test_a_root_of_another_kind_is_refused(root: str) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/prefix or a folder is expected"):
        open_store(root)


def test_an_address_is_what_other_programs_call_it(s3: S3Store, surroundings: Surroundings) -> None:
    assert s3.address("a/b").startswith(f"{surroundings.artifacts}/test-")
    assert s3.address("a/b").endswith("/a/b")


def failure(root: str) -> str:
    """The one line a check of the store fails with, within its time."""
    begin = time.monotonic()
    with pytest.raises(StorageError) as raised:
        open_store(root).check()
    assert time.monotonic() - begin < 10
    assert "\n" not in str(raised.value)
    return str(raised.value)


class Dead(Exception):
    pass


def die_after_the_headers(request: Any, **_: object) -> None:
    """What a process killed in the middle of a request leaves: the headers are sent, the content is not."""
    address = urlsplit(request.url)
    lines = [f"PUT {address.path} HTTP/1.1", f"Host: {address.netloc}"]
    for name, value in request.headers.items():
        lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    raise Dead


def test_a_writer_that_dies_before_its_content_is_sent_leaves_what_was_there(s3: S3Store) -> None:
    s3.write("file", b"before")
    s3._client.meta.events.register("before-send.s3.PutObject", die_after_the_headers)
    for name in ("file", "other"):
        with pytest.raises(Dead):
            s3.write(name, b"after")
    assert s3.read("file") == b"before"
    assert not s3.exists("other")


def test_an_endpoint_that_refuses_is_told(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert f"no S3 server answers at {endpoint}" in failure("s3://bucket/run")


def test_an_endpoint_that_is_silent_is_told(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "Read timeout" in failure("s3://bucket/run")


def test_an_endpoint_that_is_no_address_is_told(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert "correct the AWS_* variables" in failure("s3://bucket/run")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_told(s3: S3Store, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "wrong")
    assert "refuses these credentials" in failure(s3.address())


def test_no_credentials_are_told(s3: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert "no credentials; set AWS_ACCESS_KEY_ID" in failure(s3.address())


def test_a_bucket_that_is_not_there_is_told_and_not_made(s3: S3Store) -> None:
    assert "has no bucket 'mistyped'" in failure("s3://mistyped/run")
    assert "has no bucket 'mistyped'" in failure("s3://mistyped/run")


def test_uploads_in_parts_that_were_begun_and_never_ended_are_ended(s3: S3Store, surroundings: Surroundings) -> None:
    client, (bucket, _, key) = s3._client, s3.address("large").removeprefix("s3://").partition("/")
    abort_uploads([bucket], surroundings.env)  # of drivers that other tests killed
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"part")
    assert abort_uploads([bucket], surroundings.env) == 1
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert s3.list() == []


def test_what_a_killed_writer_left_is_tidied_and_what_another_writes_is_not(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.write("folder/file", b"data")
    for name, age in ((".old.1.tmp", 60), (".new.2.tmp", 0), (".written.3.tmp", 60)):
        (tmp_path / "folder" / name).touch()
        os.utime(tmp_path / "folder" / name, (time.time() - age,) * 2)
    with (tmp_path / "folder" / ".written.3.tmp").open() as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        store.tidy()
    assert {path.name for path in (tmp_path / "folder").iterdir()} == {"file", ".new.2.tmp", ".written.3.tmp"}
