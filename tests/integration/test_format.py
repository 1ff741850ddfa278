"""The backups we write keep every promise of the official format, and say what Milvus said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.format_reader import CheckedBackup, CheckedCollection, check_backup
from tests.integration import data
from tests.integration.clusters import Cluster, admin, listing
from tests.integration.conftest import Zoo

by_shape = pytest.mark.parametrize("shape", data.ZOO, ids=lambda shape: str(shape.name))


def check(cluster: Cluster, name: str) -> CheckedBackup:
    place = cluster.backups
    client = admin(cluster.s3)
    objects = {key: size for key, (size, _) in listing(cluster.s3, place.bucket, f"{place.root_path}/{name}/").items()}
    return check_backup(
        objects,
        lambda key: client.get_object(Bucket=place.bucket, Key=key)["Body"].read(),
        place.root_path,
        name,
        milvus_root=cluster.milvus.root_path,
    )


@pytest.fixture(scope="module")
def checked(zoo: Zoo) -> CheckedBackup:
    return check(zoo.cluster, zoo.name)


def found(checked: CheckedBackup, shape: data.Collection) -> CheckedCollection:
    return checked.collections[shape.name]


def test_the_backup_is_as_the_official_tool_writes_it(a: Cluster, checked: CheckedBackup) -> None:
    assert set(checked.collections) == {shape.name for shape in data.ZOO}
    assert checked.raw["milvus_version"] == a.client().get_server_version()
    assert [database["db_name"] for database in checked.raw["database_backups"]] == ["default", "zoo_db"]


@by_shape
def test_ids_are_those_of_milvus(a: Cluster, checked: CheckedBackup, shape: data.Collection) -> None:
    described, collection = a.server.describe(shape.name), found(checked, shape)
    assert collection.collection_id == described.collectionID
    assert collection.raw.get("aliases", []) == sorted(described.aliases) == data.ALIASES.get(shape.name, [])
    assert {(p.partition_id, p.name) for p in collection.partitions.values()} == set(a.server.partitions(shape.name))
    assert collection.raw["virtual_channel_names"] == list(described.virtual_channel_names)
    assert collection.raw["shards_num"] == described.shards_num


@by_shape
def test_segments_and_rows_are_those_of_milvus(a: Cluster, zoo: Zoo, checked: CheckedBackup, shape: data.Collection) -> None:
    # Compaction may have merged segments since the backup, so rows are compared, and no row may be lost or be there twice.
    collection, rows = found(checked, shape), data.count(zoo.rows[shape.name])
    segments = [segment for partition in collection.partitions.values() for segment in partition.segments.values()]
    assert collection.rows == sum(segment.rows for segment in segments) >= rows
    if not any(segment.delta_logs for segment in segments):
        assert collection.rows == rows
    summary = next(one for one in zoo.summary["collections"] if (one["database"], one["name"]) == shape.name)
    assert (summary["rows"], summary["segments"], summary["bytes"]) == (collection.rows, len(segments), collection.size)


@by_shape
def test_fields_are_those_of_milvus(a: Cluster, checked: CheckedBackup, shape: data.Collection) -> None:
    fields = found(checked, shape).fields
    for described in a.server.describe(shape.name).schema.fields:
        written: Any = fields[described.name]
        assert (written["fieldID"], written["data_type"]) == (described.fieldID, described.data_type)
        assert written.get("element_type", 0) == described.element_type
        assert written.get("is_primary_key", False) == described.is_primary_key
        assert written.get("autoID", False) == described.autoID
        assert written.get("is_partition_key", False) == described.is_partition_key
        assert written.get("description", "") == described.description
        assert {(pair["key"], pair["value"]) for pair in written.get("type_params", [])} == {
            (pair.key, pair.value) for pair in described.type_params
        }
    assert found(checked, shape).raw["schema"].get("enable_dynamic_field", False) == shape.dynamic


@by_shape
def test_indexes_are_those_of_milvus(a: Cluster, checked: CheckedBackup, shape: data.Collection) -> None:
    written = found(checked, shape).raw.get("index_infos", [])
    indexes = data.indexes(a.client(shape.name.database), shape.name.collection)
    assert {(one["index_name"], one["field_name"], one["index_type"]) for one in written} == {
        (name, one["field_name"], one["index_type"]) for name, one in indexes.items()
    }


def test_copies_are_byte_for_byte_those_of_milvus(a: Cluster, checked: CheckedBackup) -> None:
    kept = listing(a.s3, a.milvus.bucket, f"{a.milvus.root_path}/")
    copies = listing(a.s3, a.backups.bucket, "backup/zoo/binlogs/")
    compared = 0
    for key, size_and_etag in copies.items():
        kind, collection, partition, group, segment, *rest = key.removeprefix("backup/zoo/binlogs/").split("/")
        assert group == segment
        source = "/".join([a.milvus.root_path, kind, collection, partition, segment, *rest])
        if source in kept:  # Milvus may have compacted it away since
            assert size_and_etag == kept[source]
            compared += 1
    assert compared > len(copies) / 2


def test_a_meta_only_backup_is_as_the_official_tool_writes_it(a: Cluster, zoo: Zoo) -> None:
    a.backup("schemas", ["default.*", "zoo_db.*"], "meta_only")
    checked = check(a, "schemas")
    assert checked.size == 0
    assert {shape.name for shape in data.ZOO} <= set(checked.collections)


def test_an_unfinished_attempt_is_completed_and_leaves_nothing_behind(a: Cluster, head: dict[str, Any]) -> None:
    client, place = admin(a.s3), a.backups
    shape = a.create(data.docs("resumed"), range(20))
    a.backup("resumed", "resumed")
    prefix = f"{place.root_path}/resumed"
    data_objects = sorted(listing(a.s3, place.bucket, f"{prefix}/binlogs/"))
    for key in (f"{prefix}/meta/backup_meta.json", data_objects[0]):
        client.delete_object(Bucket=place.bucket, Key=key)
    client.put_object(Bucket=place.bucket, Key=f"{prefix}/binlogs/insert_log/1/2/3/3/4/5", Body=b"of another attempt")
    a.log.lines.clear()
    a.backup("resumed", "resumed")
    assert set(check(a, "resumed").collections) == {shape.name}
    assert sorted(listing(a.s3, place.bucket, f"{prefix}/binlogs/")) == data_objects
    assert any(line.startswith("copied 1 objects") for line in a.log.lines)
    a.drop(shape.name)
