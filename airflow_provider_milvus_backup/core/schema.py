"""Collection schemas: Milvus's protobuf ⇄ the JSON of the meta files. Pure functions.

The JSON keys are the protobuf names of ``schemapb`` (``milvus-io/milvus-proto``), so one table serves reading, checking and
writing. What the official format cannot carry is not in the tables; :mod:`.raw_schema` names and keeps it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .errors import BackupDamaged
from .jsonreader import Node

if TYPE_CHECKING:
    from pymilvus.grpc_gen import schema_pb2

DYNAMIC_FIELD = "$meta"
NAMESPACE_FIELD = "$namespace_id"
#: Fields that Milvus adds to a collection itself and refuses to be given (``pkg/common/common.go``).
SERVER_FIELDS = (DYNAMIC_FIELD, NAMESPACE_FIELD, "RowID", "Timestamp")
#: The highest id that a field of the collection ever had.
MAX_FIELD_ID = "max_field_id"
#: 3.0 keeps these among the properties. The first, replayed, shifts the ids of fields added later; the second, left by the restore of a
#: snapshot, makes Milvus believe the ids of CreateCollection, which gives the dynamic field the id -1.
SERVER_PROPERTIES = (MAX_FIELD_ID, "preserve_field_ids")

#: Python 3.10's own check lets some padding pass.
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

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
    """Return the schema to create a collection ``name`` with: fields in id order, without those that Milvus adds itself."""
    from pymilvus.grpc_gen import schema_pb2

    schema = schema_pb2.CollectionSchema()
    _json_to_message({**document, "name": name}, SCHEMA, schema)
    for field in document["fields"]:
        _field_to_message(field, schema.fields.add())
    for function in document.get("functions", []):
        _json_to_message(function, FUNCTION, schema.functions.add())
    for struct in document.get("struct_array_fields", []):
        message = schema.struct_array_fields.add()
        _json_to_message(struct, STRUCT, message)
        for field in struct["fields"]:
            _field_to_message(field, message.fields.add())
    return in_id_order(schema)


def in_id_order(schema: schema_pb2.CollectionSchema) -> schema_pb2.CollectionSchema:
    """Return ``schema`` itself, with all fields in the order of their ids and without what Milvus adds itself.

    Milvus numbers fields by their position, so the order decides whether ids come back equal.
    """
    if any(field.name == NAMESPACE_FIELD for field in schema.fields) and hasattr(schema, "enable_namespace"):
        schema.enable_namespace = True
    keep = [field for field in schema.fields if not (field.is_dynamic or field.name in SERVER_FIELDS)]
    pairs = [pair for pair in schema.properties if pair.key not in SERVER_PROPERTIES]
    for repeated, kept in ((schema.fields, keep), (schema.properties, pairs)):
        if len(kept) < len(repeated):
            copies = [type(one).FromString(one.SerializeToString()) for one in kept]
            del repeated[:]
            repeated.extend(copies)
    schema.struct_array_fields.sort(key=lambda struct: struct.fieldID)
    for _, fields in field_lists(schema):
        fields.sort(key=lambda field: field.fieldID)
    return schema


def field_lists(schema: schema_pb2.CollectionSchema) -> Iterator[tuple[str, Any]]:
    """Iterate over (name, fields): the fields of the collection itself, whose name is empty, and of each array of structs."""
    yield "", schema.fields
    for struct in schema.struct_array_fields:
        yield struct.name, struct.fields


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
    """Return what must be equal for binlogs to fit: id, type, element type, dimension and flags of every user field, by name.

    Members of struct arrays are named ``struct[member]``.
    """
    shapes = {field["name"]: _shape(field) for field in document["fields"] if not is_dynamic(field)}
    for struct in document.get("struct_array_fields", []):
        shapes.update({f"{struct['name']}[{field['name']}]": _shape(field) for field in struct["fields"]})
    if document.get("enable_dynamic_field"):
        shapes[DYNAMIC_FIELD] = ()
    return shapes


def _shape(field: dict[str, Any]) -> tuple[Any, ...]:
    dim = next((pair["value"] for pair in field.get("type_params", []) if pair["key"] == "dim"), "")
    flags = [key for key in ("is_primary_key", "autoID", "is_partition_key", "nullable") if field.get(key)]
    return (field.get("fieldID", 0), field.get("data_type", 0), field.get("element_type", 0), dim, *flags)


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return why binlogs of a schema do not fit another one, a short text for each field; empty when they fit.

    The id of the dynamic field counts where both sides show it: most servers do not.
    """
    wanted, there = field_shapes(expected), field_shapes(found)
    texts = [f"{name!r} is missing" for name in wanted if name not in there]
    texts += [f"{name!r} is not in the backup" for name in there if name not in wanted]
    for name in wanted:
        if name in there and wanted[name] != there[name]:
            texts.append(f"{name!r} has {_shape_text(there[name])} instead of {_shape_text(wanted[name])}")
    ids = [dynamic_id(document) for document in (expected, found)]
    if DYNAMIC_FIELD in wanted and DYNAMIC_FIELD in there and all(ids) and ids[0] != ids[1]:
        texts.append(f"{DYNAMIC_FIELD!r} has id {ids[1]} instead of id {ids[0]}")
    return texts


def _shape_text(shape: tuple[Any, ...]) -> str:
    from pymilvus.grpc_gen import schema_pb2

    def type_name(number: int) -> str:
        return str(schema_pb2.DataType.Name(number)) if number in schema_pb2.DataType.values() else f"type {number}"

    field_id, data_type, element_type, dim, *flags = shape
    words = [f"id {field_id}", type_name(data_type)]
    words += [f"of {type_name(element_type)}"] if element_type else []
    words += [f"dim {dim}"] if dim else []
    return " ".join((*words, *flags))


def is_dynamic(field: dict[str, Any]) -> bool:
    """Return whether this is the field that holds what no other field does; DescribeCollection of most servers hides it."""
    return bool(field.get("is_dynamic")) or field.get("name") == DYNAMIC_FIELD


def dynamic_id(document: dict[str, Any]) -> int:
    """Return the id of the dynamic field, 0 where the schema does not show it."""
    return next((int(field.get("fieldID", 0)) for field in document["fields"] if is_dynamic(field)), 0)


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


def _checked_field(node: Node) -> dict[str, Any]:
    field = _checked_object(node, FIELD)
    if not field.get("name"):
        raise node.wrong("name", "a field name")
    for key in ("default_value_base64", "default_value_proto"):
        if value := node.string(key):
            field[key] = value
    if not BASE64.fullmatch(field.get("default_value_base64", "")):
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
