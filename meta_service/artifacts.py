"""Where bytes are kept under a name: an S3 bucket or a directory."""

from meta_service.directory_store import DirectoryStore
from meta_service.errors import UserError
from meta_service.s3_store import S3Store
from meta_service.storage import ArtifactStore, Conflict, MissingArtifact, StorageError

__all__ = ["ArtifactStore", "Conflict", "DirectoryStore", "MissingArtifact", "S3Store", "StorageError", "open_store"]


def open_store(root: str) -> ArtifactStore:
    """`s3://bucket/prefix` (endpoint and credentials from the usual AWS_* variables) or the path of a folder."""
    scheme, separator, rest = root.partition("://")
    if not separator and root:
        return DirectoryStore(root)
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise UserError(f"artifacts: s3://bucket/prefix or a folder is expected, '{root}' came; correct ARTIFACT_ROOT")
    return S3Store(bucket, prefix)
