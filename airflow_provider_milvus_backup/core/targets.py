"""Target collections of a restore: whether they may be there, whether they fit, and making them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import meta, schema
from .creating import check_schema, create
from .errors import ConfigError, SchemaMismatch, ServerError, TargetExists
from .names import CollectionName
from .report import Reporter
from .restore_plan import APPEND, FAIL, RestoreOptions
from .restore_state import Target
from .server import MilvusServer


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
            _check_partition_key(server, name, collections[source])


def _alias_of(server: MilvusServer, name: CollectionName) -> str:
    """Return which collection a name that no collection has stands for, or an empty string."""
    try:
        return str(server.describe(name).schema.name)
    except ServerError as error:
        if server.not_found(error):
            return ""
        raise


def check_aliases(server: MilvusServer, wanted: Mapping[tuple[str, str], CollectionName], there: set[CollectionName]) -> None:
    """Raise ConfigError for an alias that points at another collection, or that is a collection's name."""
    for database, alias in wanted:
        if (database, alias) in there:
            raise ConfigError(f"alias {alias!r} cannot be created: a collection has this name in database {database!r}")
    for name in sorted(there):
        for alias in server.describe(name).aliases:
            if wanted.get((name.database, alias), name) != name:
                raise ConfigError(f"alias {alias!r} already points at {name}; restore without aliases, or drop that alias first")


def make(
    server: MilvusServer, target: Target, collection: meta.Collection, options: RestoreOptions, reporter: Reporter, raw: bytes | None = None
) -> None:
    """Make the collection that is built, with its partitions and indexes, or prepare an existing one for appending.

    Nothing is imported into it yet. What an earlier try of this restore left half-made under its name is dropped first.

    :param raw: the raw schema that was kept beside the backup, None where there is none
    """
    if target.append:
        _create_partitions(server, target, collection)
        target.refresh = server.load_state(target.name) != "NotLoad"
        target.load = []
        reporter.line(f"{collection.name}: appending to {target.name}")
    else:
        if server.collection_id(target.building) is not None:
            server.drop_collection(target.building)
        shards = collection.shards or 1
        create(server, target.building, collection, shards=min(shards, options.max_shards or shards), raw=raw)
        _create_partitions(server, target, collection)
        if options.restore_indexes:
            for index in collection.indexes:
                server.create_index(target.building, index)
        elif target.load != []:
            target.load = []
            reporter.line(f"{target.name}: not loaded, because its indexes are not restored")
        reporter.line(f"created {target.name} from {collection.name}, as {target.building.collection} until it is complete")
    target.collection_id = server.collection_id(target.building) or 0
    target.ready = True


def _create_partitions(server: MilvusServer, target: Target, collection: meta.Collection) -> None:
    if schema.has_partition_key(collection.schema):
        _check_partition_key(server, target.building, collection)
        return
    there = {name for _, name in server.partitions(target.building)}
    for partition in collection.partitions:
        if partition.name not in there:
            server.create_partition(target.building, partition.name)


def _check_partition_key(server: MilvusServer, name: CollectionName, collection: meta.Collection) -> None:
    """Raise SchemaMismatch where keys choose among other partitions than in the backup: their number decides which one a key chooses."""
    if not schema.has_partition_key(collection.schema):
        return
    there, wanted = {partition for _, partition in server.partitions(name)}, {partition.name for partition in collection.partitions}
    if there != wanted:
        raise SchemaMismatch(
            f"{name} spreads rows over {len(there)} partitions by key, {collection.name} of the backup over {len(wanted)}; rows imported "
            "into other partitions would be invisible. Restore into a new collection"
        )


def give_name(server: MilvusServer, target: Target, old: CollectionName, *, replace: bool, reporter: Reporter) -> None:
    """Give the complete collection its name; what has had the name is dropped afterwards, and its aliases move on.

    Each step looks at what is there, so that a further try goes on wherever one before it stopped.

    :param old: the name under which the replaced collection waits to be dropped
    :raises TargetExists: somebody else has taken the name, and ``replace`` is False
    """
    there = server.collection_id(target.name)
    if there != target.collection_id:
        if there is not None and not replace:
            raise TargetExists(f"{target.name} was created by somebody else while it was being restored; restore under another name")
        if there is not None:
            server.rename_collection(target.name, old.collection)
        try:
            server.rename_collection(target.building, target.name.collection)
        except ServerError as error:
            if "duplicated" in str(error):
                raise TargetExists(f"{target.name} became a collection or an alias of somebody else while it was being restored") from error
            raise
    if server.collection_id(old) is not None:
        for alias in server.describe(old).aliases:
            server.alter_alias(target.name, alias)
        server.drop_collection(old)
        reporter.line(f"replaced {target.name}; the collection that had the name is dropped")
