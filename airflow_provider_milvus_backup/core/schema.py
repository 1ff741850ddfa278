"""Collection schemas: Milvus's protobuf ⇄ the JSON of the meta files. Pure functions.

The JSON keys are the protobuf names of ``schemapb`` (``milvus-io/milvus-proto``), so one table serves reading, checking and
writing. What the official format cannot carry (``is_clustering_key``, ``state``) is not in the table.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import BackupDamaged
from .jsonreader import Node

if TYPE_CHECKING:
    from pymilvus.grpc_gen import schema_pb2

DYNAMIC_FIELD = "$meta"
#: 3.0 keeps this among the properties; replaying it shifts the ids of fields added later.
MAX_FIELD_ID = "max_field_id"

# Python 3.10's own check lets some padding pass.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

INT, STR, BOOL, PAIRS, STRS, INTS = "int", "str", "bool", "pairs", "strs", "ints"

FIELD = {
    "fieldID": INT,
    "name": STR,
    "is_primary_key": BOOL,
    "description": STR,
    "data_type": INT,
    "type_params": PAIRS,
    "index_params": PAIRS,
    "autoID": BOOL,
    "element_type": INT,
    "is_dynamic": BOOL,
    "is_partition_key": BOOL,
    "nullable": BOOL,
    "is_function_output": BOOL,
}
FUNCTION = {
    "name": STR,
    "id": INT,
    "description": STR,
    "type": INT,
    "input_field_names": STRS,
    "input_field_ids": INTS,
    "output_field_names": STRS,
    "output_field_ids": INTS,
    "params": PAIRS,
}
STRUCT = {"fieldID": INT, "name": STR, "description": STR}
SCHEMA = {"name": STR, "description": STR, "autoID": BOOL, "enable_dynamic_field": BOOL, "properties": PAIRS}


def from_proto(schema: schema_pb2.CollectionSchema) -> dict[str, Any]:
    """Return the meta JSON of a collection's schema as DescribeCollection gave it."""
    document = _message_to_json(schema, SCHEMA)
    document["fields"] = [_field_to_json(field) for field in schema.fields]
    if schema.functions:
        document["functions"] = [_message_to_json(function, FUNCTION) for function in schema.functions]
    if schema.struct_array_fields:
        document["struct_array_fields"] = [
            {**_message_to_json(struct, STRUCT), "fields": [_field_to_json(field) for field in struct.fields]}
            for struct in schema.struct_array_fields
        ]
    return document


def to_proto(document: dict[str, Any], name: str) -> schema_pb2.CollectionSchema:
    """Return the schema to create a collection ``name`` with: fields in id order, without the dynamic field Milvus adds itself.

    Milvus numbers fields by their position, so the order decides whether ids come back equal.
    """
    from pymilvus.grpc_gen import schema_pb2

    schema = schema_pb2.CollectionSchema()
    _json_to_message({**document, "name": name, "properties": _without_server_managed(document)}, SCHEMA, schema)
    for field in sorted(document["fields"], key=lambda field: int(field.get("fieldID", 0))):
        if not field.get("is_dynamic"):
            _field_to_message(field, schema.fields.add())
    for function in document.get("functions", []):
        _json_to_message(function, FUNCTION, schema.functions.add())
    for struct in document.get("struct_array_fields", []):
        message = schema.struct_array_fields.add()
        _json_to_message(struct, STRUCT, message)
        for field in struct["fields"]:
            _field_to_message(field, message.fields.add())
    return schema


def checked(node: Node) -> dict[str, Any]:
    """Return the schema in ``node`` with every known key checked and unknown ones dropped; raises BackupDamaged."""
    document = _checked_object(node, SCHEMA)
    document["fields"] = [_checked_field(field) for field in node.nodes("fields")]
    if node.items("functions"):
        document["functions"] = [_checked_object(function, FUNCTION) for function in node.nodes("functions")]
    if node.items("struct_array_fields"):
        document["struct_array_fields"] = [
            {**_checked_object(struct, STRUCT), "fields": [_checked_field(field) for field in struct.nodes("fields")]}
            for struct in node.nodes("struct_array_fields")
        ]
    if not any(field.get("is_primary_key") for field in document["fields"]):
        raise BackupDamaged(f"{node.where} of collection {document.get('name')!r} has no primary key field")
    names = [field["name"] for field in document["fields"]]
    names += [struct.get("name", "") for struct in document.get("struct_array_fields", [])]
    if "" in names or len(set(names)) < len(names):
        raise BackupDamaged(f"{node.where} has fields without a name, or two of one name: {names}")
    from google.protobuf.message import DecodeError

    try:
        to_proto(document, "check")
    except (ValueError, TypeError, DecodeError) as error:
        raise BackupDamaged(f"{node.where} cannot be sent to Milvus: {error}") from None
    return document


