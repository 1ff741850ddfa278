"""Schemas as RootCoord keeps them, and rows as their columns.

Ids: ``internal/rootcoord/create_collection_task.go`` (appendDynamicField, then assignFieldAndFunctionID).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pymilvus.grpc_gen import schema_pb2

from .binlogs import BadObject, Column
from .profiles import Profile
from .refusals import invalid, unexpected

FIRST_ID = 100
ROW_ID, TIMESTAMP = 0, 1
DYNAMIC = "$meta"
INT64, VARCHAR, JSON = 5, 21, 23
VECTORS = range(100, 107)
#: What the option names the property that 3.0 keeps the highest id under.
MAX_FIELD_ID = "max_field_id"


def accepted(content: bytes, name: str, profile: Profile) -> Any:
    """Return the schema a version makes of the one in a CreateCollection: checked, with ids, with what it does not know left out."""
    schema = schema_pb2.CollectionSchema()
    schema.ParseFromString(content)
    if schema.name != name:
        raise invalid(f"collection name mismatch: {name} vs {schema.name}")
    _forget_unknown(schema, profile)
    keys = [field for field in schema.fields if field.is_primary_key]
    if len(keys) != 1:
        raise invalid("primary key is not specified" if not keys else f"there are more than one primary key, field name = {keys[1].name}")
    if keys[0].data_type not in (INT64, VARCHAR):
        raise invalid("the data type of primary key should be Int64 or VarChar")
    for members in ([*schema.fields, *schema.struct_array_fields], *(struct.fields for struct in schema.struct_array_fields)):
        if len({member.name for member in members}) < len(members):
            raise unexpected("duplicated field name")
    if any(field.is_dynamic for field in schema.fields):
        raise invalid("cannot explicitly set a field as a dynamic field")
    if schema.enable_dynamic_field:
        schema.fields.add(name=DYNAMIC, description="dynamic schema", data_type=JSON, is_dynamic=True)
    number_fields(schema)
    return schema


def _forget_unknown(schema: Any, profile: Profile) -> None:
    """Clear what the server's own proto has no field for, and what it does not read."""
    schema.ClearField("properties")
    if not profile.struct_arrays:
        schema.ClearField("struct_array_fields")
    if not profile.functions:
        schema.ClearField("functions")
    if not profile.external_collections:
        schema.ClearField("external_source")
        schema.ClearField("external_spec")
    for field in schema.fields:
        if not profile.nullable:
            field.ClearField("nullable")
        if not profile.functions:
            field.ClearField("is_function_output")


def number_fields(schema: Any) -> None:
    """Give ids by position: plain fields (``$meta`` is the last of them), then each struct array with its members."""
    number = FIRST_ID
    for field in schema.fields:
        field.fieldID, number = number, number + 1
    for struct in schema.struct_array_fields:
        struct.fieldID, number = number, number + 1
        for field in struct.fields:
            field.fieldID, number = number, number + 1
    ids = {field.name: field.fieldID for field in all_fields(schema)}
    for position, function in enumerate(schema.functions):
        function.id = FIRST_ID + position
        function.ClearField("input_field_ids")
        function.ClearField("output_field_ids")
        function.input_field_ids.extend(ids[name] for name in function.input_field_names)
        function.output_field_ids.extend(ids[name] for name in function.output_field_names)


def highest_id(schema: Any) -> int:
    """Return the highest field id in use."""
    return max([int(field.fieldID) for field in all_fields(schema)] + [int(struct.fieldID) for struct in schema.struct_array_fields])


def all_fields(schema: Any) -> Iterator[Any]:
    """Yield plain fields, then the members of struct arrays: whatever has logs of its own."""
    yield from schema.fields
    for struct in schema.struct_array_fields:
        yield from struct.fields


def shown(schema: Any) -> Any:
    """Return the schema as DescribeCollection shows it: without the dynamic field (``internal/proxy/task.go``)."""
    copy = schema_pb2.CollectionSchema()
    copy.CopyFrom(schema)
    copy.ClearField("fields")
    copy.fields.extend(field for field in schema.fields if not field.is_dynamic)
    return copy


def primary_key(schema: Any) -> Any:
    """Return the primary key field."""
    return next(field for field in schema.fields if field.is_primary_key)


def partition_key(schema: Any) -> Any | None:
    """Return the partition key field, if there is one."""
    return next((field for field in schema.fields if field.is_partition_key), None)


def dim(field: Any) -> str:
    """Return the dimension of a vector field, an empty string of any other."""
    return next((str(pair.value) for pair in field.type_params if pair.key == "dim"), "")


def default_of(field: Any) -> Any:
    """Return the value a field has in rows that do not say one."""
    if not field.HasField("default_value"):
        return None
    kind = field.default_value.WhichOneof("data")
    value = getattr(field.default_value, kind) if kind else None
    return json.loads(value) if field.data_type == JSON and isinstance(value, bytes) else value


# ---- rows --------------------------------------------------------------------------------------------------------------------------


def to_values(schema: Any, row: Mapping[str, Any]) -> dict[int, Any]:
    """Return a row by field id, as it is inserted; raises Refusal when it does not fit."""
    rest = dict(row)
    values: dict[int, Any] = {}
    for struct in schema.struct_array_fields:
        elements = rest.pop(struct.name, [])
        for field in struct.fields:
            values[field.fieldID] = [element[field.name] for element in elements]
    for field in schema.fields:
        if field.is_dynamic or field.name not in rest:
            continue
        values[field.fieldID] = rest.pop(field.name)
    if rest and not schema.enable_dynamic_field:
        raise invalid(f"the field {sorted(rest)} is not in the schema and dynamic field is disabled")
    for field in schema.fields:
        if field.is_dynamic:
            values[field.fieldID] = rest
        elif values.get(field.fieldID) is None:
            values[field.fieldID] = default_of(field)
            if values[field.fieldID] is None and not (field.nullable or field.is_function_output):
                raise invalid(f"fieldSchema({field.name}) has no corresponding fieldData pass in")
    return values


def to_row(schema: Any, values: Mapping[int, Any]) -> dict[str, Any]:
    """Return a row as a query shows it; fields added after it was written have their default."""
    row: dict[str, Any] = {}
    for field in schema.fields:
        value = values[field.fieldID] if field.fieldID in values else default_of(field)
        if field.is_dynamic:
            row.update(value or {})
        else:
            row[field.name] = value
    for struct in schema.struct_array_fields:
        columns = [(field.name, values.get(field.fieldID) or []) for field in struct.fields]
        length = max((len(column) for _, column in columns), default=0)
        row[struct.name] = [{name: column[i] for name, column in columns} for i in range(length)]
    return row


def check_column(field: Any, column: Column) -> None:
    """Raise BadObject for a column that does not fit into a field (``internal/util/importutilv2/binlog``)."""
    if column.data_type != field.data_type:
        kind = schema_pb2.DataType.Name(column.data_type)
        raise BadObject(f"binlog is {kind} type, unequal to field {field.fieldID}")
    if column.dim != dim(field):
        raise BadObject(f"vector dimension {column.dim} is not equal to schema dimension {dim(field)}")
