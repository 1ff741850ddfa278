"""A target collection gets the field ids of the backup, or nothing is created and the reason is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pymilvus.grpc_gen import schema_pb2

from airflow_provider_milvus_backup.core import creating, features, schema
from airflow_provider_milvus_backup.core.capabilities import Capability
from airflow_provider_milvus_backup.core.errors import SchemaMismatch, UnsupportedServer
from tests.unit.numbering_server import NAME, NumberingServer, backed_up

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def field(name: str, data_type: int = 21, **more: Any) -> Any:
    return schema_pb2.FieldSchema(name=name, data_type=data_type, **more)


def struct(name: str, members: int) -> Any:
    return schema_pb2.StructArrayFieldSchema(name=name, fields=[field(f"m{i}", 22, element_type=5) for i in range(members)])


def first(plain: int, structs: list[int], *, dynamic: bool) -> Any:
    fields = [field("pk", 5, is_primary_key=True), *(field(f"f{number}") for number in range(plain))]
    arrays = [struct(f"s{number}", members) for number, members in enumerate(structs)]
    return schema_pb2.CollectionSchema(name="docs", fields=fields, struct_array_fields=arrays, enable_dynamic_field=dynamic)


def source(version: str, sent: Any, *steps: Any, shows_meta: bool = False, **properties: str) -> NumberingServer:
    """A Milvus in which a collection was made by these steps: a field, an array of structs, a name to drop, "dynamic"."""
    server = NumberingServer(version, shows_meta=shows_meta)
    server.create(sent, properties)
    for step in steps:
        if isinstance(step, schema_pb2.FieldSchema):
            server.add_field(step)
        elif isinstance(step, schema_pb2.StructArrayFieldSchema):
            server.add_struct(step)
        elif step == "dynamic":
            server.enable_dynamic()
        else:
            server.drop(step)
    return server


def create(server: NumberingServer, collection: Any, raw: bytes | None = None) -> None:
    creating.create(server, NAME, collection, shards=2, raw=raw)  # type: ignore[arg-type]


def late(name: str, **more: Any) -> Any:
    return field(name, nullable=True, **more)


# ---- ids -----------------------------------------------------------------------------------------------------------------------

creations = st.builds(first, st.integers(0, 3), st.lists(st.integers(1, 3), max_size=2), dynamic=st.booleans())


@settings(BUSY, max_examples=150)
@given(st.data(), creations, st.booleans(), st.booleans())
def test_a_collection_of_2_6_that_fields_were_added_to_gets_its_ids_again(data: Any, sent: Any, source_shows: bool, shows: bool) -> None:
    steps = [late(f"late{number}") for number in range(data.draw(st.integers(0, 3)))]
    made = source("v2.6.20", sent, *steps, shows_meta=source_shows)
    target = NumberingServer("v2.6.20", shows_meta=shows)
    create(target, backed_up(made))
    assert target.ids() == made.ids()


@settings(BUSY, max_examples=300)
@given(st.data(), creations, st.booleans(), st.booleans())
def test_whatever_was_done_to_a_collection_ids_are_the_same_or_nothing_is_made(
    data: Any, sent: Any, source_shows: bool, use_raw: bool
) -> None:
    made = source("v3.0.0", sent, shows_meta=source_shows)
    for number in range(data.draw(st.integers(0, 5))):
        names = [*made.ids(), "dynamic"]
        step = data.draw(st.sampled_from(["field", "struct", *(name for name in names if name != "pk" and "[" not in name)]))
        if step == "field":
            made.add_field(late(f"late{number}"))
        elif step == "struct":
            made.add_struct(struct(f"late{number}", 1 + number % 2))
        elif step == "dynamic":
            assume(not made.schema.enable_dynamic_field)
            made.enable_dynamic()
        else:
            made.drop(step)
    target = NumberingServer("v3.0.0")
    try:
        create(target, backed_up(made), made.describe(NAME).schema.SerializeToString() if use_raw else None)
    except SchemaMismatch:
        assert target.calls == []
    else:
        assert target.ids() == made.ids()


def test_fields_after_the_dynamic_field_are_added_one_by_one_in_the_order_of_their_ids() -> None:
    made = source("v3.0.0", first(1, [2], dynamic=True), late("b"), struct("t", 1), late("a", data_type=5))
    target = NumberingServer("v3.0.0")
    create(target, backed_up(made))
    assert [rpc for rpc, _ in target.calls] == [
        "CreateCollection",
        "AddCollectionField",
        "AddCollectionStructField",
        "AddCollectionField",
    ]
    sent = schema_pb2.CollectionSchema.FromString(target.calls[0][1].schema)
    assert [one.name for one in (*sent.fields, *sent.struct_array_fields)] == ["pk", "f0", "s0"]
    assert sorted(target.ids(), key=target.ids().__getitem__) == ["pk", "f0", "$meta", "s0", "s0[m0]", "s0[m1]", "b", "t", "t[m0]", "a"]
    assert target.ids() == made.ids()


def test_without_a_dynamic_field_an_added_field_is_created_with_the_others() -> None:
    made = source("v2.6.4", first(1, [], dynamic=False), late("added"))
    target = NumberingServer("v2.5.10")  # which could not add it
    create(target, backed_up(made))
    assert [rpc for rpc, _ in target.calls] == ["CreateCollection"]
    assert target.ids() == made.ids() == {"pk": 100, "f0": 101, "added": 102}


@pytest.mark.parametrize(
    ("sent", "steps", "text"),
    [
        (first(3, [], dynamic=False), ["f1"], r"field 'f2' of the backup has id 103, Milvus would give it 102"),
        (first(1, [2], dynamic=False), ["f0"], r"field 's0' of the backup has id 102 and members \[103, 104\], Milvus would give it 101"),
        (first(1, [1], dynamic=False), ["dynamic"], r"'\$meta' of the backup has id 104, Milvus would give it 102"),
        (first(2, [], dynamic=True), ["f1"], r"'\$meta' of the backup has id 102 or 103, Milvus would give it 102"),
        (first(1, [], dynamic=True), [late("a"), "a", late("b")], r"'\$meta' of the backup has id 102 or 103"),
    ],
)
def test_a_gap_in_the_ids_is_refused_with_its_place_and_reason_before_anything_is_created(sent: Any, steps: list[Any], text: str) -> None:
    target = NumberingServer("v3.0.0")
    with pytest.raises(SchemaMismatch, match=rf"old\.docs: .*{text}.*dropped.*Copy the rows"):
        create(target, backed_up(source("v3.0.0", sent, *steps)))
    assert target.calls == []


def test_a_gap_where_the_dynamic_field_must_be_is_none_when_the_columns_prove_it() -> None:
    made = source("v2.6.20", first(1, [], dynamic=True), late("b"))
    target = NumberingServer("v2.6.20")
    create(target, backed_up(made, columns=[0, 1, 100, 101, 102, 103]))
    assert target.ids()["$meta"] == 102


def test_columns_that_say_the_dynamic_field_was_elsewhere_are_believed() -> None:
    made = source("v2.6.20", first(1, [], dynamic=True), late("b"))
    with pytest.raises(SchemaMismatch, match=r"'\$meta' of the backup has id 104, Milvus would give it 102"):
        create(NumberingServer("v2.6.20"), backed_up(made, columns=[0, 1, 100, 101, 103, 104]))


def test_a_function_on_a_field_that_was_added_after_the_dynamic_field_is_refused() -> None:
    made = source("v3.0.0", first(1, [], dynamic=True), late("sparse", data_type=104))
    made.schema.functions.add(name="bm25", type=1, input_field_names=["f0"], output_field_names=["sparse"])
    target = NumberingServer("v3.0.0")
    with pytest.raises(SchemaMismatch, match=r"old\.docs: function 'bm25' works on 'sparse'.*Copy the rows"):
        create(target, backed_up(made))
    assert target.calls == []


def test_a_server_that_makes_another_collection_than_it_was_asked_for_is_found_out() -> None:
    target = NumberingServer("v2.5.10")
    target.add_field = target.create = lambda *_: target.schema.fields.add(name="pk", fieldID=100, data_type=5)  # type: ignore[method-assign]
    with pytest.raises(SchemaMismatch, match=r"db\.docs in Milvus has other fields than old\.docs .*: 'f0' is missing, 'pk' has id 100 "):
        create(target, backed_up(source("v2.5.10", first(1, [], dynamic=False))))


# ---- the request ---------------------------------------------------------------------------------------------------------------


def test_the_request_says_what_the_backup_says() -> None:
    made = source("v3.0.0", first(1, [], dynamic=False), **{"mmap.enabled": "true", "preserve_field_ids": "true"})
    target = NumberingServer("v2.5.10")
    create(target, backed_up(made))
    (_, request), *rest = target.calls
    assert not rest
    assert (request.shards_num, request.consistency_level, request.num_partitions) == (2, 1, 0)
    assert [(pair.key, pair.value) for pair in request.properties] == [("mmap.enabled", "true")]
    assert not schema_pb2.CollectionSchema.FromString(request.schema).properties[1:]


@pytest.mark.parametrize("place", ["schema", "collection"])
def test_properties_are_taken_from_either_place(place: str) -> None:
    collection = backed_up(source("v2.5.10", first(1, [], dynamic=False), a="1"))
    collection = replace(collection, properties=[]) if place == "schema" else collection
    if place == "collection":
        del collection.schema["properties"]
    assert creating.properties_to_create(collection) == {"a": "1"}


def test_partitions_are_counted_only_with_a_partition_key() -> None:
    made = source("v2.5.10", first(1, [], dynamic=False))
    made.schema.fields[1].is_partition_key = True
    collection = backed_up(made)
    collection = replace(collection, partitions=collection.partitions * 16)
    target = NumberingServer("v2.5.10")
    create(target, collection)
    assert target.calls[0][1].num_partitions == 16


def test_no_number_of_partitions_is_sent_where_milvus_adds_the_key_field_itself() -> None:
    made = source("v2.6.20", first(1, [], dynamic=False))
    made.schema.fields.add(fieldID=102, name="$namespace_id", data_type=21, is_partition_key=True)
    target = NumberingServer("v2.6.20")
    create(target, backed_up(made))
    assert schema_pb2.CollectionSchema.FromString(target.calls[0][1].schema).enable_namespace
    assert target.calls[0][1].num_partitions == 0


def test_null_and_default_values_are_sent_as_they_were() -> None:
    made = source("v2.6.20", first(1, [], dynamic=True))
    made.add_field(late("n", data_type=5, default_value=schema_pb2.ValueField(long_data=0)))
    made.add_field(late("v", data_type=101))
    made.schema.fields[-1].type_params.add(key="dim", value="8")
    target = NumberingServer("v2.6.20")
    create(target, backed_up(made))
    sent = [schema_pb2.FieldSchema.FromString(request.schema) for rpc, request in target.calls if rpc == "AddCollectionField"]
    assert sent == list(made.schema.fields)[-2:]


def test_the_raw_schema_brings_back_what_the_format_cannot_carry_in_both_kinds_of_request() -> None:
    made = source("v2.6.20", first(1, [], dynamic=True), late("b"))
    made.schema.fields[1].is_clustering_key = made.schema.fields[-1].is_clustering_key = True
    target = NumberingServer("v2.6.20")
    create(target, backed_up(made), made.describe(NAME).schema.SerializeToString())
    assert [f.name for f in target.schema.fields if f.is_clustering_key] == ["f0", "b"]


# ---- the check of functions ----------------------------------------------------------------------------------------------------


def with_function(version: str, **properties: str) -> Any:
    sent = first(1, [], dynamic=False)
    sent.fields.append(field("sparse", 104, is_function_output=True))
    sent.functions.add(name="bm25", type=1, input_field_names=["f0"], output_field_names=["sparse"])
    return backed_up(source(version, sent, **properties))


@pytest.mark.parametrize(
    ("version", "properties", "created", "after"),
    [
        ("v2.5.10", {}, {}, []),
        ("v2.6.7", {"a": "b"}, {"a": "b"}, []),
        ("v2.6.8", {"a": "b"}, {"a": "b", "disable_func_runtime_check": "true"}, ["false"]),
        ("v2.6.20", {"disable_func_runtime_check": "false"}, {"disable_func_runtime_check": "true"}, ["false"]),
        ("v3.0.0", {"disable_func_runtime_check": "true"}, {"disable_func_runtime_check": "true"}, []),
    ],
)
def test_functions_are_not_tried_out_while_their_collection_is_made(
    version: str, properties: dict[str, str], created: dict[str, str], after: list[str]
) -> None:
    target = NumberingServer(version)
    create(target, with_function(version, **properties))
    assert {pair.key: pair.value for pair in target.calls[0][1].properties} == created
    altered = [(pair.key, pair.value) for rpc, request in target.calls[1:] for pair in request.properties if rpc == "AlterCollection"]
    assert altered == [("disable_func_runtime_check", value) for value in after]


def test_a_collection_without_functions_has_no_check_to_switch() -> None:
    target = NumberingServer("v3.0.0")
    create(target, backed_up(source("v3.0.0", first(1, [], dynamic=False))))
    assert [rpc for rpc, _ in target.calls] == ["CreateCollection"]
    assert "disable_func_runtime_check" not in target.properties


# ---- what a server must know ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "capability"),
    [
        ({"data_type": 22}, Capability.ARRAY),
        ({"data_type": 24}, Capability.GEOMETRY),
        ({"data_type": 25}, Capability.TEXT),
        ({"data_type": 26}, Capability.TIMESTAMPTZ),
        ({"data_type": 102}, Capability.FLOAT16_VECTOR),
        ({"data_type": 103}, Capability.FLOAT16_VECTOR),
        ({"data_type": 104}, Capability.SPARSE_VECTOR),
        ({"data_type": 105}, Capability.INT8_VECTOR),
        ({"data_type": 106}, Capability.STRUCT_ARRAY),
        ({"data_type": 21, "nullable": True}, Capability.NULLABLE),
        ({"data_type": 101, "nullable": True}, Capability.NULLABLE_VECTOR),
        ({"data_type": 21, "type_params": [{"key": "enable_match", "value": "true"}]}, Capability.ANALYZER),
    ],
)
def test_a_field_names_the_capability_it_needs(one: dict[str, Any], capability: Capability) -> None:
    assert features.features({"fields": [{"name": "a", **one}]}) == [("field 'a'", capability)]


@pytest.mark.parametrize("data_type", [1, 2, 3, 4, 5, 10, 11, 21, 23, 100, 101, 4711])
def test_a_plain_field_needs_nothing(data_type: int) -> None:
    one = {"name": "a", "data_type": data_type, "default_value_base64": "GAc=", "is_clustering_key": True}
    one["type_params"] = [{"key": "enable_match", "value": "false"}, {"key": "dim", "value": "8"}]
    assert features.features({"fields": [one]}) == []


def test_functions_and_structs_name_what_they_need() -> None:
    functions = [{"name": "bm25", "type": 1}, {"name": "embedding", "type": 2}]
    document = {"fields": [], "functions": functions, "struct_array_fields": [{"name": "s", "fields": []}]}
    assert features.features(document) == [
        ("function 'bm25'", Capability.FUNCTIONS),
        ("function 'embedding'", Capability.MORE_FUNCTIONS),
        ("field 's'", Capability.STRUCT_ARRAY),
    ]


@pytest.mark.parametrize(
    ("version", "one", "first_release"),
    [
        ("v2.3.1", field("a", 22), "2.3.2"),
        ("v2.3.5-lite", field("a", 104), "2.4.0"),
        ("v2.4.24", late("a"), "2.5.0"),
        ("v2.5.27", field("a", 105), "2.6.0"),
        ("v2.6.5", field("a", 26), "2.6.6"),
        ("v2.6.17", late("a", data_type=101), "2.6.18 and 3.0.0"),
        ("v2.6.20", field("a", 25), "3.0.0"),
    ],
)
def test_a_server_that_is_too_old_is_refused_with_the_first_release_that_is_not(version: str, one: Any, first_release: str) -> None:
    sent = first(0, [], dynamic=False)
    sent.fields.append(one)
    target = NumberingServer(version)
    with pytest.raises(UnsupportedServer, match=rf"old\.docs: field 'a' needs .* {first_release} or newer; this one is {version}"):
        create(target, backed_up(source("v3.0.0", sent)))
    assert target.calls == []


@pytest.mark.parametrize(
    ("version", "step", "first_release"), [("v2.5.10", late("a"), "2.6.0"), ("v2.6.20", struct("a", 1), "3.0.0")]
)
def test_a_server_that_cannot_add_what_was_added_is_refused(version: str, step: Any, first_release: str) -> None:
    made = source("v3.0.0", first(1, [], dynamic=True), late("before") if version != "v2.5.10" else late("a0"), step)
    target = NumberingServer(version)
    with pytest.raises(UnsupportedServer, match=rf"old\.docs: field 'a0?', which was added later, needs .* {first_release} or newer"):
        create(target, backed_up(made))
    assert target.calls == []


def test_arrays_of_structs_need_2_6_4() -> None:
    collection = backed_up(source("v2.6.20", first(1, [1], dynamic=False)))
    with pytest.raises(UnsupportedServer, match=r"field 's0' needs .* 2\.6\.4 or newer"):
        create(NumberingServer("v2.6.3"), collection)
    target = NumberingServer("v2.6.4")
    create(target, collection)
    assert target.ids() == {"pk": 100, "f0": 101, "s0": 102, "s0[m0]": 103}


def test_what_is_written_down_of_a_hidden_dynamic_field_is_never_sent_as_a_property() -> None:
    collection = backed_up(source("v3.0.0", first(1, [], dynamic=True)))
    assert (schema.MAX_FIELD_ID, "102") in collection.properties
    assert creating.properties_to_create(collection) == {}
