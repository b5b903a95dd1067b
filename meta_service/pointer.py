"""What a pointer to a checkpoint says: the name of a manifest, who of a run's owners wrote it, and a seal.

<first 16 digits of the SHA-256 of its name and what follows> <epoch> manifests/<iteration>-<sha256>.json
"""

import hashlib
import re
from typing import NamedTuple

LATEST, BEST = "LATEST", "BEST"
MANIFEST = re.compile(r"manifests/(\d{9})-([0-9a-f]{16})\.json")
NOTHING = "none"  # in the place of a manifest: an owner marked the pointer before there was a checkpoint


class Pointer(NamedTuple):
    """A pointer as it was read."""

    epoch: int
    """Of the owner that wrote it; 0: nobody owned the run."""
    manifest: str
    """The manifest's name, or NOTHING."""

    def to_bytes(self, name: str) -> bytes:
        text = f"{self.epoch} {self.manifest}"
        return f"{_seal(name, text)} {text}".encode()

    @staticmethod
    def from_bytes(name: str, data: bytes) -> "Pointer | None":
        """None where these are not the bytes that were written under this name."""
        seal, _, text = data.decode(errors="replace").partition(" ")
        epoch, _, manifest = text.partition(" ")
        if seal != _seal(name, text) or not (manifest == NOTHING or MANIFEST.fullmatch(manifest)):
            return None
        return Pointer(int(epoch), manifest)

    @property
    def iteration(self) -> int | None:
        match = MANIFEST.fullmatch(self.manifest)
        return int(match[1]) if match else None


def _seal(name: str, text: str) -> str:
    return hashlib.sha256(f"{name} {text}".encode()).hexdigest()[:16]
