"""A schema survives the way from Milvus into the meta files and back, and a hostile one is refused before it is used."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import schema_pb2

from airflow_provider_milvus_backup.core import schema
from airflow_provider_milvus_backup.core.errors import BackupDamaged
from airflow_provider_milvus_backup.core.jsonreader import Node

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Json = dict[str, Any]

# The examples of the fact sheet, and the values that look like none.
DEFAULTS = [
    ({"long_data": 7}, "GAc="),
    ({"string_data": "n/a"}, "MgNuL2E="),
    ({"bool_data": True}, "CAE="),
    ({"float_data": 1.5}, "JQAAwD8="),
    ({"bytes_data": b"{}"}, "OgJ7fQ=="),
    ({"bool_data": False}, "CAA="),
    ({"int_data": 0}, "EAA="),
    ({"string_data": ""}, "MgA="),
    ({"double_data": 0.0}, "KQAAAAAAAAAA"),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
field_names = st.text(st.sampled_from("abc_1"), min_size=1, max_size=6)
int64 = st.integers(-(2**63), 2**63 - 1)
ids = st.integers(1, 2**63 - 1)
pairs = st.lists(st.fixed_dictionaries({"key": texts, "value": texts}), min_size=1, max_size=3)
values = st.one_of(
    st.builds(schema_pb2.ValueField, bool_data=st.booleans()),
    st.builds(schema_pb2.ValueField, int_data=st.integers(-(2**31), 2**31 - 1)),
    st.builds(schema_pb2.ValueField, long_data=int64),
    st.builds(schema_pb2.ValueField, float_data=st.floats(width=32)),
    st.builds(schema_pb2.ValueField, double_data=st.floats()),
    st.builds(schema_pb2.ValueField, string_data=texts),
    st.builds(schema_pb2.ValueField, bytes_data=st.binary(max_size=8)),
)


def encoded(value: schema_pb2.ValueField) -> str:
    return base64.b64encode(value.SerializeToString()).decode()


def optional(table: dict[str, str], special: dict[str, Any] | None = None) -> dict[str, Any]:
    """Strategies of what a key holds where it is present: zero values are left out of the format."""
    kinds = {
        schema.INT: st.integers(1, 2**31 - 1),
        "enum": st.integers(1, 2**31 - 1),
        schema.STR: texts.filter(bool),
        schema.BOOL: st.just(True),
        schema.PAIRS: pairs,
        schema.STRS: st.lists(texts, min_size=1, max_size=3),
        schema.INTS: st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3),
    }
    return {**{key: kinds[kind] for key, kind in table.items()}, **(special or {})}


def fields(*data_types: int) -> Any:
    keys = optional(schema.FIELD, {"fieldID": ids, "data_type": st.sampled_from(data_types), "default_value_base64": values.map(encoded)})
    required = {key: keys.pop(key) for key in ("fieldID", "data_type")} | {"name": field_names}
    del keys["name"], keys["is_dynamic"]
    return st.fixed_dictionaries(required, optional=keys)


def by_id(found: list[Json]) -> list[Json]:
    return sorted(found, key=lambda field: field["fieldID"])


functions = st.fixed_dictionaries({}, optional=optional(schema.FUNCTION, {"id": ids, "type": st.integers(1, 4)}))
structs = st.fixed_dictionaries(
    {
        "name": field_names.map("s{}".format),
        "fieldID": ids,
        "fields": st.lists(fields(22, 106), max_size=3, unique_by=(lambda f: f["fieldID"], lambda f: f["name"])).map(by_id),
    },
    optional={"description": texts.filter(bool)},
)
documents = st.fixed_dictionaries(
    {
        "name": field_names,
        "fields": st.lists(
            fields(1, 5, 11, 21, 22, 23, 101, 104, 106, 201),
            min_size=1,
            max_size=5,
            unique_by=(lambda f: f["fieldID"], lambda f: f["name"]),
        ).map(by_id),
    },
    optional={
        "description": texts.filter(bool),
        "autoID": st.just(True),
        "enable_dynamic_field": st.just(True),
        "properties": pairs,
        "functions": st.lists(functions, min_size=1, max_size=2),
        "struct_array_fields": st.lists(
            structs, min_size=1, max_size=2, unique_by=(lambda found: found["fieldID"], lambda found: found["name"])
        ).map(by_id),
    },
)


def checked(document: Any) -> Json:
    return schema.checked(Node.parse(json.dumps(document).encode(), "schema"))


def simple(**rest: Any) -> Json:
    key = {"fieldID": 100, "name": "pk", "is_primary_key": True, "data_type": 5, **rest}
    return {"name": "docs", "fields": [key, {"fieldID": 101, "name": "vec", "data_type": 101}]}


# ---- round trips ---------------------------------------------------------------------------------------------------------------


@settings(BUSY, max_examples=40)
@given(documents)
def test_a_schema_comes_back_from_milvus_as_it_was_sent(document: Json) -> None:
    assert schema.from_proto(schema.to_proto(document, document["name"])) == document


@settings(BUSY, max_examples=40)
@given(documents)
def test_a_written_schema_is_read_as_it_was(document: Json) -> None:
    document["fields"][0]["is_primary_key"] = True
    assert checked(document) == document


@settings(BUSY, max_examples=40)
@given(documents)
def test_making_a_request_leaves_the_schema_alone(document: Json) -> None:
    before = copy.deepcopy(document)
    schema.to_proto(document, "other")
    assert document == before


@pytest.mark.parametrize(("value", "text"), DEFAULTS)
def test_a_default_value_is_stored_as_the_official_tool_stores_it(value: Json, text: str) -> None:
    proto = schema_pb2.CollectionSchema(name="docs")
    proto.fields.add(name="a", fieldID=100, default_value=schema_pb2.ValueField(**value))
    document = schema.from_proto(proto)
    assert document["fields"][0]["default_value_base64"] == text
    assert schema.to_proto(document, "docs").fields[0].default_value == schema_pb2.ValueField(**value)


def test_a_field_without_default_value_gets_none() -> None:
    assert not schema.to_proto(simple(), "docs").fields[0].HasField("default_value")
    assert "default_value_base64" not in schema.from_proto(schema.to_proto(simple(), "docs"))["fields"][0]


@pytest.mark.parametrize("data_type", sorted(schema_pb2.DataType.values()))
def test_every_data_type_of_milvus_comes_back(data_type: int) -> None:
    document = simple()
    document["fields"][1] |= {"data_type": data_type, "element_type": data_type} if data_type else {}
    assert schema.from_proto(schema.to_proto(document, "docs")) == document


def test_a_data_type_newer_than_this_program_is_carried_unchanged() -> None:
    document = simple()
    document["fields"][1]["data_type"] = 4711
    assert schema.from_proto(schema.to_proto(checked(document), "docs")) == document


# ---- what Milvus is asked for --------------------------------------------------------------------------------------------------


def test_fields_are_created_in_the_order_of_their_ids_whatever_the_order_in_the_backup() -> None:
    document = simple()
    document["fields"].reverse()
    assert [field.fieldID for field in schema.to_proto(document, "docs").fields] == [100, 101]


def test_the_collection_gets_the_new_name() -> None:
    assert schema.to_proto(simple(), "docs_restored").name == "docs_restored"


def test_what_milvus_adds_itself_is_not_sent() -> None:
    document = simple()
    document["fields"].append({"fieldID": 102, "name": schema.DYNAMIC_FIELD, "data_type": 23, "is_dynamic": True})
    added = [{"key": "max_field_id", "value": "9"}, {"key": "preserve_field_ids", "value": "true"}]
    document |= {"enable_dynamic_field": True, "properties": [*added, {"key": "a", "value": "b"}]}
    proto = schema.to_proto(document, "docs")
    assert [field.name for field in proto.fields] == ["pk", "vec"]
    assert [(pair.key, pair.value) for pair in proto.properties] == [("a", "b")]
    assert proto.enable_dynamic_field


def test_the_shape_of_a_schema_names_user_fields_and_struct_members() -> None:
    document = simple()
    document["fields"][1]["type_params"] = [{"key": "dim", "value": "8"}]
    document["fields"].append({"fieldID": 105, "name": schema.DYNAMIC_FIELD, "is_dynamic": True})
    document["struct_array_fields"] = [{"fieldID": 102, "name": "s", "fields": [{"fieldID": 103, "name": "x", "data_type": 22}]}]
    shapes = schema.field_shapes(document)
    assert list(shapes) == ["pk", "vec", "s[x]"]
    assert list(schema.field_shapes({**document, "enable_dynamic_field": True})) == ["pk", "vec", "s[x]", schema.DYNAMIC_FIELD]


@pytest.mark.parametrize(
    "change",
    [
        {"fieldID": 7},
        {"data_type": 21},
        {"element_type": 5},
        {"is_primary_key": False},
        {"autoID": True},
        {"is_partition_key": True},
        {"nullable": True},
        {"type_params": [{"key": "dim", "value": "9"}]},
        {"name": "other"},
    ],
)
def test_what_must_fit_the_binlogs_is_part_of_the_shape(change: Json) -> None:
    assert schema.field_shapes(simple(**change)) != schema.field_shapes(simple())


@settings(BUSY, max_examples=40)
@given(documents)
def test_a_schema_that_came_back_from_milvus_has_the_same_shape(document: Json) -> None:
    assert schema.field_shapes(schema.from_proto(schema.to_proto(document, "x"))) == schema.field_shapes(document)


def test_members_of_structs_are_created_in_the_order_of_their_ids() -> None:
    members = [{"fieldID": 107, "name": "y", "data_type": 22}, {"fieldID": 106, "name": "x", "data_type": 106}]
    structs = [{"fieldID": 105, "name": "t", "fields": members}, {"fieldID": 103, "name": "s", "fields": [{"fieldID": 104, "name": "z"}]}]
    proto = schema.to_proto({**simple(), "struct_array_fields": structs}, "docs")
    assert [(struct.name, [field.name for field in struct.fields]) for struct in proto.struct_array_fields] == [
        ("s", ["z"]),
        ("t", ["x", "y"]),
    ]


def test_a_partition_key_is_found() -> None:
    assert not schema.has_partition_key(simple())
    assert schema.has_partition_key(simple(is_partition_key=True))


# ---- old generations -----------------------------------------------------------------------------------------------------------


def lossy(**value: Any) -> str:
    """What 0.4.26 - 0.5.4 made of a default value: protobuf bytes in a JSON string."""
    data: bytes = schema_pb2.ValueField(**value).SerializeToString()
    return data.decode("utf-8", "replace")


@pytest.mark.parametrize("value", [{"long_data": 127}, {"string_data": "n/a"}, {"string_data": "ä"}, {"bool_data": True}])
def test_a_default_value_of_old_releases_is_understood_where_nothing_was_lost(value: Json) -> None:
    field = schema.to_proto(checked(simple(default_value_proto=lossy(**value))), "docs").fields[0]
    assert field.default_value == schema_pb2.ValueField(**value)


def test_a_default_value_of_old_releases_that_cannot_be_decoded_is_left_out() -> None:
    assert not schema.to_proto(checked(simple(default_value_proto=lossy(float_data=1.5))), "docs").fields[0].HasField("default_value")


@pytest.mark.parametrize("value", [{"long_data": 128}, {"long_data": 300}, {"int_data": 1000}])
def test_a_default_value_of_old_releases_never_comes_back_as_another_one(value: Json) -> None:
    field = schema.to_proto(checked(simple(default_value_proto=lossy(**value))), "docs").fields[0]
    assert not field.HasField("default_value")


def test_the_exact_default_value_wins_over_the_lossy_one() -> None:
    document = checked(simple(default_value_proto=lossy(long_data=1), default_value_base64="GAc="))
    assert schema.to_proto(document, "docs").fields[0].default_value.long_data == 7


# ---- hostile input -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"fields": None},
        {"fields": []},
        {"fields": {}},
        {"fields": "x"},
        {"fields": [1]},
        {"fields": [{"is_primary_key": True}]},
        {"fields": [{"name": "a"}]},
        {"name": 5},
        {"autoID": 1},
        {"properties": {"a": "b"}},
        {"properties": [{"key": 1}]},
        {"functions": {}},
        {"functions": [[]]},
        {"functions": [{"input_field_ids": ["1"]}]},
        {"functions": [{"input_field_ids": [True]}]},
        {"functions": [{"input_field_names": [1]}]},
        {"struct_array_fields": [{"fields": [{"name": ""}]}]},
        {"struct_array_fields": [None]},
    ],
)
def test_a_schema_of_wrong_types_is_refused(change: Json) -> None:
    with pytest.raises(BackupDamaged, match="schema"):
        checked({**simple(), **change})


@pytest.mark.parametrize("key", ["fieldID", "data_type", "element_type"])
@pytest.mark.parametrize("value", [-1, 2**63, 1.0, "5", True, [], {}])
def test_a_field_with_a_wrong_number_is_refused(key: str, value: Any) -> None:
    with pytest.raises(BackupDamaged, match=key):
        checked(simple(**{key: value}))


@pytest.mark.parametrize("text", ["=", "a", "****", "GAc", "GAc=\n", 5, []])
def test_a_default_value_that_is_not_base64_is_refused(text: Any) -> None:
    with pytest.raises(BackupDamaged, match="default_value_base64"):
        checked(simple(default_value_base64=text))


def test_a_default_value_that_is_not_ascii_is_refused() -> None:
    with pytest.raises(BackupDamaged, match="default_value_base64"):
        checked(simple(default_value_base64="ä"))


@pytest.mark.parametrize(
    "change",
    [
        {"default_value_base64": "/w=="},
        {"data_type": 2**31},
        {"element_type": 2**40},
        {"description": "\ud800"},
        {"name": "\udfff"},
        {"type_params": [{"key": "\ud800", "value": ""}]},
        {"default_value_proto": "\ud800"},
    ],
)
def test_what_cannot_be_sent_to_milvus_is_refused_when_it_is_read(change: Json) -> None:
    with pytest.raises(BackupDamaged):
        checked(simple(**change))


@pytest.mark.parametrize("function", [{"type": 2**31}, {"input_field_ids": [2**63]}, {"output_field_ids": [-(2**63) - 1]}])
def test_a_function_that_cannot_be_sent_to_milvus_is_refused_when_it_is_read(function: Json) -> None:
    with pytest.raises(BackupDamaged):
        checked({**simple(), "functions": [function]})


def test_a_struct_without_name_is_refused() -> None:
    with pytest.raises(BackupDamaged, match="name"):
        checked({**simple(), "struct_array_fields": [{"fields": [{"name": "x", "data_type": 22}]}]})


def test_two_fields_of_one_name_are_refused() -> None:
    document = simple()
    document["fields"].append({"fieldID": 102, "name": "vec", "data_type": 5})
    with pytest.raises(BackupDamaged, match="vec"):
        checked(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*schema.FIELD, *schema.FUNCTION]), inner, max_size=3),
    max_leaves=6,
)


@settings(BUSY, max_examples=40)
@given(
    st.dictionaries(st.sampled_from([*schema.SCHEMA, "functions", "struct_array_fields"]), json_values, max_size=3),
    st.dictionaries(st.sampled_from([*schema.FIELD, "default_value_proto"]), json_values, max_size=3),
)
def test_any_schema_is_usable_or_refused(whole: Json, field: Json) -> None:
    try:
        document = checked({**simple(**field), **whole})
    except BackupDamaged:
        return
    schema.field_shapes(document)
    schema.to_proto(document, "docs")
