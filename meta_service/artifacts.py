"""Where bytes are kept under a name: an S3 bucket or a directory."""

import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)

from meta_service.errors import UserError

T = TypeVar("T")


class StorageError(UserError):
    """The store could not do what was asked: the address, what happened and what to do, in one line."""


class MissingArtifact(StorageError):
    """The store answers, and has nothing under this name."""


class ArtifactStore(Protocol):
    """A name -> bytes. Names are relative, parts joined by "/". Failures are StorageErrors; any thread may use it."""

    def write(self, name: str, data: bytes) -> None:
        """All of `data` or nothing: a reader never sees a part of it."""

    def read(self, name: str) -> bytes:
        """Raises MissingArtifact."""

    def exists(self, name: str) -> bool: ...

    def list(self, prefix: str = "") -> list[str]:
        """All names that begin with `prefix`, sorted."""

    def delete(self, name: str) -> None:
        """Nothing happens where there is none."""

    def address(self, name: str = "") -> str:
        """What a user would give to another program: s3://bucket/name or a path."""

    def under(self, prefix: str) -> "ArtifactStore":
        """The same store, all names beginning with `prefix`/."""

    def check(self) -> None:
        """Writes, reads and deletes a small object; StorageError within about 10 s where that fails."""


def open_store(root: str) -> ArtifactStore:
    """`s3://bucket/prefix` (endpoint and credentials from the usual AWS_* variables) or the path of a folder."""
    scheme, separator, rest = root.partition("://")
    if not separator and root:
        return DirectoryStore(root)
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise UserError(f"artifacts: s3://bucket/prefix or a folder is expected, '{root}' came; correct ARTIFACT_ROOT")
    return S3Store(bucket, prefix)


def _checked(name: str) -> str:
    """`name`, or StorageError where it could lead out of the store."""
    if "\\" in name or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise StorageError(f"artifact names like 'folder/file' are expected, '{name}' came")
    return name


def _probe(store: ArtifactStore) -> None:
    """A write, a read and a delete."""
    name, data = f"probe-{uuid.uuid4().hex}", os.urandom(64)
    store.write(name, data)
    if store.read(name) != data:
        raise StorageError(f"{store.address()} gives back other bytes than were written; use another store")
    store.delete(name)


