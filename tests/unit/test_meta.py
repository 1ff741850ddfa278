"""What is written is read back equal, every official generation is understood, and damaged meta is never half believed."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupDamaged, UnsupportedFormat
from airflow_provider_milvus_backup.core.meta import (
    Backup,
    Collection,
    Database,
    FieldLogs,
    Index,
    Log,
    Partition,
    Segment,
)
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.meta_writer import to_files
from airflow_provider_milvus_backup.core.names import CollectionName
from tests.format_reader import check_backup
from tests.official_backups import GENERATIONS, rewrite, synthetic

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Json = dict[str, Any]

# ---- strategies ----------------------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
named = st.text(st.sampled_from("abc_$1<&ä\u2028"), min_size=1, max_size=6)
ids = st.integers(1, 2**63 - 1)
zero_or_id = st.integers(0, 2**63 - 1)
sizes = st.integers(0, 2**50)  # what adds up must still be an int64
timestamps = st.integers(0, 2**64 - 1)
string_pairs = st.lists(st.tuples(text, text), max_size=2)
sizes = st.integers(0, 2**50)
one_log = st.builds(Log, zero_or_id, sizes, st.just(""))  # meta files have no ETags
logs = st.lists(one_log, min_size=1, max_size=3, unique_by=lambda log: log.log_id)
field_logs = st.lists(st.builds(FieldLogs, zero_or_id, logs), max_size=3, unique_by=lambda found: found.field_id)
# The key of a delta log has no field in it, so a segment has each id once. The field is 0, in one list or several.
delta_logs = st.lists(one_log, max_size=4, unique_by=lambda log: log.log_id).map(
    lambda found: [FieldLogs(0, part) for part in (found[:2], found[2:]) if part]
)


def segment(partition: int) -> st.SearchStrategy[Segment]:
    common: dict[str, Any] = {"segment_id": ids, "partition_id": st.just(partition), "rows": zero_or_id, "v_channel": text}
    if partition == layout.ALL_PARTITIONS:
        return st.builds(Segment, **common, inserts=st.just([]), deltas=delta_logs, group_id=st.none(), is_l0=st.just(True))
    versions = st.integers(0, 3)
    l0 = st.booleans()
    return st.builds(Segment, **common, inserts=field_logs, deltas=delta_logs, group_id=st.none() | ids, is_l0=l0, storage_version=versions)


def by_segment(items: st.SearchStrategy[Segment]) -> st.SearchStrategy[list[Segment]]:
    return st.lists(items, max_size=3, unique_by=lambda found: found.segment_id)


def with_segments(number: int, name: str, segments: list[Segment], load_state: str) -> Partition:
    return Partition(number, name, [replace(found, partition_id=number) for found in segments], load_state)


partitions = st.builds(with_segments, ids, named, by_segment(segment(1)), text)
indexes = st.builds(Index, text, text, text, st.dictionaries(text, text, max_size=2), zero_or_id)


def with_properties(found: Collection, name: str, properties: dict[str, str]) -> Collection:
    pairs = [{"key": key, "value": value} for key, value in properties.items()]
    fields = [{"fieldID": 100, "name": "pk", "is_primary_key": True, "data_type": 5}]
    return replace(found, schema={"name": name, "fields": fields, "properties": pairs}, properties=list(properties.items()))


def distinct(found: Collection) -> bool:
    segments = [segment.segment_id for segment in found.segments()]
    return len(segments) == len(set(segments))


bare_collections = st.builds(
    Collection,
    collection_id=ids,
    name=st.builds(CollectionName, named, named),
    schema=st.just({}),
    shards=st.integers(0, 2**31 - 1),
    consistency_level=st.integers(0, 4),
    partitions=st.lists(partitions, max_size=2, unique_by=(lambda found: found.partition_id, lambda found: found.name)),
    l0_segments=by_segment(segment(layout.ALL_PARTITIONS)),
    indexes=st.lists(indexes, max_size=2),
    load_state=st.sampled_from(["Loaded", "Loading", "NotLoad"]),
    properties=st.just([]),
    aliases=st.lists(text, max_size=2),
    database_id=zero_or_id,
    created_timestamp=timestamps,
    virtual_channels=st.lists(text, max_size=2),
    physical_channels=st.lists(text, max_size=2),
    backup_timestamp=timestamps,
    backup_physical_timestamp=timestamps,
    channel_checkpoints=st.dictionaries(text, text, max_size=2),
)
collections = st.builds(with_properties, bare_collections.filter(distinct), named, st.dictionaries(text, text, max_size=2))
backups = st.builds(
    Backup,
    backup_id=text,
    name=named,
    server_version=text,
    collections=st.lists(collections, max_size=2, unique_by=(lambda found: found.name, lambda found: found.collection_id)),
    databases=st.lists(st.builds(Database, named, zero_or_id, string_pairs), max_size=2),
)
roots = st.sampled_from(["", "files", "a/b"])


def head(**shape: Any) -> Json:
    return copy.deepcopy(synthetic(**shape).full_meta)


def read(document: Any) -> Backup:
    return from_files({"full_meta.json": json.dumps(document).encode()})


def by_file(files: dict[str, bytes]) -> dict[str, bytes]:
    return {key.rpartition("/")[2]: data for key, data in files.items()}


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in numbers(item)]
    if isinstance(value, list):
        return [found for item in value for found in numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


# ---- writing and reading back --------------------------------------------------------------------------------------------------


@settings(BUSY, max_examples=25)
@given(backups, roots)
def test_a_backup_is_read_as_it_was_written(backup: Backup, root: str) -> None:
    assert from_files(dict(to_files(backup, root))) == backup


@settings(BUSY, max_examples=25)
@given(backups)
def test_without_full_meta_all_but_the_l0_segments_of_all_partitions_and_the_databases_comes_back(backup: Backup) -> None:
    files = dict(to_files(backup, "files"))
    del files["full_meta.json"]
    found = from_files(files)
    assert [(c.name, c.partitions, c.schema, c.indexes) for c in found.collections] == [
        (c.name, c.partitions, c.schema, c.indexes) for c in backup.collections
    ]
    assert "full_meta.json is missing" in found.warnings[0]


@settings(BUSY, max_examples=25)
@given(backups)
def test_every_number_is_written_as_an_integer_and_every_file_is_compact_utf_8(backup: Backup) -> None:
    for _, data in to_files(backup, "files"):
        document = json.loads(data.decode())
        assert all(type(number) is int for number in numbers(document))
        assert data == json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_full_meta_is_written_first_and_the_commit_mark_last() -> None:
    assert tuple(dict(to_files(read(head()), "files"))) == layout.META_FILES


def test_the_commit_mark_is_small_and_names_the_backup() -> None:
    mark = json.loads(dict(to_files(read(head()), "files"))[layout.COMMIT_MARK])
    assert mark == {key: head()[key] for key in ("id", "state_code", "name", "size", "milvus_version")}


@pytest.mark.parametrize(
    "shape",
    [{}, {"collections": 3, "partitions": 2, "segments": 2, "partition_l0": True}, {"l0": False}, {"segments": 0}, {"milvus_root": ""}],
)
def test_what_is_written_is_what_the_official_tool_writes(shape: Json) -> None:
    official = synthetic(**shape)
    ours = dict(to_files(from_files(by_file(official.files())), official.milvus_root))
    prefix = f"{official.root}/{official.name}/meta/"
    keys = {prefix + file: data for file, data in ours.items()}
    objects = {**official.objects, **{key: len(data) for key, data in keys.items()}}
    found = check_backup(objects, keys.__getitem__, official.root, official.name, milvus_root=official.milvus_root)
    assert found.size == official.full_meta["size"]
    assert json.loads(ours["backup_meta.json"]) == json.loads(by_file(official.files())["backup_meta.json"])


def test_sizes_and_rows_add_up() -> None:
    found = read(head(partitions=2, segments=3, partition_l0=True))
    assert found.size == head(partitions=2, segments=3, partition_l0=True)["size"]
    [collection] = found.collections
    assert [segment.partition_id for segment in collection.segments()][-1] == layout.ALL_PARTITIONS
    assert collection.rows == sum(segment.rows for segment in collection.segments())
    assert sum(partition.size for partition in collection.partitions) < collection.size
    assert collection.partitions[0].segments[0].objects == 5


# ---- reading what others wrote -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_official_generation_is_read_with_all_its_rows_and_logs(generation: str) -> None:
    source = synthetic(partitions=2, segments=3, partition_l0=True)
    files, objects = rewrite(source.full_meta, generation, source.root, "old")
    found = from_files(by_file(files))
    [collection] = found.collections
    assert collection.name == CollectionName("default", "docs")
    assert [partition.name for partition in collection.partitions] == ["_default", "part1"]
    data = [segment for segment in collection.segments() if not segment.is_l0]
    assert sum(segment.rows for segment in data) == 600
    binlogs = layout.binlogs_dir(source.root, "old")
    built = {
        f"{layout.segment_dir(binlogs, kind, collection.collection_id, s.partition_id, s.group_id, s.segment_id)}{middle}{log.log_id}"
        for s in collection.segments()
        for kind, fields in ((layout.INSERT, s.inserts), (layout.DELTA, s.deltas))
        for entry in fields
        for middle in ([f"{entry.field_id}/"] if kind == layout.INSERT else [""])
        for log in entry.logs
    }
    missing = set(objects) - built
    if generation == "head-levels-only":  # the documented loss, and it is said
        assert {key for key in missing if "/-1/" not in key} == set()
        assert found.warnings
    else:
        assert built == set(objects)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_backup_with_full_meta_has_no_warnings(generation: str) -> None:
    files = by_file(rewrite(synthetic().full_meta, generation, "backup", "old")[0])
    assert bool(from_files(files).warnings) == ("full_meta.json" not in files)


def test_level_files_that_kept_the_l0_segments_lose_nothing() -> None:
    files = by_file(rewrite(synthetic().full_meta, "l0compact", "backup", "old")[0])
    whole = from_files(files)
    del files["full_meta.json"]
    assert from_files(files).collections == whole.collections
    assert from_files(files).warnings == []


def test_the_full_meta_wins_over_the_level_files() -> None:
    files = by_file(synthetic().files())
    files |= dict.fromkeys(layout.META_FILES[1:], b"not JSON")
    assert from_files(files).name == "demo"


@pytest.mark.parametrize("file", layout.META_FILES[1:])
def test_a_missing_level_file_is_named(file: str) -> None:
    files = by_file(synthetic().files())
    del files["full_meta.json"], files[file]
    with pytest.raises(BackupDamaged, match=file):
        from_files(files)


def test_no_meta_at_all_is_damage() -> None:
    with pytest.raises(BackupDamaged, match="incomplete"):
        from_files({})


def test_the_database_without_a_name_is_the_default_one() -> None:
    document = head()
    document["collection_backups"][0]["db_name"] = ""
    del document["database_backups"][0]["db_name"]
    assert read(document).collections[0].name.database == "default"
    assert read(document).databases[0].name == "default"


def test_a_missing_consistency_level_is_strong() -> None:
    document = head()
    del document["collection_backups"][0]["consistency_level"]
    assert read(document).collections[0].consistency_level == 0


def test_null_and_unknown_keys_and_missing_lists_are_read_as_go_reads_them() -> None:
    document = head() | {"database_backups": None, "rbac_meta": {"users": []}, "progress": 1.5, "errorMessage": ""}
    document["collection_backups"][0] |= {"aliases": None, "index_infos": None, "l0_segments": None, "replicas": 3}
    found = read(document)
    assert (found.databases, found.collections[0].indexes, found.collections[0].l0_segments) == ([], [], [])


def test_properties_of_either_place_are_kept() -> None:
    document = head()
    document["collection_backups"][0] |= {"properties": [{"key": "mmap.enabled", "value": "true"}]}
    assert sorted(read(document).collections[0].properties) == [("collection.ttl.seconds", "86400"), ("mmap.enabled", "true")]


def test_a_property_with_two_values_is_kept_once() -> None:
    document = head()
    document["collection_backups"][0] |= {"properties": [{"key": "collection.ttl.seconds", "value": "1"}]}
    assert read(document).collections[0].properties == [("collection.ttl.seconds", "86400")]


def test_a_log_without_id_has_the_last_part_of_its_path_as_id() -> None:
    document = head()
    logs = document["collection_backups"][0]["partition_backups"][0]["segment_backups"][0]["binlogs"][0]["binlogs"]
    expected = logs[0].pop("log_id")
    assert read(document).collections[0].partitions[0].segments[0].inserts[0].logs[0].log_id == expected
    for path in ("", "files/insert_log/x", "files/1/", "1\u0661", "9" * 20, "/-1"):
        logs[0]["log_path"] = path
        with pytest.raises(BackupDamaged, match="log_path"):
            read(document)


@pytest.mark.parametrize("found", ["snapshot", "anything"])
def test_another_format_is_refused_by_name_with_and_without_full_meta(found: str) -> None:
    with pytest.raises(UnsupportedFormat, match=found):
        read(head() | {"format": found})
    files = by_file(synthetic().files())
    files["backup_meta.json"] = json.dumps({"name": "demo", "format": found}).encode()
    del files["full_meta.json"]
    with pytest.raises(UnsupportedFormat, match=found):
        from_files(files)


# ---- hostile meta --------------------------------------------------------------------------------------------------------------

Change = Callable[[Json], object]


def changed(change: Change) -> Json:
    document = head()
    change(document)
    return document


def coll(document: Json) -> Json:
    found: Json = document["collection_backups"][0]
    return found


def part(document: Json) -> Json:
    found: Json = coll(document)["partition_backups"][0]
    return found


def seg(document: Json) -> Json:
    found: Json = part(document)["segment_backups"][0]
    return found


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
