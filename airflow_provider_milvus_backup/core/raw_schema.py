"""Schemas exactly as Milvus described them, kept beside the backup in ``provider/schemas.json``. Pure functions.

The official format carries what :mod:`.schema` has in its tables. What it cannot carry is in :data:`ONLY_RAW`; it comes back from this
file where the file is there and fits. A backup of the official tool has none, and no restore by the official tool needs it.

======================  ==============================================================================================================
``version``             1
``backup_id``           the id of the backup it belongs to
``schemas``             by collection id: base64 of the ``schemapb.CollectionSchema`` that DescribeCollection answered, with the fields
                        that are newer than this program
======================  ==============================================================================================================
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import schema
from .errors import BackupDamaged
from .jsonreader import Node

if TYPE_CHECKING:
    from pymilvus.grpc_gen import schema_pb2

SCHEMAS_FILE = "schemas.json"
SCHEMAS_VERSION = 1

#: What the official format cannot carry, by message of ``schemapb``; beside these all fields that a newer Milvus adds.
ONLY_RAW: dict[str, frozenset[str]] = {
    "CollectionSchema": frozenset(
        {
            "dbName",
            "version",
            "external_source",
            "external_spec",
            "do_physical_backfill",
            "file_resource_ids",
            "enable_namespace",
        }
    ),
    "FieldSchema": frozenset({"state", "is_clustering_key", "external_field"}),
    "FunctionSchema": frozenset(),
    "StructArrayFieldSchema": frozenset({"type_params", "nullable"}),
}

#: What belongs to the described collection alone: where it was, how often it was altered, ids of files that Milvus finds out anew.
_OF_THE_SOURCE = ("dbName", "version", "file_resource_ids")

_ID = re.compile(r"[1-9][0-9]{0,18}")


def to_file(backup_id: str, schemas: Mapping[int, bytes]) -> bytes:
    """Return the content of ``provider/schemas.json``.

    :param schemas: the serialized schema of DescribeCollection's answer, by collection id
    """
    encoded = {str(collection_id): base64.b64encode(raw).decode() for collection_id, raw in schemas.items()}
    return json.dumps({"version": SCHEMAS_VERSION, "backup_id": backup_id, "schemas": encoded}, separators=(",", ":")).encode()


def from_file(content: bytes, backup_id: str) -> dict[int, bytes]:
    """Return the serialized schemas by collection id.

    :raises BackupDamaged: this is not what :func:`to_file` wrote for this backup; the meta files are then all there is to go by
    """
    root = Node.parse(content, SCHEMAS_FILE)
    if root.integer("version") != SCHEMAS_VERSION:
        raise root.wrong("version", str(SCHEMAS_VERSION))
    if root.string("backup_id") != backup_id:
        raise BackupDamaged(f"{SCHEMAS_FILE} belongs to backup id {root.string('backup_id')!r}, not to {backup_id!r}")
    schemas = {}
    for collection_id, encoded in root.strings("schemas").items():
        if not _ID.fullmatch(collection_id) or not schema.BASE64.fullmatch(encoded):
            raise BackupDamaged(f"{SCHEMAS_FILE}.schemas[{collection_id[:40]!r}] is not a schema by its collection's id")
        schemas[int(collection_id)] = base64.b64decode(encoded)
        _parsed(schemas[int(collection_id)], collection_id)
    return schemas


def schema_to_create(document: dict[str, Any], raw: bytes | None, name: str) -> schema_pb2.CollectionSchema:
    """Return the whole schema to create a collection ``name`` with, in id order, without what Milvus adds itself.

    It is made from the raw schema where there is one that :func:`agrees` with the meta JSON, else from the meta JSON.

    :param document: the meta JSON, which decides: data is read by it
    :param raw: what :func:`from_file` returned for this collection
    """
    if raw is None or not agrees(document, raw):
        return schema.to_proto(document, name)
    found = _parsed(raw, name)
    found.name = name
    for key in _OF_THE_SOURCE:
        if key in found.DESCRIPTOR.fields_by_name:  # older releases of pymilvus know fewer
            found.ClearField(key)
    for _, fields in schema.field_lists(found):
        for field in fields:
            field.ClearField("state")
    return schema.in_id_order(found)


def agrees(document: dict[str, Any], raw: bytes) -> bool:
    """Return whether a raw schema has exactly the field shapes of the meta JSON."""
    return schema.field_shapes(schema.from_proto(_parsed(raw, "schema"))) == schema.field_shapes(document)


def is_external(described: Any) -> bool:
    """Return whether DescribeCollectionResponse is of an external collection (3.0), whose rows Milvus does not hold.

    It has a source, or a field that stands for one of a source that is still to be named (``pkg/util/typeutil``).
    """
    found = described.schema
    if getattr(found, "external_source", "") or getattr(found, "external_spec", ""):
        return True
    return any(getattr(field, "external_field", "") for _, fields in schema.field_lists(found) for field in fields)


def _parsed(raw: bytes, what: str) -> schema_pb2.CollectionSchema:
    from google.protobuf.message import DecodeError
    from pymilvus.grpc_gen import schema_pb2

    try:
        return schema_pb2.CollectionSchema.FromString(raw)
    except DecodeError:
        raise BackupDamaged(f"{SCHEMAS_FILE}: what it holds of {what} is not a schema") from None