class DirectoryStore:
    """A folder of this machine, or one all machines mount."""

    def __init__(self, path: str | Path) -> None:
        self._root = Path(path).expanduser().resolve()

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        # a reader, and this process after a crash, sees the whole file or none
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise self._error(name, error) from error

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingArtifact(f"{self.address(name)} does not exist") from error
        except OSError as error:
            raise self._error(name, error) from error

    def exists(self, name: str) -> bool:
        return self._path(name).is_file()

    def list(self, prefix: str = "") -> list[str]:
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self._root
        files = (path for path in start.rglob("*") if path.is_file() and not path.name.endswith(".tmp"))
        names = (path.relative_to(self._root).as_posix() for path in files)
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise self._error(name, error) from error

    def address(self, name: str = "") -> str:
        return str(self._root / name)

    def under(self, prefix: str) -> "DirectoryStore":
        return DirectoryStore(self._path(prefix.strip("/")))

    def check(self) -> None:
        _probe(self)

    def _path(self, name: str) -> Path:
        path = self._root / _checked(name)
        if not path.resolve().is_relative_to(self._root):  # through a symbolic link
            raise StorageError(f"artifact names inside {self._root} are expected, '{name}' leads out of it")
        return path

    def _error(self, name: str, error: OSError) -> StorageError:
        return StorageError(
            f"{self.address(name)}: {error.strerror or error}; check the folder's rights and free space"
        )


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable: it is a change of the folder, not of the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Store:
    """A bucket of S3 or of a server that speaks its protocol; endpoint and credentials from the AWS_* variables."""

    def __init__(self, bucket: str, prefix: str = "", attempts: int = 5) -> None:
        """`attempts`: of each request, with growing pauses, before it is a StorageError."""
        self._bucket, self._prefix = bucket, "".join(f"{part}/" for part in prefix.split("/") if part)
        config = Config(
            connect_timeout=3,
            read_timeout=20 if attempts > 1 else 4,
            retries={"mode": "standard", "total_max_attempts": attempts},
            s3={"addressing_style": "path"},  # bucket.host needs DNS that S3-compatible servers rarely have
            request_checksum_calculation="when_required",  # some of them refuse the newer checksums
            response_checksum_validation="when_required",
            max_pool_connections=16,
        )
        try:
            # a session of its own: boto3's default one must not be shared by threads
            self._client = boto3.session.Session().client("s3", config=config)
        except (BotoCoreError, ValueError) as error:  # a malformed endpoint, a profile that does not exist
            raise StorageError(f"{self.address()}: {error}; correct the AWS_* variables") from error

    def write(self, name: str, data: bytes) -> None:
        key = self._key(name)
        self._ask(name, lambda: self._client.put_object(Bucket=self._bucket, Key=key, Body=data))

    def read(self, name: str) -> bytes:
        key = self._key(name)
        return self._ask(name, lambda: self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def exists(self, name: str) -> bool:
        key = self._key(name)
        try:
            self._ask(name, lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        except MissingArtifact:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate
        start = self._prefix + prefix
        found = self._ask(prefix, lambda: [*pages(Bucket=self._bucket, Prefix=start)])
        keys = (item["Key"] for page in found for item in page.get("Contents", []))
        return sorted(key.removeprefix(self._prefix) for key in keys)

    def delete(self, name: str) -> None:
        key = self._key(name)
        self._ask(name, lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    def address(self, name: str = "") -> str:
        return f"s3://{self._bucket}/{self._prefix}{name}".rstrip("/")

    def under(self, prefix: str) -> "S3Store":
        store = object.__new__(S3Store)  # the same client: making one takes tens of milliseconds
        store._bucket, store._client = self._bucket, self._client
        store._prefix = f"{self._prefix}{_checked(prefix.strip('/'))}/"
        return store

    def check(self) -> None:
        once = S3Store(self._bucket, self._prefix, attempts=1)
        try:  # some servers make a bucket of any name on the first write: a mistyped one must not be born so
            once._ask("", lambda: once._client.head_bucket(Bucket=self._bucket))
        except MissingArtifact as error:
            raise self._no_bucket() from error
        _probe(once)

    def _key(self, name: str) -> str:
        return self._prefix + _checked(name)

    def _ask(self, name: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except (ClientError, BotoCoreError) as error:
            raise self._error(name, error) from error

    def _no_bucket(self) -> StorageError:
        endpoint = self._client.meta.endpoint_url
        return StorageError(
            f"{self.address()}: {endpoint} has no bucket '{self._bucket}'; create it or correct its name"
        )

    def _error(self, name: str, error: ClientError | BotoCoreError) -> StorageError:
        """What went wrong, told apart by what the user has to do about it."""
        address, endpoint = self.address(name), self._client.meta.endpoint_url
        if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
            return StorageError(f"{address}: no S3 server answers at {endpoint}; start it or correct AWS_ENDPOINT_URL")
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return StorageError(f"{address}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if not isinstance(error, ClientError):
            return StorageError(f"{address}: {error}; check the S3 server at {endpoint}")
        code = error.response.get("Error", {}).get("Code", "")
        if code == "NoSuchBucket":
            return self._no_bucket()
        if code in ("NoSuchKey", "404"):
            return MissingArtifact(f"{address} does not exist")
        if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
            return StorageError(
                f"{address}: {endpoint} refuses these credentials ({code}); "
                "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or their rights"
            )
        return StorageError(f"{address}: {' '.join(str(error).split())}; check the S3 server at {endpoint}")
