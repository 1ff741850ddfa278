"""Collections with all that a version knows, and what its DescribeCollection says of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from .worlds import World

NAME = ("default", "docs")
#: What every collection has of its own, whatever it is a copy of.
_OF_ITS_OWN = (
    "status",
    "collectionID",
    "virtual_channel_names",
    "physical_channel_names",
    "created_timestamp",
    "created_utc_timestamp",
    "update_timestamp",
    "update_timestamp_str",
    "request_time",
)

BOOL, INT8, INT16, INT32, INT64, FLOAT, DOUBLE, VARCHAR, ARRAY, JSON = 1, 2, 3, 4, 5, 10, 11, 21, 22, 23
GEOMETRY, TEXT, TIMESTAMPTZ = 24, 25, 26
BINARY, FLOAT_VECTOR, FLOAT16, BFLOAT16, SPARSE, INT8_VECTOR, ARRAY_OF_VECTOR = 100, 101, 102, 103, 104, 105, 106


def release(world: World) -> tuple[int, ...]:
    """Return the version as numbers."""
    return tuple(map(int, world.server.profile.release.split(".")))


def field(name: str, kind: int, params: Mapping[str, object] | None = None, **flags: Any) -> Any:
    """Return a field with type parameters."""
    made = schema_pb2.FieldSchema(name=name, data_type=kind, **flags)
    for key, value in (params or {}).items():
        made.type_params.add(key=key, value=str(value))
    return made


def value(**data: Any) -> Any:
    """Return a default value."""
    return schema_pb2.ValueField(**data)


def schema(version: tuple[int, ...]) -> Any:
    """Return a schema with all that a version knows."""
    made = schema_pb2.CollectionSchema(name="docs", description='what <is> & was "there", ünïcode', enable_dynamic_field=True)
    made.fields.extend(
        [
            field("pk", VARCHAR, {"max_length": 64}, is_primary_key=True, description="the key"),
            field("tenant", VARCHAR, {"max_length": 64}, is_partition_key=True),
            field("price", DOUBLE, is_clustering_key=True),
            field("on", BOOL, default_value=value(bool_data=True)),
            field("tiny", INT8, default_value=value(int_data=-7)),
            field("small", INT16),
            field("n", INT64, default_value=value(long_data=2**62 + 1)),
            field("ratio", FLOAT, default_value=value(float_data=1.5)),
            field("word", VARCHAR, {"max_length": 9, "mmap.enabled": "true"}, default_value=value(string_data="ünïcode")),
            field("anything", JSON),
            field("ints", ARRAY, {"max_capacity": 4}, element_type=INT32),
            field("words", ARRAY, {"max_capacity": 3, "max_length": 7}, element_type=VARCHAR),
            field("v", FLOAT_VECTOR, {"dim": 2, "mmap.enabled": "false"}),
            field("half", FLOAT16, {"dim": 2}),
            field("brain", BFLOAT16, {"dim": 2}),
            field("sparse", SPARSE),
        ]
    )
    if version >= (2, 5):
        analyzer = {"max_length": 999, "enable_analyzer": "true", "enable_match": "true", "analyzer_params": '{"tokenizer":"jieba"}'}
        made.fields.extend(
            [
                field("text", VARCHAR, analyzer),
                field("bm25", SPARSE, is_function_output=True),
                field("maybe", INT32, nullable=True),
                field("maybe_not", VARCHAR, {"max_length": 9}, nullable=True, default_value=value(string_data="")),
                field("more", JSON, nullable=True, default_value=value(bytes_data=b'{"a":[1]}')),
            ]
        )
        function = made.functions.add(name="to_bm25", type=1, description="for search", input_field_names=["text"])
        function.output_field_names.append("bm25")
        function.params.add(key="k1", value="1.2")
    if version >= (2, 6):
        made.fields.extend([field("bytes", INT8_VECTOR, {"dim": 2}), field("where", GEOMETRY, nullable=True)])
        struct = made.struct_array_fields.add(name="parts", description="of the whole")
        struct.fields.extend(
            [
                field("part", ARRAY, {"max_capacity": 5}, element_type=INT64),
                field("vectors", ARRAY_OF_VECTOR, {"dim": 2, "max_capacity": 5}, element_type=FLOAT_VECTOR),
            ]
        )
    if version >= (2, 6, 20):
        made.fields.extend([field("when", TIMESTAMPTZ, nullable=True), field("maybe_v", FLOAT_VECTOR, {"dim": 2}, nullable=True)])
    if version >= (3, 0):
        made.struct_array_fields[0].nullable = True
        made.struct_array_fields[0].type_params.add(key="mmap.enabled", value="true")
        made.fields.append(field("novel", TEXT))
    return made


def row(made: Any, number: int) -> dict[str, Any]:
    """Return a row of a :func:`schema`; fields with a default are left to it in every second row."""
    values: dict[str, Any] = {
        "pk": f"key {number}",
        "tenant": f"tenant {number % 3}",
        "price": number / 7,
        "small": -number,
        "anything": {"nested": [number, None, "ü"]},
        "ints": list(range(number % 4)),
        "words": ["a", "ü"],
        "v": [float(number), -0.5],
        "half": bytes([number, 1, 2, 3]),
        "brain": bytes([0, number, 2, 3]),
        "sparse": bytes([number, 0, 0, 0, 0, 0, 128, 63]),
        "text": f"the text of {number}",
        "bm25": bytes([1, 0, 0, 0, number, 0, 0, 0]),
        "bytes": bytes([number, 255]),
        "novel": "long " * number,
        "parts": [{"part": part, "vectors": [float(part), 1.0]} for part in range(number % 3)],
    }
    full = {"on": False, "tiny": 3, "n": -number, "ratio": 0.25, "word": "w", "maybe": 1, "maybe_not": "x", "more": {}}
    full |= {"where": bytes([1, 1, 0, 0, 0]), "when": 1_795_000_000_000_000 + number, "maybe_v": [1.0, 2.0]}
    known = {one.name for one in [*made.fields, *made.struct_array_fields]}
    given = {name: one for name, one in (values | (full if number % 2 else {})).items() if name in known}
    return {**given, "tag": f"dynamic {number}"}


def described(world: World, name: tuple[str, str] = NAME) -> dict[str, Any]:
    """Return all that DescribeCollection and DescribeIndex say, without what belongs to no copy; fields by name, properties by key."""
    answer = world.ask("DescribeCollection", milvus_pb2.DescribeCollectionRequest(collection_name=name[1]), name[0])
    for key in _OF_ITS_OWN:
        if key in answer.DESCRIPTOR.fields_by_name:
            answer.ClearField(key)
    found: dict[str, Any] = {"properties": {pair.key: pair.value for pair in answer.properties}, "indexes": indexes(world, name)}
    assert {pair.key: pair.value for pair in answer.schema.properties} == (found["properties"] if release(world) >= (2, 5) else {})
    for field in [*answer.schema.fields, *answer.schema.struct_array_fields]:
        found[f"field {field.name}"] = field.SerializeToString(deterministic=True)
    for function in answer.schema.functions:
        found[f"function {function.name}"] = function.SerializeToString(deterministic=True)
    for repeated in ("fields", "struct_array_fields", "functions"):
        found[f"order of {repeated}"] = [one.name for one in getattr(answer.schema, repeated)]
        answer.schema.ClearField(repeated)
    for shown in (answer, answer.schema):
        shown.ClearField("properties")
    return {**found, "the rest": answer.SerializeToString(deterministic=True)}


def indexes(world: World, name: tuple[str, str] = NAME) -> dict[str, Any]:
    """Return the indexes by name: of which field, and all their parameters."""
    if not world.model.collection(name).indexes:
        return {}
    answer = world.ask("DescribeIndex", milvus_pb2.DescribeIndexRequest(collection_name=name[1]), name[0])
    return {index.index_name: (index.field_name, {pair.key: pair.value for pair in index.params}) for index in answer.index_descriptions}
