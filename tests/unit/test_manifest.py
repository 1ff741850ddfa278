"""The manifest: what is written is what is read, it is compact, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.errors import BackupDamaged
from airflow_provider_milvus_backup.core.manifest import Recorded, from_json, to_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PARTS = st.lists(TEXT.filter(lambda part: "/" not in part and part != ".."), min_size=2, max_size=6)
PLACES = st.sampled_from(["binlogs/insert_log", "binlogs/delta_log", "bundle"])
KEYS = st.builds(lambda place, parts: "/".join([place, *parts]), PLACES, PARTS)
OBJECTS = st.lists(
    st.builds(Recorded, KEYS, st.integers(0, 2**63 - 1), TEXT | st.just(""), st.sampled_from(["", "crc32:AAAAAA=="])),
    unique_by=lambda item: item.key,
    max_size=20,
)
ONE = Recorded("binlogs/insert_log/1/2/3/3/0/4", 5, "e")
META = {"full_meta.json": (7, "ab")}


def forged(change: dict[str, Any], **body: Any) -> bytes:
    """Return a manifest with other content, whose own checksum fits."""
    document = {**json.loads(to_json("an-id", META, [ONE], md5=True))["body"], **body, **change}
    text = json.dumps(document, separators=(",", ":")).encode()
    return b'{"version":1,"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'","body":' + text + b"}"


@given(objects=OBJECTS, md5=st.booleans())
def test_what_is_written_is_what_is_read(objects: list[Recorded], md5: bool) -> None:
    objects.sort()
    found = from_json(to_json("an-id", META, objects, md5=md5))
    assert (found.backup_id, found.md5, found.meta, list(found.objects())) == ("an-id", md5, META, objects)


@settings(max_examples=300)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(at: int, bit: int) -> None:
    content = bytearray(to_json("an-id", META, [ONE, ONE._replace(key="binlogs/insert_log/1/2/3/3/0/5")], md5=True))
    content[at % len(content)] ^= 1 << bit
    with pytest.raises(BackupDamaged):
        from_json(bytes(content))


@given(cut=st.integers(0, 10**6))
def test_a_cut_is_noticed(cut: int) -> None:
    content = to_json("an-id", META, [ONE], md5=True)
    with pytest.raises(BackupDamaged):
        from_json(content[: cut % len(content)])


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"version":2}', b"[" * 100_000, b'{"version":1,"sha256":5}'])
def test_something_else_is_no_manifest(content: bytes) -> None:
    with pytest.raises(BackupDamaged, match=r"manifest\.json"):
        from_json(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backup_id": 5}, "backup_id"),
        ({"md5": "yes"}, "md5"),
        ({"meta": {"full_meta.json": [1]}}, "a size and a SHA-256"),
        ({"meta": {"full_meta.json": [-1, "x"]}}, "a size and a SHA-256"),
        ({"meta": None}, "not an object"),
        ({"objects": [5]}, "not a directory with columns"),
        ({"objects": [["binlogs/", ["a"], [1]]]}, "not a directory with columns"),
        ({"objects": [["binlogs/", ["a"], [1], []]]}, "columns of different length"),
        ({"objects": [["binlogs/", ["a"], [1], 5]]}, "columns of different length"),
        ({"objects": [["binlogs/", ["a"], [True], ["e"]]]}, "no name, size"),
        ({"objects": [["binlogs/", ["a"], [2**63], ["e"]]]}, "no name, size"),
        ({"objects": [["binlogs/", ["a"], [1], [None]]]}, "no name, size"),
        ({"objects": [["provider/", ["a"], [1], ["e"]]]}, "where a backup has no data"),
        ({"objects": [["binlogs/../meta/", ["a"], [1], ["e"]]]}, "where a backup has no data"),
        ({"objects": [["binlogs/", ["a"], [1], ["e"]], ["binlogs/", ["a"], [1], ["e"]]]}, "names an object twice"),
    ],
)
def test_a_manifest_is_not_trusted_because_its_own_checksum_fits(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BackupDamaged, match=said):
        from_json(forged(change))


def test_an_object_takes_less_than_a_hundred_bytes() -> None:
    base = "binlogs/insert_log/446930823172398000/446930823172398001"
    etag = hashlib.md5(b"").hexdigest()
    objects = [
        Recorded(f"{base}/{segment}/{segment}/{field}/{446930823172500000 + 20 * segment + field}", 123_456_789, etag)
        for segment in range(446930823172400000, 446930823172400100)
        for field in (0, 1, *range(100, 110))
    ]
    content = to_json("an-id", META, objects, md5=True)
    assert len(content) < 100 * len(objects)
    assert list(from_json(content).objects()) == objects
