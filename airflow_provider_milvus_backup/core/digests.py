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
#: Reflected polynomials.
_CRC64NVME, _CRC32C = (0x9A6C9329AC4BC9B5, 64), (0x82F63B78, 32)
#: Bytes of one division.
_BLOCK = 1 << 16

#: By algorithm the name that boto3 has for its checksum, the ones that cost least first.
ALGORITHMS = {
    "crc32": "ChecksumCRC32",
    "sha256": "ChecksumSHA256",
    "sha1": "ChecksumSHA1",
    "crc32c": "ChecksumCRC32C",
    "crc64nvme": "ChecksumCRC64NVME",
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
    known = {"crc64nvme": _CRC64NVME, "crc32c": _CRC32C}
    return _Crc(algorithm, *known[algorithm]) if algorithm in known else None


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
    """A reflected CRC of large integers, some twenty times as fast as bit by bit.

    The content is a polynomial over GF(2), its first bit the highest power; the integer that its bytes are, little-endian, holds the powers
    in the opposite order. What begins it, ``h``, weighs ``h · x^t`` when ``t`` bits follow, and the remainder of ``x^t`` may stand for it.
    The product then has hardly more bits than ``h``, and is added to what follows: so the content halves, until little is left.
    """

    def __init__(self, algorithm: str, polynomial: int, width: int) -> None:
        self._algorithm, self._polynomial, self._width = algorithm, polynomial, width
        self._register = self._ones = (1 << width) - 1

    def update(self, data: bytes, /) -> None:
        for start in range(0, len(data), _BLOCK):
            block = data[start : start + _BLOCK]
            self._register = self._after(int.from_bytes(block, "little") ^ self._register, 8 * len(block))

    def value(self) -> str:
        return _text(self._algorithm, (self._register ^ self._ones).to_bytes(self._width // 8, "big"))

    def _after(self, content: int, bits: int) -> int:
        """Return the register after so many bits."""
        if bits > 4 * self._width:
            # Zeros in front change nothing, and few different lengths need few different powers.
            longer = 1 << (bits - 1).bit_length()
            content, bits = content << (longer - bits), longer
            while bits > 4 * self._width:
                head = (bits - self._width) // 2
                tail = bits - head
                folded = _product(content & ((1 << head) - 1), _power(self._polynomial, self._width, tail))
                content, bits = (content >> head) ^ (folded << (tail - head - self._width + 1)), tail
        for _ in range(bits):
            content = (content >> 1) ^ (self._polynomial if content & 1 else 0)
        return content


def _product(long: int, short: int) -> int:
    """Return the product of two polynomials over GF(2)."""
    found = 0
    while short:
        lowest = short & -short
        found ^= long << (lowest.bit_length() - 1)
        short ^= lowest
    return found


@cache
def _power(polynomial: int, width: int, exponent: int) -> int:
    """Return the remainder of ``x^exponent``, its powers in the opposite order."""
    found = 1 << (width - 1)
    for _ in range(exponent):
        found = (found >> 1) ^ (polynomial if found & 1 else 0)
    return found


def _text(algorithm: str, digest: bytes) -> str:
    return f"{algorithm}:{base64.b64encode(digest).decode()}"
