"""A backup is in the official format: what it says of every segment, where the objects are, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.contract import shapes
from tests.contract.state import L0, L1

from .worlds import World

NAME = ("default", "docs")


@pytest.mark.parametrize("version", ["2.4.5", "2.5.10", "2.6.20"])
def test_channel_level_and_storage_version_of_every_segment_are_where_the_format_has_them(
    milvus: Callable[..., World], version: str
) -> None:
    world = milvus(version)
    model, profile = world.model, world.server.profile
    collection = model.create_collection(NAME, shapes.schema("docs"), shards=2)
    model.create_partition(NAME, "second")
    for partition in ("_default", "second"):
        model.insert(NAME, [shapes.row(number) for number in range(8)], partition)
    model.flush(NAME)
    model.delete(NAME, range(4), "second")
    model.delete(NAME, range(4, 8))
    model.flush(NAME)
    world.backup()
    segments, binlogs = world.saved(), world.keys("backup/nightly/binlogs")
    assert segments.keys() == {segment.id for segment in model.listed(NAME)}
    for segment in model.listed(NAME):
        found = segments[segment.id]
        assert found.get("is_l0", False) == (segment.level == L0)
        assert found.get("storage_version", 0) == (segment.storage_version if profile.lists_storage_version else 0)
        assert found.get("v_channel", "") == (segment.vchannel if profile.segments_describe else "")
        assert found.get("group_id", 0) == (0 if segment.partition_id == -1 else segment.id)
        place = f"{collection.id}/{segment.partition_id}/" + ("" if segment.partition_id == -1 else f"{segment.id}/") + f"{segment.id}/"
        inserts = [f"insert_log/{place}{field}/{log}" for field, logs in segment.insert_logs.items() for log in logs]
        deltas = [f"delta_log/{place}{log}" for log in segment.delta_logs]
        assert sorted(key for key in binlogs if re.search(rf"/{segment.id}/", key)) == sorted(inserts + deltas)
    levels = {(segment.partition_id == -1, segment.level) for segment in model.listed(NAME)}
    assert levels == {(False, L0), (True, L0), (False, L1)}
    (whole,) = world.full_meta()["collection_backups"]
    assert {segment["partition_id"] for segment in whole["l0_segments"]} == {-1}


@pytest.mark.parametrize("version", ["2.4.24", "3.0.0"])
def test_every_object_of_a_backup_is_byte_by_byte_its_source(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    world.model.rows_per_log = 2
    world.model.create_collection(NAME, shapes.schema("docs"))
    for start in (0, 4):
        world.model.insert(NAME, [shapes.row(number) for number in range(start, start + 4)])
        world.model.flush(NAME)
    world.model.delete(NAME, [1])
    world.model.flush(NAME)
    world.backup()
    sources = {}
    for segment in world.saved().values():
        for log in [log for logs in segment.get("binlogs", []) + segment.get("deltalogs", []) for log in logs["binlogs"]]:
            sources[str(log["log_id"])] = log["log_path"].removeprefix(f"{world.root}/")
    copies = world.keys("backup/nightly/binlogs")
    assert sorted(key.rpartition("/")[2] for key in copies) == sorted(sources)
    assert len(copies) == len(world.keys("files"))
    for key in copies:
        assert world.read(f"backup/nightly/binlogs/{key}") == world.read(sources[key.rpartition("/")[2]])


@pytest.mark.parametrize("version", ["2.4.24", "2.5.10", "3.0.0"])
def test_a_reader_of_the_official_format_finds_what_milvus_holds(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    model = world.model
    collection = model.create_collection(NAME, shapes.schema("docs", dynamic=True), shards=2)
    model.create_partition(NAME, "second")
    model.insert(NAME, [shapes.row(number, more=number) for number in range(8)])
    model.insert(NAME, [shapes.row(number) for number in range(8, 12)], "second")
    model.delete(NAME, [3], "_default")
    model.delete(NAME, [9])
    world.backup()
    backup = world.checked()
    found = backup.collections[NAME]
    assert (found.collection_id, found.rows, backup.raw["milvus_version"]) == (collection.id, 12, f"v{version}")
    assert {name: partition.rows for name, partition in found.partitions.items()} == {"_default": 8, "second": 4}
    assert {name: partition.partition_id for name, partition in found.partitions.items()} == {p.name: p.id for p in collection.partitions}
    read = [segment for partition in found.partitions.values() for segment in partition.segments.values()] + list(
        found.l0_segments.values()
    )
    assert {segment.segment_id: (segment.rows, segment.is_l0) for segment in read} == {
        segment.id: (len(segment.rows), segment.level == L0) for segment in model.listed(NAME)
    }
    logs = {segment.segment_id: ({f: list(ids) for f, ids in segment.insert_logs.items()}, list(segment.delta_logs)) for segment in read}
    assert logs == {segment.id: (segment.insert_logs, segment.delta_logs) for segment in model.listed(NAME)}
    assert {name: field["fieldID"] for name, field in found.fields.items()} == {"id": 100, "v": 101}
    assert backup.size == sum(len(world.read(f"files/{key}")) for key in world.keys("files"))
