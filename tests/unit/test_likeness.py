"""A restored collection is compared with the one in the backup: all that differs is told, and nothing that a server may add."""

from __future__ import annotations

from typing import Any

import pytest
from pymilvus.grpc_gen import milvus_pb2

from airflow_provider_milvus_backup.core import meta, schema
from airflow_provider_milvus_backup.core.likeness import (
    index_differences,
    may_expire,
    partition_differences,
    schema_differences,
    without_index,
)
from tests.unit.drilled_backups import INDEX, collection


def described(one: meta.Collection, **changes: Any) -> Any:
    """Return what a Milvus would say of a collection that was restored rightly."""
    answer = milvus_pb2.DescribeCollectionResponse(shards_num=one.shards, consistency_level=one.consistency_level, **changes)
    answer.schema.CopyFrom(schema.to_proto(one.schema, "books_drill__restore_0123456789abcdef"))
    for key, value in one.properties:
        answer.properties.add(key=key, value=value)
    return answer


def test_the_same_is_the_same_under_another_name() -> None:
    one = collection(properties=[("collection.ttl.seconds", "9"), (schema.MAX_FIELD_ID, "200")])
    assert schema_differences(one, None, described(one)) == []


def test_what_a_newer_server_adds_is_no_difference() -> None:
    one = collection()
    there = described(one)
    there.properties.add(key="timezone", value="UTC")
    there.schema.properties.add(key="timezone", value="UTC")
    there.schema.fields[2].type_params.add(key="mmap.enabled", value="false")
    there.schema.fields.add(name="$meta", is_dynamic=True, fieldID=103, data_type=23)
    assert schema_differences(one, None, there) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda there: there.schema.fields.add(name="more", fieldID=103), "field 'more' is not in the backup"),
        (lambda there: there.schema.fields.pop(), "field 'vector' is missing"),
        (lambda there: setattr(there.schema.fields[1], "data_type", 4), "field 'year' has data_type 4 instead of 5"),
        (lambda there: setattr(there.schema.fields[1], "fieldID", 109), "field 'year' has fieldID 109 instead of 101"),
        (lambda there: setattr(there.schema.fields[1], "nullable", True), "field 'year' has nullable True instead of None"),
        (lambda there: there.schema.fields[2].type_params.pop(), "field 'vector': type_params 'dim' is None instead of '2'"),
        (lambda there: setattr(there.schema, "description", "x"), "the collection has description 'x' instead of None"),
        (lambda there: setattr(there, "consistency_level", 0), "the collection has consistency level 0 instead of 2"),
        (lambda there: setattr(there, "shards_num", 2), "the collection has 2 shards instead of 1"),
        (lambda there: there.properties.pop(), "the collection: property 'collection.ttl.seconds' is None instead of '9'"),
    ],
)
def test_every_difference_is_told_by_its_name(spoil: Any, told: str) -> None:
    one = collection(properties=[("collection.ttl.seconds", "9")])
    there = described(one)
    spoil(there)
    assert schema_differences(one, None, there) == [told]


@pytest.mark.parametrize(("shards", "at_most", "told"), [(4, 2, []), (4, 8, ["the collection has 2 shards instead of 4"]), (2, 4, [])])
def test_fewer_shards_are_no_difference_where_fewer_were_asked_for(shards: int, at_most: int, told: list[str]) -> None:
    one = collection(shards=shards)
    there = described(one)
    there.shards_num = 2
    assert schema_differences(one, None, there, at_most) == told


IN_SCHEMA = {**collection().schema, "properties": [{"key": "ttl_field", "value": "expires"}]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"properties": [("collection.ttl.seconds", "86400")]}, True),
        ({"properties": [("collection.ttl.seconds", "0")]}, False),
        ({"properties": [("collection.ttl.seconds", "-1")]}, False),
        ({"properties": [("collection.ttl.seconds", "")]}, False),
        ({"properties": [("ttl_field", "expires")]}, True),
        ({"properties": [("ttl_field", "")]}, False),
        ({"schema": IN_SCHEMA}, True),
    ],
)
def test_rows_may_expire_by_the_age_of_all_or_by_a_field_of_each(changes: dict[str, Any], *, expected: bool) -> None:
    assert may_expire(collection(**changes)) is expected


def test_partitions_are_compared_by_name() -> None:
    assert partition_differences(collection(), ["_default"]) == []
    assert partition_differences(collection(), ["b", "a"]) == [
        "partition '_default' is missing",
        "partition 'a' is not in the backup",
        "partition 'b' is not in the backup",
    ]


def index(field: str = "vector", name: str = "by_vector", **params: str) -> meta.Index:
    return meta.Index(field, name, "HNSW", {**INDEX.params, **params})


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        ([index()], [index()], []),
        ([index()], [index(efConstruction="64")], []),
        ([index(name="")], [index(name="_default_idx_102")], []),
        ([index()], [index(M="16")], ["index 'by_vector': 'M' is '16' instead of '8'"]),
        ([index()], [], ["index 'by_vector' of field 'vector' is missing"]),
        ([], [index()], ["index 'by_vector' of field 'vector' is not in the backup"]),
        ([index("a", "x"), index("a", "y")], [index("a", "y"), index("a", "x")], []),
    ],
)
def test_indexes_are_compared_by_field_and_name(wanted: list[meta.Index], found: list[meta.Index], told: list[str]) -> None:
    assert index_differences(wanted, found) == told


def test_vectors_without_an_index_are_named() -> None:
    members = [{"name": "v", "data_type": 106}, {"name": "n", "data_type": 22}]
    document = {"fields": collection().schema["fields"], "struct_array_fields": [{"name": "parts", "fields": members}]}
    assert without_index(collection()) == []
    assert without_index(collection(schema=document)) == ["parts[v]"]
    assert without_index(collection(schema=document, indexes=[index("parts[v]")])) == ["vector"]
