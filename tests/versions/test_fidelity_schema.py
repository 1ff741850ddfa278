"""A collection that is restored is described as the one that was backed up, field by field, on every version that knows what it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymilvus.grpc_gen import schema_pb2

from airflow_provider_milvus_backup.core.errors import SchemaMismatch
from tests.contract import shapes
from tests.contract.profiles import PROFILES

from . import everything
from .everything import NAME, VARCHAR, described, field, release, row
from .worlds import World

PROPERTIES = {"mmap.enabled": "true", "collection.ttl.seconds": "86400", "timezone": "Asia/Tokyo"}
CHECK = "disable_func_runtime_check"


def fill(world: World, properties: dict[str, str] | None = None) -> Any:
    """A collection with everything, rows, a delete, indexes, aliases; loaded."""
    made, model = everything.schema(release(world)), world.model
    collection = model.create_collection(NAME, made, consistency_level=0, properties=properties or PROPERTIES, partitions=2)
    model.insert(NAME, [row(made, number) for number in range(6)])
    model.delete(NAME, ["key 3"])
    for vector in [one.name for one in made.fields if one.data_type >= 100]:
        metric = "BM25" if vector == "bm25" else "IP"
        kind = "SPARSE_INVERTED_INDEX" if vector in ("sparse", "bm25") else "HNSW"
        model.create_index(NAME, vector, f"{vector}_idx", {"index_type": kind, "metric_type": metric, "M": "16", "mmap.enabled": "true"})
    model.create_index(NAME, "price", "", {"index_type": "STL_SORT"})
    if world.server.profile.functions:
        cast = {"index_type": "INVERTED", "json_cast_type": "double"}
        model.create_index(NAME, "anything", "by_first", {**cast, "json_path": 'anything["nested"][0]'})
        model.create_index(NAME, "anything", "by_second", {**cast, "json_path": 'anything["nested"][1]'})
        model.create_index(NAME, "$meta", "by_tag", {**cast, "json_path": '$meta["tag"]', "json_cast_type": "varchar"})
    if world.server.profile.struct_arrays:
        model.create_index(NAME, "parts[vectors]", "struct_idx", {"index_type": "HNSW", "metric_type": "MAX_SIM_IP"})
    model.create_alias(NAME, "docs_live")
    model.create_alias(NAME, "docs_now")
    model.load(NAME)
    return collection


def expected(source: World) -> dict[str, Any]:
    """What the target is described as: the same, and where it was not said that functions are checked, it is now."""
    there = described(source)
    if release(source) >= (2, 6, 8) and source.model.collection(NAME).schema.functions:
        there["properties"].setdefault(CHECK, "false")
    return there


def different(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what differs, by what it is."""
    return {key: (one.get(key), other.get(key)) for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


@pytest.mark.parametrize("version", PROFILES)
def test_a_collection_with_everything_is_described_the_same_and_holds_the_same(milvus: Callable[..., World], version: str) -> None:
    source, target = milvus(version), milvus(version, first_id=460_000_000_000_000_000)
    collection = fill(source)
    source.backup()
    source.restore_into(target, restore_aliases=True)
    assert different(described(target), expected(source)) == {}
    rows = {pk: found for partition in target.model.rows(NAME).values() for pk, found in partition.items()}
    assert target.model.rows(NAME) == source.model.rows(NAME)
    assert rows.keys() == {f"key {number}" for number in range(6)} - {"key 3"}
    if target.server.profile.functions:  # what a function made is imported, and not made anew
        assert rows["key 5"]["bm25"] == bytes([1, 0, 0, 0, 5, 0, 0, 0])
    restored = target.model.collection(NAME)
    assert [one.name for one in restored.partitions] == [one.name for one in collection.partitions] == [f"_default_{i}" for i in range(2)]
    assert restored.loaded == {one.id for one in restored.partitions}
    # With what DescribeCollection does not show.
    assert [one.fieldID for one in restored.schema.fields] == [one.fieldID for one in collection.schema.fields]
    assert restored.consistency_level == 0


@pytest.mark.parametrize(("version", "cannot"), [("2.4.24", {"field price"}), ("3.0.0", {"field price", "field parts"})])
def test_the_official_format_alone_loses_the_clustering_key_and_what_arrays_of_structs_have_of_their_own(
    milvus: Callable[..., World], version: str, cannot: set[str]
) -> None:
    source, target = milvus(version), milvus(version)
    fill(source)
    source.backup()
    for key in source.keys("backup/nightly/provider"):
        source.model.bucket.delete(f"{source.root}/backup/nightly/provider/{key}")
    source.restore_into(target, restore_aliases=True)
    lost = different(described(target), expected(source))
    assert lost.keys() == cannot
    there, was = (schema_pb2.FieldSchema.FromString(one) for one in lost["field price"])
    assert (was.is_clustering_key, there.is_clustering_key) == (True, False)
    was.is_clustering_key = False
    assert was == there
    for restored, struct in [
        [schema_pb2.StructArrayFieldSchema.FromString(one) for one in lost[name]] for name in cannot - {"field price"}
    ]:
        struct.nullable = False
        struct.ClearField("type_params")
        assert restored == struct
    assert target.model.rows(NAME) == source.model.rows(NAME)


def test_a_file_of_schemas_that_is_damaged_costs_no_more_than_one_that_is_missing(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.5.10"), milvus("2.5.10")
    fill(source)
    source.backup()
    source.model.bucket.put(f"{source.root}/backup/nightly/provider/schemas.json", b'{"version":1')
    source.restore_into(target, restore_aliases=True)
    assert different(described(target), expected(source)).keys() == {"field price"}
    assert target.said("collections are created from the meta of the official format alone")


def test_what_a_newer_milvus_gets_of_an_older_one_is_the_same(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.4.24"), milvus("3.0.0")
    fill(source)
    source.backup()
    source.restore_into(target, restore_aliases=True)
    assert different(described(target), expected(source)) == {}
    assert target.model.rows(NAME) == source.model.rows(NAME)


# ---- fields that were added later ------------------------------------------------------------------------------------------------------


def altered(world: World) -> Any:
    """A collection whose fields were added after its dynamic field, with rows from before, between and after."""
    model = world.model
    model.create_collection(NAME, shapes.schema("docs", dynamic=True))
    model.insert(NAME, [shapes.row(number, tag="early") for number in range(3)])
    model.flush(NAME)
    model.add_field(NAME, field("late", VARCHAR, {"max_length": 9}, nullable=True).SerializeToString())
    model.insert(NAME, [shapes.row(number, late=f"late {number}") for number in range(3, 6)])
    model.flush(NAME)
    count = field("count", everything.INT64, nullable=True, default_value=everything.value(long_data=5))
    model.add_field(NAME, count.SerializeToString())
    model.insert(NAME, [shapes.row(6, count=1, late="x"), shapes.row(7, tag="new")])
    return model.collection(NAME)


@pytest.mark.parametrize("version", ["2.6.4", "2.6.20", "3.0.0"])
def test_fields_added_later_get_their_ids_and_values_again(milvus: Callable[..., World], version: str) -> None:
    source, target = milvus(version), milvus(version)
    collection = altered(source)
    source.backup()
    source.restore_into(target)
    assert different(described(target), expected(source)) == {}
    ids = {one.name: one.fieldID for one in target.model.collection(NAME).schema.fields}
    assert (
        ids == {one.name: one.fieldID for one in collection.schema.fields} == {"id": 100, "v": 101, "$meta": 102, "late": 103, "count": 104}
    )
    assert target.model.rows(NAME) == source.model.rows(NAME)
    found = target.model.rows(NAME)["_default"]
    assert (found[0]["late"], found[4]["late"], found[4]["count"], found[6]["count"], found[7]["tag"]) == (None, "late 4", 5, 1, "new")


def test_max_field_id_of_the_source_is_not_sent_to_the_target(milvus: Callable[..., World]) -> None:
    source, target = milvus("3.0.0"), milvus("3.0.0")
    altered(source)
    assert source.model.collection(NAME).properties["max_field_id"] == "104"
    source.backup()
    source.restore_into(target)
    (request,) = target.server.recorder.of("CreateCollection")
    sent = schema_pb2.CollectionSchema.FromString(request.schema)
    assert [pair.key for pair in [*request.properties, *sent.properties] if pair.key == "max_field_id"] == []
    assert target.model.collection(NAME).properties["max_field_id"] == "104"


def test_a_field_that_was_dropped_leaves_ids_that_are_refused_before_anything_is_created(milvus: Callable[..., World]) -> None:
    source, target = milvus("3.0.0"), milvus("3.0.0")
    collection = altered(source)
    del collection.schema.fields[3]
    source.backup()
    with pytest.raises(SchemaMismatch, match=r"a field that was dropped, .* leaves ids that cannot be made again"):
        source.restore_into(target)
    assert target.model.databases["default"].collections == {}


# ---- the check of functions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [({}, "false"), ({CHECK: "false"}, "false"), ({CHECK: "true"}, "true")])
def test_functions_are_not_checked_while_the_collection_is_created_and_afterwards_as_before(
    milvus: Callable[..., World], before: dict[str, str], after: str
) -> None:
    source, target = milvus("2.6.20"), milvus("2.6.20")
    fill(source, {**PROPERTIES, **before})
    source.backup()
    source.restore_into(target)
    (request,) = target.server.recorder.of("CreateCollection")
    assert {pair.key: pair.value for pair in request.properties} == {**PROPERTIES, CHECK: "true"}
    assert target.model.collection(NAME).properties == {**PROPERTIES, CHECK: after}
    assert target.server.requests["AlterCollection"] == (0 if after == "true" else 1)


def test_2_6_4_is_not_sent_a_property_that_it_does_not_know(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.6.4"), milvus("2.6.4")
    fill(source)
    source.backup()
    source.restore_into(target)
    assert target.model.collection(NAME).properties == PROPERTIES


# ---- external collections --------------------------------------------------------------------------------------------------------------


def test_external_collections_are_left_out_with_a_line(milvus: Callable[..., World]) -> None:
    world = milvus("3.0.0")
    fill(world)
    lake = shapes.schema("lake")
    lake.external_source = "s3://elsewhere/table"
    world.model.create_collection(("default", "lake"), lake)
    summary = world.backup()
    assert [found["name"] for found in summary["collections"]] == ["docs"]
    assert world.checked().collections.keys() == {NAME}
    assert world.said("left out, because their data is not in Milvus (external collections): default.lake")
    assert [request.collection_names[0] for request in world.server.recorder.of("Flush")] == ["docs"]
