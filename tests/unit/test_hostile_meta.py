"""Damaged and hostile meta is refused, never half believed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupDamaged, UnsupportedFormat
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.meta_writer import to_files
from tests.official_backups import rewrite, synthetic
from tests.unit.meta_documents import (
    BUSY,
    Change,
    by_file,
    changed,
    coll,
    head,
    part,
    read,
    seg,
    text,
)

HOSTILE: dict[str, Change] = {
    "collections are no list": lambda d: d.update(collection_backups={}),
    "a collection is no object": lambda d: d.update(collection_backups=[1]),
    "a name is no text": lambda d: d.update(name=5),
    "format is no text": lambda d: d.update(format=1),
    "a collection without a name": lambda d: coll(d).pop("collection_name"),
    "a collection without an id": lambda d: coll(d).pop("collection_id"),
    "a collection without a schema": lambda d: coll(d).pop("schema"),
    "a negative collection id": lambda d: coll(d).update(collection_id=-1),
    "a quoted id": lambda d: coll(d).update(collection_id="1"),
    "an id that is a fraction": lambda d: coll(d).update(collection_id=1.0),
    "an id that is true": lambda d: coll(d).update(collection_id=True),
    "an id that is a path": lambda d: coll(d).update(collection_id="../../1"),
    "an id beyond int64": lambda d: coll(d).update(collection_id=2**63),
    "a huge id": lambda d: coll(d).update(collection_id=10**400),
    "a timestamp beyond uint64": lambda d: coll(d).update(backup_timestamp=2**64),
    "shards beyond int32": lambda d: coll(d).update(shards_num=2**31),
    "an unknown consistency level": lambda d: coll(d).update(consistency_level=5),
    "aliases that are numbers": lambda d: coll(d).update(aliases=[1]),
    "checkpoints that are numbers": lambda d: coll(d).update(channel_checkpoints={"a": 1}),
    "properties that are an object": lambda d: coll(d).update(properties={"a": "b"}),
    "index params that are numbers": lambda d: coll(d)["index_infos"][0].update(params={"M": 16}),
    "a partition without a name": lambda d: part(d).pop("partition_name"),
    "a partition with id -1": lambda d: part(d).update(partition_id=-1),
    "a partition with a path for an id": lambda d: part(d).update(partition_id="1/../2"),
    "a segment without an id": lambda d: seg(d).pop("segment_id"),
    "a segment of partition -2": lambda d: seg(d).update(partition_id=-2),
    "a negative row count": lambda d: seg(d).update(num_of_rows=-1),
    "a group that is a path": lambda d: seg(d).update(group_id="../1"),
    "a negative group": lambda d: seg(d).update(group_id=-1),
    "logs that are no list": lambda d: seg(d).update(binlogs={}),
    "a log that is no object": lambda d: seg(d).update(deltalogs=[{"binlogs": ["x"]}]),
    "a negative log id": lambda d: seg(d).update(binlogs=[{"binlogs": [{"log_id": -1}]}]),
    "a negative log size": lambda d: seg(d).update(binlogs=[{"binlogs": [{"log_id": 1, "log_size": -1}]}]),
    "a negative field": lambda d: seg(d).update(binlogs=[{"fieldID": -1, "binlogs": [{"log_id": 1}]}]),
    "a collection twice": lambda d: d["collection_backups"].append(coll(d)),
    "a collection twice, once without database": lambda d: d["collection_backups"].append({**coll(d), "db_name": ""}),
    "a database that is no object": lambda d: d.update(database_backups=["default"]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damaged_meta_is_refused(case: str) -> None:
    with pytest.raises(BackupDamaged):
        read(changed(HOSTILE[case]))


def test_the_place_of_the_damage_is_named() -> None:
    with pytest.raises(BackupDamaged, match=r"full_meta\.json\.collection_backups\[0\]\.partition_backups\[0\]\.segment_backups\[0\]"):
        read(changed(lambda d: seg(d).update(num_of_rows="x" * 1000)))
    with pytest.raises(BackupDamaged) as caught:
        read(changed(lambda d: seg(d).update(num_of_rows="x" * 1000)))
    assert len(str(caught.value)) < 300


NOT_REFUSED: dict[str, Change] = {
    "a partition twice": lambda d: coll(d)["partition_backups"].append(part(d)),
    "a segment twice": lambda d: part(d)["segment_backups"].append(seg(d)),
    "an L0 segment twice": lambda d: coll(d)["l0_segments"].append(coll(d)["l0_segments"][0]),
    "a log twice": lambda d: seg(d)["binlogs"][0]["binlogs"].append(seg(d)["binlogs"][0]["binlogs"][0]),
    "two collections of one id": lambda d: d["collection_backups"].append({**coll(d), "collection_name": "other"}),
    "a segment of another partition": lambda d: seg(d).update(partition_id=77),
}


@pytest.mark.parametrize("case", NOT_REFUSED)
def test_meta_that_contradicts_itself_is_refused(case: str) -> None:
    with pytest.raises(BackupDamaged):
        read(changed(NOT_REFUSED[case]))


@pytest.mark.parametrize("file", ["partition_meta.json", "segment_meta.json"])
def test_level_files_that_lost_entries_are_refused(file: str) -> None:
    files = by_file(synthetic().files())
    del files["full_meta.json"]
    files[file] = b'{"infos":[]}'
    with pytest.raises(BackupDamaged):
        from_files(files)


@pytest.mark.parametrize("half", [b"\\ud800", b"\\uDBFF", b"\\udfff", b"\\uDC00", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\\ud83d\\ud83d"])
def test_half_a_character_is_refused_when_it_is_read(half: bytes) -> None:
    data = WHOLE.replace(b"docs_live", half)
    with pytest.raises(BackupDamaged):
        from_files({"full_meta.json": data})


def test_a_character_outside_the_first_plane_is_read_in_both_spellings() -> None:
    for spelled in (b"\\ud83d\\ude00", "\U0001f600".encode()):
        data = WHOLE.replace(b"docs_live", spelled)
        assert from_files({"full_meta.json": data}).collections[0].aliases == ["\U0001f600"]


def test_level_files_that_lost_the_partition_of_a_segment_are_refused() -> None:
    files = by_file(rewrite(synthetic().full_meta, "l0compact", "backup", "old")[0])
    del files["full_meta.json"]
    files["partition_meta.json"] = b'{"infos":[]}'
    with pytest.raises(BackupDamaged):
        from_files(files)


def test_delta_logs_in_several_lists_of_one_field_are_kept() -> None:
    document = head()
    lists = seg(document)["deltalogs"]
    lists.append({"binlogs": [{**lists[0]["binlogs"][0], "log_id": 4711}]})
    deltas = read(document).collections[0].partitions[0].segments[0].deltas
    assert [log.log_id for entry in deltas for log in entry.logs][-1] == 4711


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b'{"a":',
        b"\xff\xfe\x00",
        b"\x00",
        b"{}{}",
        b'{"id":\xff}',
        b"9" * 5000,
        b"{" * 100_000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"size":' + b"9" * 5000 + b"}",
        b'{"collection_backups":' + b"[" * 900 + b"]" * 900 + b"}",
    ],
    ids=range(17),
)
def test_a_file_that_is_not_a_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(BackupDamaged):
        from_files({"full_meta.json": data})


def test_a_truncated_file_is_refused_wherever_it_ends() -> None:
    data = by_file(synthetic().files())["full_meta.json"]
    for end in range(0, len(data) - 1, 23):
        with pytest.raises(BackupDamaged, match=f"{end} bytes"):
            from_files({"full_meta.json": data[:end]})


@settings(BUSY, max_examples=50)
@given(st.data())
def test_flipped_bytes_are_read_or_refused_but_never_another_error(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BackupDamaged, UnsupportedFormat):
        from_files({"full_meta.json": bytes(whole)})


WHOLE = by_file(synthetic(partition_l0=True).files())["full_meta.json"]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | st.sampled_from(["../../x", "\x00", "1", "-1", 2**63, 2**64, 10**30]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON document."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(place for key, item in steps for place in places(item, (*above, key)))]


PLACES = places(json.loads(WHOLE))[1:]


@settings(BUSY, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(PLACES), anything | st.just("gone")), min_size=1, max_size=3))
def test_replaced_values_are_read_or_refused_but_never_another_error(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document = json.loads(WHOLE)
    for place, value in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError):
            target = document
            for step in place[:-1]:
                target = target[step]
            if value == "gone":
                del target[place[-1]]
            else:
                target[place[-1]] = value
    with contextlib.suppress(BackupDamaged, UnsupportedFormat):
        found = read(document)
        assert from_files(dict(to_files(found, "files"))).size == found.size


@settings(BUSY, max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from([*layout.META_FILES, "channel_cp_meta.json"]), st.binary(max_size=8) | st.sampled_from([b"{}", b'{"infos":[{}]}'])
    )
)
def test_any_set_of_files_is_read_or_refused_but_never_another_error(files: dict[str, bytes]) -> None:
    with contextlib.suppress(BackupDamaged, UnsupportedFormat):
        from_files(files)
