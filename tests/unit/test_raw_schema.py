"""What the official format cannot carry of a schema comes back from the file beside the backup, where that file can be trusted."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from airflow_provider_milvus_backup.core import raw_schema, schema
from airflow_provider_milvus_backup.core.errors import BackupDamaged
from airflow_provider_milvus_backup.core.raw_schema import from_file, is_external, schema_to_create, to_file

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

#: A field of a Milvus of the future: number 900, a string.
UNKNOWN = b"\xa2\x38\x05hello"


def docs() -> schema_pb2.CollectionSchema:
    """A schema with everything that the official format cannot carry."""
    proto = schema_pb2.CollectionSchema(
        name="docs",
        description="as described",
        dbName="source_db",
        version=7,
        do_physical_backfill=True,
        file_resource_ids=[5],
        enable_namespace=True,
    )
    proto.fields.add(fieldID=100, name="pk", data_type=5, is_primary_key=True)
    proto.fields.add(fieldID=101, name="day", data_type=21, is_clustering_key=True, state=schema_pb2.FieldDropping)
    proto.fields.add(fieldID=102, name="vec", data_type=101, external_field="column")
    struct = proto.struct_array_fields.add(fieldID=103, name="parts", nullable=True)
    struct.type_params.add(key="max_capacity", value="8")
    struct.fields.add(fieldID=104, name="part", data_type=22, element_type=5)
    return schema_pb2.CollectionSchema.FromString(proto.SerializeToString() + UNKNOWN)


# ---- what the official format carries ------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
int64 = st.integers(-(2**63), 2**63 - 1)
values = st.one_of(
    st.builds(schema_pb2.ValueField, bool_data=st.booleans()),
    st.builds(schema_pb2.ValueField, long_data=int64),
    st.builds(schema_pb2.ValueField, double_data=st.floats(allow_nan=False)),
    st.builds(schema_pb2.ValueField, string_data=texts),
    st.builds(schema_pb2.ValueField, bytes_data=st.binary(max_size=8)),
    st.builds(schema_pb2.ValueField, timestamptz_data=int64),
)


def protos(message: Any) -> Any:
    """Strategies of any message of a type, with any value in every field that this release of pymilvus knows."""
    descriptor = message.DESCRIPTOR
    if descriptor.name == "ValueField":
        return values
    # By the type of the descriptor: double, float, int64, int32, bool, string, message, bytes, uint64, enum.
    kinds: dict[int, Any] = {3: int64, 5: st.integers(-(2**31), 2**31 - 1), 8: st.booleans(), 9: texts, 14: st.integers(0, 2**31 - 1)}

    def one(field: Any) -> Any:
        nested = st.deferred(lambda: protos(type(getattr(message(), field.name))))
        if not field.is_repeated:
            return nested if field.type == 11 else kinds[field.type]
        if field.type != 11:
            return st.lists(kinds[field.type], max_size=2)
        return st.lists(protos(type(getattr(message(), field.name).add())), max_size=2)

    return st.fixed_dictionaries({}, optional={field.name: one(field) for field in descriptor.fields}).map(lambda found: message(**found))


def carried(proto: Any) -> schema_pb2.CollectionSchema:
    """What the official format can carry of a schema, as it is sent to Milvus."""
    copied = schema_pb2.CollectionSchema.FromString(proto.SerializeToString())
    messages = [copied, *copied.functions, *copied.struct_array_fields, *(f for _, fs in schema.field_lists(copied) for f in fs)]
    for message in messages:
        for key in raw_schema.ONLY_RAW[message.DESCRIPTOR.name]:
            message.ClearField(key)
    return schema.in_id_order(copied)


@settings(BUSY, max_examples=60)
@given(protos(schema_pb2.CollectionSchema))
def test_all_of_any_schema_that_the_official_format_can_carry_comes_back(proto: Any) -> None:
    written = json.loads(json.dumps(schema.from_proto(proto)))
    assert schema.to_proto(written, proto.name) == carried(proto)


@pytest.mark.parametrize("message", ["CollectionSchema", "FieldSchema", "FunctionSchema", "StructArrayFieldSchema"])
def test_every_field_of_the_protobuf_is_carried_or_said_not_to_be(message: str) -> None:
    tables = {
        "CollectionSchema": {*schema.SCHEMA, "fields", "functions", "struct_array_fields"},
        "FieldSchema": {*schema.FIELD, "default_value"},
        "FunctionSchema": set(schema.FUNCTION),
        "StructArrayFieldSchema": {*schema.STRUCT, "fields"},
    }
    only_raw = raw_schema.ONLY_RAW[message]
    assert not tables[message] & only_raw
    assert {field.name for field in getattr(schema_pb2, message).DESCRIPTOR.fields} == tables[message] | only_raw


# ---- the file ------------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.integers(1, 2**63 - 1), st.builds(schema_pb2.CollectionSchema, name=st.text("abc")), max_size=3))
def test_a_written_file_is_read_as_it_was(schemas: dict[int, Any]) -> None:
    raw = {number: proto.SerializeToString() + UNKNOWN for number, proto in schemas.items()}
    assert from_file(to_file("b-1", raw), "b-1") == raw


def test_the_file_says_what_it_is_and_what_it_belongs_to() -> None:
    assert json.loads(to_file("b-1", {4: b""})) == {"version": 1, "backup_id": "b-1", "schemas": {"4": ""}}


def test_a_file_of_another_backup_is_refused_with_both_ids() -> None:
    with pytest.raises(BackupDamaged, match=r"'b-2'.*'b-1'"):
        from_file(to_file("b-2", {}), "b-1")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"version": None},
        {"backup_id": 5},
        {"schemas": []},
        {"schemas": {"4": 5}},
        {"schemas": {"4": "****"}},
        {"schemas": {"4": "GAc"}},
        {"schemas": {"x": ""}},
        {"schemas": {"-4": ""}},
        {"schemas": {"0": ""}},
        {"schemas": {"1" * 20: ""}},
        {"schemas": {"4": base64.b64encode(b"\xff\xff").decode()}},
    ],
)
def test_a_file_that_is_not_ours_is_refused(change: dict[str, Any]) -> None:
    document = {"version": 1, "backup_id": "b-1", "schemas": {}, **change}
    with pytest.raises(BackupDamaged, match="schemas"):
        from_file(json.dumps(document).encode(), "b-1")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=40) | st.just(to_file("b-1", {4: docs().SerializeToString()})).map(lambda whole: whole[:-20]))
def test_any_bytes_are_refused_and_nothing_else_happens(content: bytes) -> None:
    with pytest.raises(BackupDamaged):
        from_file(content, "b-1")


# ---- what is created -----------------------------------------------------------------------------------------------------------


def test_what_the_official_format_cannot_carry_comes_back() -> None:
    proto = docs()
    created = schema_to_create(schema.from_proto(proto), proto.SerializeToString(), "docs_2")
    expected = docs()
    expected.name = "docs_2"
    # These say where the collection was and what happened to it, not what it is.
    for key in ("dbName", "version", "file_resource_ids"):
        expected.ClearField(key)
    expected.fields[1].ClearField("state")
    assert created == expected
    assert UNKNOWN in created.SerializeToString()


def test_the_test_has_a_value_for_all_that_the_official_format_cannot_carry() -> None:
    proto = docs()
    messages = [proto, *proto.fields, *proto.struct_array_fields]
    present: dict[str, set[str]] = {message.DESCRIPTOR.name: set() for message in messages}
    for message in messages:
        present[message.DESCRIPTOR.name] |= {field.name for field, _ in message.ListFields()}
    missing = {name: only - present.get(name, set()) for name, only in raw_schema.ONLY_RAW.items()}
    # An external collection is not backed up.
    assert missing == {
        "CollectionSchema": {"external_source", "external_spec"},
        "FieldSchema": set(),
        "FunctionSchema": set(),
        "StructArrayFieldSchema": set(),
    }


def test_without_a_raw_schema_the_meta_json_is_all_there_is() -> None:
    document = schema.from_proto(docs())
    assert schema_to_create(document, None, "docs_2") == schema.to_proto(document, "docs_2")
    assert not schema_to_create(document, None, "docs_2").fields[1].is_clustering_key


@pytest.mark.parametrize(
    "change", [{"fieldID": 105}, {"data_type": 5}, {"name": "night"}, {"nullable": True}, {"is_partition_key": True}, {"element_type": 5}]
)
def test_a_raw_schema_of_other_fields_is_not_used(change: dict[str, Any]) -> None:
    document = schema.from_proto(docs())
    document["fields"][1] |= change
    assert not raw_schema.agrees(document, docs().SerializeToString())
    assert schema_to_create(document, docs().SerializeToString(), "docs_2") == schema.to_proto(document, "docs_2")


def test_what_milvus_adds_itself_is_not_sent_from_a_raw_schema_either() -> None:
    proto = docs()
    proto.enable_dynamic_field = True
    proto.fields.add(fieldID=105, name="$meta", data_type=23, is_dynamic=True)
    proto.fields.add(fieldID=106, name="$namespace_id", data_type=21, is_partition_key=True)
    for key in ("max_field_id", "preserve_field_ids", "mmap.enabled"):
        proto.properties.add(key=key, value="1")
    created = schema_to_create(schema.from_proto(proto), proto.SerializeToString(), "docs")
    assert [field.name for field in created.fields] == ["pk", "day", "vec"]
    assert [pair.key for pair in created.properties] == ["mmap.enabled"]
    assert created.enable_namespace


def test_a_namespace_field_that_the_meta_json_shows_is_made_by_milvus() -> None:
    proto = docs()
    proto.fields.add(fieldID=105, name="$namespace_id", data_type=21, is_partition_key=True)
    created = schema_to_create(schema.from_proto(proto), None, "docs")
    assert created.enable_namespace
    assert [field.name for field in created.fields] == ["pk", "day", "vec"]


# ---- external collections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"external_source": "s3://bucket/table"}, {"external_spec": "{}"}, {"field": "column"}])
def test_an_external_collection_is_found(change: dict[str, str]) -> None:
    proto = schema_pb2.CollectionSchema(name="docs")
    proto.fields.add(name="pk")
    assert not is_external(milvus_pb2.DescribeCollectionResponse(schema=proto))
    for key, value in change.items():
        if key == "field":
            proto.fields[0].external_field = value
        else:
            setattr(proto, key, value)
    assert is_external(milvus_pb2.DescribeCollectionResponse(schema=proto))
