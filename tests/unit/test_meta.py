"""What is written is read back equal, and every official generation is understood."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupDamaged, UnsupportedFormat
from airflow_provider_milvus_backup.core.meta import (
    Backup,
    Database,
)
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.meta_writer import to_files
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.rbac import Rbac
from tests.format_reader import check_backup
from tests.official_backups import GENERATIONS, rewrite, synthetic
from tests.unit.meta_documents import (
    BUSY,
    Json,
    backups,
    by_file,
    head,
    numbers,
    read,
    roots,
)

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


def test_what_says_which_backup_it_is_comes_last() -> None:
    assert list(dict(to_files(read(head()), "files"))) == [*layout.META_FILES[1:4], layout.FULL_META, layout.COMMIT_MARK]


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


def test_users_roles_and_grants_are_in_full_meta_only() -> None:
    backup = read(head() | {"rbac_meta": {"users": [{"user": "bob", "password": "$2a$10$x"}], "roles": [{"name": "reader"}]}})
    files = dict(to_files(backup, "files"))
    assert json.loads(files["full_meta.json"])["rbac_meta"] == {
        "users": [{"user": "bob", "password": "$2a$10$x"}],
        "roles": [{"name": "reader"}],
    }
    assert [file for file, data in files.items() if b"bob" in data or b"rbac" in data] == ["full_meta.json"]


def test_a_backup_without_users_and_one_of_no_users_are_told_apart() -> None:
    for found in (None, Rbac()):
        backup = replace(read(head()), rbac=found)
        files = dict(to_files(backup, "files"))
        assert ("rbac_meta" in json.loads(files["full_meta.json"])) == (found is not None)
        assert from_files(files).rbac == found


def test_users_and_databases_that_a_level_file_kept_are_read_from_it() -> None:
    files = by_file(synthetic().files())
    del files["full_meta.json"]
    kept = {"rbac_meta": {"roles": [{"name": "reader"}]}, "database_backups": [{"db_name": "shop", "db_id": 4}]}
    files["backup_meta.json"] = json.dumps(json.loads(files["backup_meta.json"]) | kept).encode()
    found = from_files(files)
    assert (found.rbac, found.databases) == (Rbac(roles=["reader"]), [Database("shop", 4)])


@pytest.mark.parametrize("found", [3, "x", [], {"users": 3}, {"roles": [3]}, {"grants": {}}, {"privilege_groups": [{}]}])
def test_users_and_roles_of_the_wrong_shape_are_damage(found: Any) -> None:
    with pytest.raises(BackupDamaged, match=r"full_meta\.json\.rbac_meta"):
        read(head() | {"rbac_meta": found})


def test_database_properties_are_written_and_read() -> None:
    properties = [("database.max.collections", "10"), ("cipher.enabled", "true")]
    backup = replace(read(head()), databases=[Database("shop", 451, properties)])
    files = dict(to_files(backup, "files"))
    assert json.loads(files["full_meta.json"])["database_backups"] == [
        {"db_name": "shop", "db_id": 451, "properties": [{"key": key, "value": value} for key, value in properties]}
    ]
    assert from_files(files).databases == backup.databases


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


@pytest.mark.parametrize("found", ["snapshots", "anything"])
def test_another_format_is_refused_by_name_with_and_without_full_meta(found: str) -> None:
    with pytest.raises(UnsupportedFormat, match=found):
        read(head() | {"format": found})
    files = by_file(synthetic().files())
    files["backup_meta.json"] = json.dumps({"name": "demo", "format": found}).encode()
    del files["full_meta.json"]
    with pytest.raises(UnsupportedFormat, match=found):
        from_files(files)
