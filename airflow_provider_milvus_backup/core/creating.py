"""Creating a target collection so that the binlogs of its backup fit: fields, ids, properties; and comparing what came of it."""

from __future__ import annotations

from typing import Any

from . import features, meta, schema
from .capabilities import Capability
from .errors import SchemaMismatch
from .field_order import Creation, creation
from .names import CollectionName
from .rpc import messages
from .server import MilvusServer

#: With functions, Milvus 2.6.8 and newer call the embedding service when the collection is created, unless this is "true"
#: (``internal/proxy/task.go``); data that is imported brings what functions made of it.
NO_RUNTIME_CHECK = "disable_func_runtime_check"


def check_creatable(server: MilvusServer, collection: meta.Collection, raw: bytes | None = None) -> Creation:
    """Return how the collection can be made in this Milvus; changes nothing.

    :param raw: the raw schema that was kept beside the backup, None where there is none
    :raises UnsupportedServer: this Milvus lacks what the schema needs
    :raises SchemaMismatch: the ids of its fields cannot be made again
    """
    steps = creation(collection, raw, collection.name.collection)
    needed = features.features(collection.schema)
    for one in steps.later:
        capability = Capability.ADD_STRUCT if hasattr(one, "fields") else Capability.ADD_FIELD
        needed.append((f"field {one.name!r}, which was added later,", capability))
    features.check(collection.name, needed, server.version, server.can)
    return steps


def create(server: MilvusServer, name: CollectionName, collection: meta.Collection, *, shards: int, raw: bytes | None = None) -> None:
    """Create a collection, empty, with the field ids of the backup.

    :param name: what it is called; the database exists, the collection does not
    :param shards: number of shards
    :param raw: the raw schema that was kept beside the backup, None where there is none
    :raises UnsupportedServer, SchemaMismatch: see :func:`check_creatable`, before anything is created; and SchemaMismatch afterwards, when
        Milvus made something else than it was asked for
    """
    steps = check_creatable(server, collection, raw)
    steps.first.name = name.collection
    properties = properties_to_create(collection)
    unchecked = bool(steps.first.functions) and server.can(Capability.FUNC_RUNTIME_CHECK)
    # By those that are sent, for Milvus takes no number of partitions where it adds the key field itself, that of a namespace (2.6).
    keyed = any(field.is_partition_key for field in steps.first.fields)
    request = messages().CreateCollectionRequest(
        collection_name=name.collection,
        schema=steps.first.SerializeToString(),
        shards_num=shards,
        consistency_level=collection.consistency_level,
        num_partitions=len(collection.partitions) if keyed else 0,
    )
    _add_pairs(request.properties, {**properties, **({NO_RUNTIME_CHECK: "true"} if unchecked else {})})

    def created() -> bool:
        return server.collection_id(name) is not None

    server._call("CreateCollection", request, f"create collection {name}", name.database, done=created)
    for one in steps.later:
        _add_field(server, name, one)
    if unchecked and properties.get(NO_RUNTIME_CHECK) != "true":
        alter = messages().AlterCollectionRequest(collection_name=name.collection)
        _add_pairs(alter.properties, {NO_RUNTIME_CHECK: "false"})
        server._call("AlterCollection", alter, f"switch the check of functions of {name} on again", name.database)
    check_schema(server, collection, name)


def properties_to_create(collection: meta.Collection) -> dict[str, str]:
    """Return the properties to create a collection with: those of its schema and its own, without what Milvus keeps for itself.

    Backups of some releases have them only in one of the two places.
    """
    pairs = [(pair["key"], pair["value"]) for pair in collection.schema.get("properties", [])]
    return {key: value for key, value in (*pairs, *collection.properties) if key not in schema.SERVER_PROPERTIES}


def check_schema(server: MilvusServer, collection: meta.Collection, name: CollectionName) -> None:
    """Raise SchemaMismatch unless the binlogs of ``collection`` fit the collection ``name`` in Milvus."""
    if different := schema.differences(collection.schema, schema.from_proto(server.describe(name).schema)):
        more = f", and {len(different) - 4} more" if len(different) > 4 else ""
        raise SchemaMismatch(
            f"{name} in Milvus has other fields than {collection.name} in the backup: {', '.join(different[:4])}{more}; "
            "nothing was imported into it"
        )


def _add_field(server: MilvusServer, name: CollectionName, one: Any) -> None:
    """Add a field, or an array of structs, to a collection."""

    def done() -> bool:
        described = server.describe(name).schema
        return any(there.name == one.name for there in (*described.fields, *described.struct_array_fields))

    if hasattr(one, "fields"):
        request = messages().AddCollectionStructFieldRequest(collection_name=name.collection, struct_array_field_schema=one)
        rpc = "AddCollectionStructField"
    else:
        request = messages().AddCollectionFieldRequest(collection_name=name.collection, schema=one.SerializeToString())
        rpc = "AddCollectionField"
    server._call(rpc, request, f"add field {one.name!r} to {name}", name.database, done=done)


def _add_pairs(target: Any, pairs: dict[str, str]) -> None:
    for key, value in pairs.items():
        target.add(key=key, value=value)
