"""Target collections of a restore: whether they may be there, whether they fit, and making them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import meta, schema
from .errors import ConfigError, SchemaMismatch, ServerError, TargetExists
from .names import CollectionName
from .report import Reporter
from .restore_plan import APPEND, FAIL, RestoreOptions
from .restore_state import Target
from .server import NOT_FOUND_CODES, MilvusServer


def existing(server: MilvusServer, names: Iterable[CollectionName]) -> set[CollectionName]:
    """Return all collections of the databases that ``names`` mention, as far as these exist."""
    databases = {name.database for name in names} & set(server.databases())
    return {CollectionName(database, collection) for database in databases for collection in server.collections(database)}


def check_targets(
    server: MilvusServer,
    names: Mapping[CollectionName, CollectionName],
    collections: Mapping[CollectionName, meta.Collection],
    there: set[CollectionName],
    if_exists: str,
) -> None:
    """Raise TargetExists, or when appending SchemaMismatch, for targets that are already there, if only as aliases.

    :param names: target by source
    :param there: what exists, as :func:`existing` returned it
    """
    taken = {source: name for source, name in names.items() if name in there}
    if taken and if_exists == FAIL:
        raise TargetExists(
            f"{', '.join(map(str, list(taken.values())[:5]))} already exist{'s' if len(taken) == 1 else ''} in Milvus at {server.address}; "
            "restore under another name (suffix, rename), or say if_exists='replace' or 'append'"
        )
    for name in sorted(set(names.values()) - there):
        if owner := _alias_of(server, name):
            raise TargetExists(f"{name} is an alias of {owner}; restore under another name (suffix, rename), or drop that alias first")
    if if_exists == APPEND:
        for source, name in taken.items():
            check_schema(server, collections[source], name)


def _alias_of(server: MilvusServer, name: CollectionName) -> str:
    """Return which collection a name that no collection has stands for, or an empty string."""
    try:
        return str(server.describe(name).schema.name)
    except ServerError as error:
        if error.code in NOT_FOUND_CODES or "find collection" in str(error).lower():
            return ""
        raise


def check_schema(server: MilvusServer, collection: meta.Collection, name: CollectionName) -> None:
    """Raise SchemaMismatch unless the binlogs of ``collection`` fit the collection ``name`` in Milvus."""
    expected = schema.field_shapes(collection.schema)
    found = schema.field_shapes(schema.from_proto(server.describe(name).schema))
    if expected != found:
        different = sorted(set(expected.items()) ^ set(found.items()), key=str)
        raise SchemaMismatch(
            f"{name} in Milvus has other fields than {collection.name} in the backup: {different[:4]}; nothing was imported into it"
        )


def check_aliases(server: MilvusServer, wanted: Mapping[tuple[str, str], CollectionName], there: set[CollectionName]) -> None:
    """Raise ConfigError for an alias that points at another collection, or that is a collection's name."""
    for database, alias in wanted:
        if (database, alias) in there:
            raise ConfigError(f"alias {alias!r} cannot be created: a collection has this name in database {database!r}")
    for name in sorted(there):
        for alias in server.describe(name).aliases:
            if wanted.get((name.database, alias), name) != name:
                raise ConfigError(f"alias {alias!r} already points at {name}; restore without aliases, or drop that alias first")


def create(
    server: MilvusServer,
    target: Target,
    collection: meta.Collection,
    options: RestoreOptions,
    reporter: Reporter,
    *,
    exists: bool,
) -> None:
    """Make the target collection with its partitions and indexes, or prepare an existing one for appending."""
    if exists and options.if_exists == APPEND:
        _create_partitions(server, target, collection)
        target.refresh = server.load_state(target.name) != "NotLoad"
        target.load = []
        reporter.line(f"{collection.name}: appending to {target.name}")
        return
    if exists:
        if options.if_exists == FAIL:
            raise TargetExists(f"{target.name} was created by somebody else while this restore was being prepared")
        server.drop_collection(target.name)
        reporter.line(f"dropped {target.name}")
    shards = collection.shards or 1
    server.create_collection(
        target.name,
        collection.schema,
        shards=min(shards, options.max_shards or shards),
        consistency_level=collection.consistency_level,
        properties=[pair for pair in collection.properties if pair[0] != schema.MAX_FIELD_ID],
        partitions=len(collection.partitions) if schema.has_partition_key(collection.schema) else 0,
    )
    # Only now: what somebody else created in this moment must not be dropped if this restore fails.
    target.created = True
    check_schema(server, collection, target.name)
    _create_partitions(server, target, collection)
    if options.restore_indexes:
        for index in collection.indexes:
            server.create_index(target.name, index)
    elif target.load != []:
        target.load = []
        reporter.line(f"{target.name}: not loaded, because its indexes are not restored")
    reporter.line(f"created {target.name} from {collection.name}")


def _create_partitions(server: MilvusServer, target: Target, collection: meta.Collection) -> None:
    there = {name for _, name in server.partitions(target.name)}
    missing = [partition.name for partition in collection.partitions if partition.name not in there]
    if missing and schema.has_partition_key(collection.schema):
        raise SchemaMismatch(
            f"{target.name} spreads rows over {len(there)} partitions by key, {collection.name} of the backup over "
            f"{len(collection.partitions)}; rows imported into other partitions would be invisible"
        )
    for partition in missing:
        server.create_partition(target.name, partition)