def field_shapes(document: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return what must be equal for binlogs to fit: id, type, element type, dimension and key flags of every user field, by name.

    Members of struct arrays are named ``struct[member]``.
    """
    shapes = {field["name"]: _shape(field) for field in document["fields"] if not field.get("is_dynamic")}
    for struct in document.get("struct_array_fields", []):
        shapes.update({f"{struct['name']}[{field['name']}]": _shape(field) for field in struct["fields"]})
    if document.get("enable_dynamic_field"):
        shapes[DYNAMIC_FIELD] = ()
    return shapes


def _shape(field: dict[str, Any]) -> tuple[Any, ...]:
    dim = next((pair["value"] for pair in field.get("type_params", []) if pair["key"] == "dim"), "")
    flags = [key for key in ("is_primary_key", "autoID", "is_partition_key") if field.get(key)]
    return (field.get("fieldID", 0), field.get("data_type", 0), field.get("element_type", 0), dim, *flags)


def has_partition_key(document: dict[str, Any]) -> bool:
    """Return whether Milvus spreads rows over partitions by a key field, so that partitions cannot be created by name."""
    return any(field.get("is_partition_key") for field in document["fields"])


def _message_to_json(message: Any, table: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, kind in table.items():
        value = getattr(message, key, None)
        if not value:
            continue
        if kind == PAIRS:
            document[key] = [{"key": pair.key, "value": pair.value} for pair in value]
        else:
            document[key] = list(value) if kind in (STRS, INTS) else value
    return document


def _json_to_message(document: dict[str, Any], table: dict[str, str], message: Any) -> None:
    for key, kind in table.items():
        value = document.get(key)
        if not value:
            continue
        if kind == PAIRS:
            for pair in value:
                getattr(message, key).add(key=pair["key"], value=pair["value"])
        elif kind in (STRS, INTS):
            getattr(message, key).extend(value)
        else:
            setattr(message, key, value)


def _field_to_json(field: schema_pb2.FieldSchema) -> dict[str, Any]:
    document = _message_to_json(field, FIELD)
    if field.HasField("default_value"):
        document["default_value_base64"] = base64.b64encode(field.default_value.SerializeToString()).decode()
    return document


def _field_to_message(document: dict[str, Any], field: schema_pb2.FieldSchema) -> None:
    _json_to_message(document, FIELD, field)
    if encoded := document.get("default_value_base64"):
        field.default_value.ParseFromString(base64.b64decode(encoded))
    elif (lossy := document.get("default_value_proto")) and "\ufffd" not in lossy:
        # 0.4.26 to 0.5.4 put protobuf bytes into a JSON string; where they were not UTF-8 the value is lost.
        from google.protobuf.message import DecodeError

        try:
            field.default_value.ParseFromString(lossy.encode())
        except DecodeError:
            field.ClearField("default_value")


def _without_server_managed(document: dict[str, Any]) -> list[dict[str, str]]:
    return [pair for pair in document.get("properties", []) if pair["key"] != MAX_FIELD_ID]


def _checked_field(node: Node) -> dict[str, Any]:
    field = _checked_object(node, FIELD)
    if not field.get("name"):
        raise node.wrong("name", "a field name")
    for key in ("default_value_base64", "default_value_proto"):
        if value := node.string(key):
            field[key] = value
    if not _BASE64.fullmatch(field.get("default_value_base64", "")):
        raise node.wrong("default_value_base64", "base64")
    return field


def _checked_object(node: Node, table: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, kind in table.items():
        if kind == PAIRS:
            value: Any = [{"key": k, "value": v} for k, v in node.pairs(key)]
        elif kind in (STRS, INTS):
            value = node.items(key, str if kind == STRS else int)
        else:
            readers: dict[str, Callable[[str], Any]] = {INT: node.integer, STR: node.string, BOOL: node.boolean}
            value = readers[kind](key)
        if value:
            document[key] = value
    return document
