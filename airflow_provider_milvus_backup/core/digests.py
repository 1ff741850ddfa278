"""What the content of an object is compared with: ETags, and the checksums that S3 computes. Pure functions and arithmetic.

An ETag without a dash is the MD5 of the content, unless keys of KMS or of the client encrypt it. One with a dash, of an object that was
written in parts, is on most stores the MD5 of the MD5s of its parts, in hex, and the number of parts. Checksums are base64; those of CRCs
are big-endian (``API_Checksum`` of the S3 reference; CRC-64/NVME and CRC-32C as in the catalogue of parametrised CRC algorithms).
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from functools import cache
from typing import Any, Protocol

#: In capitals too, as Alibaba's OSS writes them.
_PLAIN = re.compile(r"[0-9a-f]{32}|[0-9A-F]{32}")
_PARTS = re.compile(r"(?:[0-9a-f]{32}|[0-9A-F]{32})-([1-9][0-9]{0,4})")
#: The CRCs that the standard library does not have: their names in the catalogue, and how many bytes they take.
_CRCS = {"crc32c": ("CRC32-ISCSI", 4), "crc64nvme": ("CRC64-NVME", 8)}

#: By algorithm the name that boto3 has for its checksum, the strongest first.
ALGORITHMS = {
    "sha256": "ChecksumSHA256",
    "sha1": "ChecksumSHA1",
    "crc64nvme": "ChecksumCRC64NVME",
    "crc32c": "ChecksumCRC32C",
    "crc32": "ChecksumCRC32",
}


class Digest(Protocol):
    """Something that reads content and says what it amounts to."""

    def update(self, data: bytes, /) -> None:
        """Read more."""

    def value(self) -> str:
        """Return what to compare."""


def is_plain(etag: str) -> bool:
    """Return whether an ETag has the shape of an MD5."""
    return _PLAIN.fullmatch(etag) is not None


def parts_of(etag: str) -> int:
    """Return how many parts an object was written in by its ETag, 0 when that does not say."""
    found = _PARTS.fullmatch(etag)
    return int(found[1]) if found else 0


def checksum_of(answer: dict[str, Any]) -> str:
    """Return ``<algorithm>:<base64>`` of a whole object out of boto3's answer to HEAD; empty when there is none.

    A checksum of the checksums of parts (``COMPOSITE``) says nothing without the bounds of the parts.
    """
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return ""
    for algorithm, name in ALGORITHMS.items():
        if (value := answer.get(name)) and "-" not in value:
            return f"{algorithm}:{value}"
    return ""


def digest(checksum: str) -> Digest | None:
    """Return what computes a checksum like this one; None for an algorithm that is not known here."""
    algorithm = checksum.partition(":")[0]
    if algorithm in ("sha1", "sha256"):
        return _Hash(algorithm)
    if algorithm == "crc32":
        return _Crc32()
    return _Crc(algorithm) if algorithm in _CRCS else None


class Md5:
    """The MD5 of a whole object, as an ETag."""

    def __init__(self) -> None:
        self._found = hashlib.md5(usedforsecurity=False)

    def update(self, data: bytes, /) -> None:
        """Read more."""
        self._found.update(data)

    def value(self) -> str:
        """Return the ETag."""
        return self._found.hexdigest()


class PartsMd5:
    """The ETag of an object that was written in parts of one size, but for the last."""

    def __init__(self, part: int) -> None:
        self._part, self._left = part, part
        self._found, self._whole, self._count = hashlib.md5(usedforsecurity=False), b"", 0

    def update(self, data: bytes, /) -> None:
        """Read more."""
        at = 0
        while at < len(data):
            piece = data[at : at + self._left]
            self._found.update(piece)
            at += len(piece)
            self._left -= len(piece)
            if not self._left:
                self._close()

    def value(self) -> str:
        """Return the ETag."""
        if self._left < self._part:
            self._close()
        return f"{hashlib.md5(self._whole, usedforsecurity=False).hexdigest()}-{self._count}"

    def _close(self) -> None:
        self._whole += self._found.digest()
        self._count += 1
        self._found, self._left = hashlib.md5(usedforsecurity=False), self._part


class _Hash:
    def __init__(self, algorithm: str) -> None:
        self._algorithm, self._found = algorithm, hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes, /) -> None:
        self._found.update(data)

    def value(self) -> str:
        return _text(self._algorithm, self._found.digest())


class _Crc32:
    def __init__(self) -> None:
        self._found = 0

    def update(self, data: bytes, /) -> None:
        self._found = zlib.crc32(data, self._found)

    def value(self) -> str:
        return _text("crc32", self._found.to_bytes(4, "big"))


class _Crc:
    def __init__(self, algorithm: str) -> None:
        self._algorithm, self._model, self._found = algorithm, _model(algorithm), 0

    def update(self, data: bytes, /) -> None:
        self._found = self._model.calc(data, self._found)

    def value(self) -> str:
        return _text(self._algorithm, self._found.to_bytes(_CRCS[self._algorithm][1], "big"))


@cache
def _model(algorithm: str) -> Any:
    import anycrc

    return anycrc.Model(_CRCS[algorithm][0])


def _text(algorithm: str, digest: bytes) -> str:
    return f"{algorithm}:{base64.b64encode(digest).decode()}"
