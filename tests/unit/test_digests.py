"""Digests of content: the published values of every algorithm, in pieces as in one, and what an ETag or an answer says."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.digests import Digest, Md5, PartsMd5, checksum_of, digest, is_plain, parts_of

#: Of the digits 1 to 9, as the catalogues of these algorithms have them.
CHECK = {"crc32": 0xCBF43926, "crc32c": 0xE3069283, "crc64nvme": 0xAE8B14860A799888}
ALGORITHMS = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"]


def made(algorithm: str) -> Digest:
    found = digest(f"{algorithm}:")
    assert found
    return found


def bit_by_bit(content: bytes, polynomial: int, width: int) -> int:
    """Return a reflected CRC as its definition has it."""
    register = ones = (1 << width) - 1
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (polynomial if register & 1 else 0)
    return register ^ ones


def number(text: str) -> int:
    return int.from_bytes(base64.b64decode(text.partition(":")[2]), "big")


@pytest.mark.parametrize("algorithm", CHECK)
def test_crcs_are_those_of_the_catalogue(algorithm: str) -> None:
    found = made(algorithm)
    found.update(b"123456789")
    assert (number(found.value()), found.value().partition(":")[0]) == (CHECK[algorithm], algorithm)


@pytest.mark.parametrize(("algorithm", "polynomial", "width"), [("crc32c", 0x82F63B78, 32), ("crc64nvme", 0x9A6C9329AC4BC9B5, 64)])
@given(content=st.binary(max_size=600))
def test_a_crc_is_that_of_the_definition(algorithm: str, polynomial: int, width: int, content: bytes) -> None:
    found = made(algorithm)
    found.update(content)
    assert number(found.value()) == bit_by_bit(content, polynomial, width)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(content=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=5))
def test_content_in_pieces_is_content_in_one(algorithm: str, content: bytes, cuts: list[int]) -> None:
    whole, pieces, at = made(algorithm), made(algorithm), 0
    whole.update(content)
    for cut in [*sorted(cuts), len(content)]:
        pieces.update(content[at:cut])
        at = max(at, cut)
    assert pieces.value() == whole.value()


def test_a_crc_of_large_content_is_that_of_the_definition_too() -> None:
    content = bytes(range(256)) * 700
    found = made("crc64nvme")
    found.update(content)
    assert number(found.value()) == bit_by_bit(content, 0x9A6C9329AC4BC9B5, 64)


def test_the_others_are_those_of_the_standard_library() -> None:
    found = {algorithm: made(algorithm) for algorithm in ("crc32", "sha1", "sha256")}
    for one in found.values():
        one.update(b"content")
    assert number(found["crc32"].value()) == zlib.crc32(b"content")
    assert found["sha1"].value() == f"sha1:{base64.b64encode(hashlib.sha1(b'content').digest()).decode()}"
    assert found["sha256"].value() == f"sha256:{base64.b64encode(hashlib.sha256(b'content').digest()).decode()}"


@given(content=st.binary(max_size=100), part=st.integers(1, 30), step=st.integers(1, 40))
def test_an_etag_of_parts_is_the_md5_of_their_md5s(content: bytes, part: int, step: int) -> None:
    found = PartsMd5(part)
    for start in range(0, len(content), step):
        found.update(content[start : start + step])
    parts = [hashlib.md5(content[start : start + part]).digest() for start in range(0, len(content), part)]
    assert found.value() == f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"


def test_an_etag_says_whether_and_in_how_many_parts() -> None:
    plain = Md5()
    plain.update(b"abc")
    assert plain.value() == hashlib.md5(b"abc").hexdigest()
    assert (is_plain(plain.value()), parts_of(plain.value())) == (True, 0)
    assert (is_plain(f"{plain.value()}-12"), parts_of(f"{plain.value()}-12")) == (False, 12)
    capitals = plain.value().upper()
    assert (is_plain(capitals), parts_of(f"{capitals}-12")) == (True, 12)
    for other in ("", "etag", capitals[:16] + plain.value()[16:], f"{plain.value()}-0", f"{plain.value()}-x", f"{plain.value()}-123456"):
        assert (is_plain(other), parts_of(other)) == (False, 0)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({}, ""),
        ({"ChecksumCRC64NVME": "AA=="}, "crc64nvme:AA=="),
        ({"ChecksumCRC64NVME": "AA==", "ChecksumType": "FULL_OBJECT"}, "crc64nvme:AA=="),
        ({"ChecksumSHA256": "AA==", "ChecksumType": "COMPOSITE"}, ""),
        ({"ChecksumSHA256": "AA==-3"}, ""),
        ({"ChecksumCRC64NVME": "AA==", "ChecksumSHA256": "BB=="}, "sha256:BB=="),
    ],
)
def test_a_checksum_is_taken_where_it_is_of_the_whole_object(answer: dict[str, str], found: str) -> None:
    assert checksum_of(answer) == found


def test_an_algorithm_that_is_not_known_is_no_digest() -> None:
    assert (digest(""), digest("md6:AA==")) == (None, None)
