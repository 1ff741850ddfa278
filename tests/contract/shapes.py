"""Schemas for models, without a client."""

from __future__ import annotations

from typing import Any

from pymilvus.grpc_gen import schema_pb2

INT64, VARCHAR, JSON, FLOAT_VECTOR, SPARSE, ARRAY_OF_VECTOR = 5, 21, 23, 101, 104, 106


def schema(name: str, *fields: Any, dynamic: bool = False) -> Any:
    """Return a schema; without fields it has an integer key ``id`` and a vector ``v`` of two dimensions."""
    made = schema_pb2.CollectionSchema(name=name, enable_dynamic_field=dynamic)
    made.fields.extend(fields or (field("id", INT64, key=True), field("v", FLOAT_VECTOR, dim="2")))
    return made


def field(name: str, kind: int, *, key: bool = False, default: int | None = None, **flags: Any) -> Any:
    """Return a field; ``dim`` and ``max_length`` are parameters, everything else is an attribute of the protobuf."""
    params = {param: str(flags.pop(param)) for param in ("dim", "max_length") if param in flags}
    made = schema_pb2.FieldSchema(name=name, data_type=kind, is_primary_key=key, **flags)
    for param, value in params.items():
        made.type_params.add(key=param, value=value)
    if default is not None:
        made.default_value.long_data = default
    return made


def row(number: int, **more: Any) -> dict[str, Any]:
    """Return a row of :func:`schema` without fields."""
    return {"id": number, "v": [float(number), 0.5], **more}
