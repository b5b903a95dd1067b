"""Bytes under a name, as objects of an S3 bucket."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

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

from meta_service.storage import Conflict, MissingArtifact, StorageError, Unsupported, Version, checked, probe

T = TypeVar("T")


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
        self._ask(name, lambda: self._put(key, data))

    def read(self, name: str) -> bytes:
        key = self._key(name)
        return self._ask(name, lambda: self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def read_versioned(self, name: str) -> tuple[bytes, Version]:
        key = self._key(name)

        def get() -> tuple[bytes, Version]:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]

        return self._ask(name, get)

    def write_if(self, name: str, data: bytes, version: Version | None) -> Version:
        key = self._key(name)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            answer = self._ask(name, lambda: self._put(key, data, **condition))
        except (Conflict, MissingArtifact) as conflict:  # missing: what was to be replaced was deleted
            with suppress(MissingArtifact):
                kept, now = self.read_versioned(name)
                if kept == data:
                    return now
            raise Conflict(f"{self.address(name)} was changed by somebody else") from conflict
        return str(answer["ETag"])

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
        store._prefix = f"{self._prefix}{checked(prefix.strip('/'))}/"
        return store

    def check(self) -> None:
        once = S3Store(self._bucket, self._prefix, attempts=1)
        try:  # some servers make a bucket of any name on the first write: a mistyped one must not be born so
            once._ask("", lambda: once._client.head_bucket(Bucket=self._bucket))
        except MissingArtifact as error:
            raise self._no_bucket() from error
        probe(once)

    def tidy(self) -> None:
        """An object is there as a whole or not at all: nothing is left half written."""

    def _put(self, key: str, data: bytes, **condition: Any) -> Any:
        # some servers make an empty object of what a dying client only announced, unless they see that it was not meant
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        return self._client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentMD5=md5, **condition)

    def _key(self, name: str) -> str:
        return self._prefix + checked(name)

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
        if code in ("412", "PreconditionFailed", "ConditionalRequestConflict"):
            return Conflict(f"{address} was changed by somebody else")
        if code in ("501", "NotImplemented"):
            return Unsupported(f"{address}: {endpoint} does not do what was asked ({code})")
        if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
            return StorageError(
                f"{address}: {endpoint} refuses these credentials ({code}); "
                "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or their rights"
            )
        return StorageError(f"{address}: {' '.join(str(error).split())}; check the S3 server at {endpoint}")


def abort_uploads(buckets: Iterable[str], env: Mapping[str, str]) -> int:
    """Ends for good the uploads in parts that killed processes began in these buckets, and frees their room; how many.

    `write` makes none; MLflow and Ray do, of large files. Only where nobody else uses the buckets. `env`: AWS_*.
    """
    client = boto3.session.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]).client(
        "s3",
        region_name=env["AWS_DEFAULT_REGION"],
        endpoint_url=env["AWS_ENDPOINT_URL"],
        config=Config(
            connect_timeout=1, read_timeout=4, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
        ),
    )
    aborted = 0
    with suppress(ClientError, BotoCoreError):  # it may be dead
        for bucket in buckets:
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
                for upload in page.get("Uploads", []):
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    aborted += 1
    return aborted
