"""Databases, collections, partitions, indexes, aliases and what is loaded: RootCoord, IndexCoord and QueryCoord.

Texts: ``internal/rootcoord/*_task.go``, ``meta_table.go`` and ``internal/proxy/task*.go`` of milvus-io/milvus.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pymilvus.grpc_gen import schema_pb2

from . import schemas
from .refusals import (
    Refusal,
    alias_not_found,
    collection_not_found,
    database_not_found,
    index_not_found,
    invalid,
    partition_not_found,
    unexpected,
)
from .state import DEFAULT_DATABASE, DEFAULT_PARTITION, PHYSICAL_CHANNELS, Collection, Database, Index, Name, Partition, State

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARTITION_KEY_PARTITIONS = 16


class Catalog(State):
    """Everything that has a name."""

    # ---- databases ---------------------------------------------------------------------------------------------------------

    def database(self, name: str) -> Database:
        """Return a database; an empty name means ``default``."""
        try:
            return self.databases[name or DEFAULT_DATABASE]
        except KeyError:
            raise database_not_found(name) from None

    def create_database(self, name: str, properties: Mapping[str, str] | None = None) -> None:
        """Create a database."""
        with self.lock:
            if name in self.databases:
                raise unexpected(f"database already exist: {name}")
            self._check_name(name, "database")
            self.databases[name] = Database(self.next_id(), name, self.next_ts(), dict(properties or {}))

    def drop_database(self, name: str) -> None:
        """Drop a database that is empty; one that is not there is ignored."""
        with self.lock:
            if name == DEFAULT_DATABASE:
                raise unexpected("can not drop default database")
            if name not in self.databases:
                return
            if self.databases[name].collections:
                raise unexpected(f"database:{name} not empty, must drop all collections before drop database")
            del self.databases[name]

    # ---- collections -------------------------------------------------------------------------------------------------------

    def collection(self, name: Name) -> Collection:
        """Return a collection by name or alias."""
        database = self.database(name[0])
        found = database.collections.get(database.aliases.get(name[1], name[1]))
        if found is None:
            raise collection_not_found(database.name, name[1])
        return found

    def collection_by_id(self, number: int) -> Collection | None:
        """Return a collection by id."""
        found = (c for database in self.databases.values() for c in database.collections.values() if c.id == number)
        return next(found, None)

    def aliases_of(self, collection: Collection) -> list[str]:
        """Return the aliases of a collection, sorted."""
        return sorted(alias for alias, name in self.database(collection.database).aliases.items() if name == collection.name)

    def create_collection(
        self,
        name: Name,
        schema: Any,
        *,
        shards: int = 1,
        consistency_level: int = 2,
        properties: Mapping[str, str] | None = None,
        partitions: int = 0,
    ) -> Collection:
        """Create a collection.

        :param schema: a ``schemapb.CollectionSchema``, or its bytes
        :param partitions: how many partitions a collection with a partition key gets, 0 = 16
        """
        content = schema if isinstance(schema, bytes) else schema.SerializeToString()
        with self.lock:
            database = self.database(name[0])
            self._check_name(name[1], "collection")
            if shards > PHYSICAL_CHANNELS:
                raise invalid(f"maximum shards's number should be limited to {PHYSICAL_CHANNELS}")
            made = schemas.accepted(content, name[1], self.profile)
            keyed = schemas.partition_key(made) is not None
            if partitions and not keyed:
                raise unexpected("num_partitions should only be specified with partition key field enabled")
            given = dict(properties or {})
            if name[1] in database.aliases:
                raise unexpected(f"cannot create collection [{name[1]}]: it is an alias of another collection")
            if (there := database.collections.get(name[1])) is not None:
                if there.schema == made and there.shards == (shards or 1):
                    return there
                raise unexpected(f"create duplicate collection with different parameters, collection: {name[1]}")
            number = self.next_id()
            channels = [f"by-dev-rootcoord-dml_{(number + shard) % PHYSICAL_CHANNELS}_{number}v{shard}" for shard in range(max(1, shards))]
            collection = Collection(
                number, database.name, name[1], made, max(1, shards), consistency_level, given, self.next_ts(), channels
            )
            names = [f"{DEFAULT_PARTITION}_{i}" for i in range(partitions or _PARTITION_KEY_PARTITIONS)] if keyed else [DEFAULT_PARTITION]
            collection.partitions = [Partition(self.next_id(), partition, collection.created) for partition in names]
            collection.checkpoint = collection.created
            database.collections[name[1]] = collection
            return collection

    def _check_name(self, name: str, kind: str) -> None:
        if not name:
            raise invalid(f"{kind} name should not be empty")
        if len(name) > 255 or not _NAME.fullmatch(name):
            raise invalid(
                f"Invalid {kind} name: {name}. the first character of a {kind} name must be an underscore or letter"
                if not re.match(r"[A-Za-z_]", name)
                else f"Invalid {kind} name: {name}. {kind.capitalize()} name can only contain numbers, letters and underscores"
            )

    def drop_collection(self, name: Name) -> None:
        """Drop a collection; one that is not there is ignored, its files stay."""
        with self.lock:
            database = self.database(name[0])
            if name[1] in database.aliases:
                raise unexpected(f"cannot drop the collection via alias = {name[1]}")
            if name[1] not in database.collections:
                return
            if aliases := self.aliases_of(database.collections[name[1]]):
                raise unexpected(
                    f"unable to drop the collection [{name[1]}] because it has associated aliases [{' '.join(aliases)}], "
                    "please remove all aliases before dropping the collection"
                )
            del database.collections[name[1]]

    def rename_collection(self, name: Name, new: str, new_database: str = "") -> None:
        """Rename a collection; its id and its data stay."""
        with self.lock:
            source, target = self.database(name[0]), self.database(new_database or name[0])
            if name[1] in source.aliases:
                raise unexpected(f"unsupported use an alias to rename collection, alias:{name[1]}")
            collection = self.collection(name)
            if new in target.collections or new in target.aliases:
                raise unexpected(f"duplicated new collection name {new} in database {target.name} with other collection name or alias")
            self._check_name(new, "collection")
            if target is not source and self.aliases_of(collection):
                raise unexpected("fail to rename db name, must drop all aliases of this collection before rename")
            for alias in self.aliases_of(collection):
                source.aliases[alias] = new
            del source.collections[name[1]]
            collection.name, collection.database, collection.schema.name = new, target.name, new
            target.collections[new] = collection

    def add_field(self, name: Name, content: bytes) -> None:
        """Append a field, with the id after the highest one (``internal/rootcoord/ddl_callbacks_alter_collection_add_field.go``)."""
        field = schema_pb2.FieldSchema()
        field.ParseFromString(content)
        with self.lock:
            collection = self.collection(name)
            if not field.nullable:
                raise invalid(f"added field must be nullable, please check it, field name = {field.name}")
            if field.is_primary_key or field.is_partition_key or field.is_dynamic or field.autoID:
                raise invalid(f"not support to add a key, auto id or dynamic field, field name = {field.name}")
            if field.data_type in schemas.VECTORS and not self.profile.add_vector:
                raise invalid(f"not support to add vector field, field name = {field.name}")
            if any(there.name == field.name for there in [*collection.schema.fields, *collection.schema.struct_array_fields]):
                raise invalid(f"duplicated field name {field.name}")
            kept = int(collection.properties.get(schemas.MAX_FIELD_ID, 0)) if self.profile.max_field_id else 0
            field.fieldID = max(schemas.highest_id(collection.schema), kept) + 1
            collection.schema.fields.append(field)
            if self.profile.max_field_id:
                collection.properties[schemas.MAX_FIELD_ID] = str(field.fieldID)

    def alter_collection(self, name: Name, properties: Mapping[str, str], delete_keys: Sequence[str] = ()) -> None:
        """Set and remove properties; the description is one of them for this RPC, as in Milvus."""
        with self.lock:
            if properties and delete_keys:
                raise invalid("properties and deleteKeys cannot both be provided at the same time")
            collection = self.collection(name)
            changed = dict(properties)
            if "collection.description" in changed:
                collection.schema.description = changed.pop("collection.description")
            collection.properties.update(changed)
            for key in delete_keys:
                collection.properties.pop(key, None)

    def alter_field(self, name: Name, field_name: str, properties: Mapping[str, str], delete_keys: Sequence[str] = ()) -> None:
        """Set and remove the parameters of one field."""
        with self.lock:
            fields = [field for field in self.collection(name).schema.fields if field.name == field_name]
            if not fields:
                raise invalid(f"field {field_name} does not exist in collection")
            params = {pair.key: pair.value for pair in fields[0].type_params if pair.key not in delete_keys} | dict(properties)
            fields[0].ClearField("type_params")
            for key, value in params.items():
                fields[0].type_params.add(key=key, value=value)

    # ---- partitions --------------------------------------------------------------------------------------------------------

    def partition(self, collection: Collection, name: str) -> Partition:
        """Return a partition by name."""
        found = collection.partition(name)
        if found is None:
            raise partition_not_found(name)
        return found

    def create_partition(self, name: Name, partition: str) -> None:
        """Create a partition; one of this name is enough."""
        with self.lock:
            collection = self.collection(name)
            if schemas.partition_key(collection.schema) is not None:
                raise unexpected("disable create partition if partition key mode is used")
            self._check_name(partition, "partition")
            if collection.partition(partition) is None:
                collection.partitions.append(Partition(self.next_id(), partition, self.next_ts()))

    # ---- indexes -----------------------------------------------------------------------------------------------------------

    def create_index(self, name: Name, field_name: str, index_name: str, params: Mapping[str, str]) -> None:
        """Create an index; the same one again is ignored."""
        with self.lock:
            collection = self.collection(name)
            members = [f"{s.name}[{f.name}]" for s in collection.schema.struct_array_fields for f in s.fields]
            if field_name not in [*(field.name for field in collection.schema.fields), *members]:
                raise unexpected(f"cannot create index on non-exist field: {field_name}")
            if index_name and not _NAME.fullmatch(index_name):
                why = "can only contain numbers, letters, and underscores" if re.match(r"[A-Za-z_]", index_name) else "starts wrong"
                raise invalid(f"Invalid index name: {index_name}. Index name {why}.")
            # The path that such a name ends with is one that CreateIndex itself refuses (internal/datacoord/index_service.go).
            index_name = index_name or "/".join([field_name, *re.findall(r'\["?(.+?)"?\]', params.get("json_path", ""))])
            for index in collection.indexes:
                if index.field_name == field_name and index.params.get("json_path") == params.get("json_path"):
                    if (index.name, index.params) == (index_name, dict(params)):
                        return
                    raise unexpected("at most one distinct index is allowed per field")
                if index.name == index_name:
                    raise unexpected(f"invalid parameter: index name {index_name} is used by another field")
            collection.indexes.append(Index(self.next_id(), index_name, field_name, dict(params)))

    def indexes(self, name: Name, index_name: str = "") -> list[Index]:
        """Return the indexes of a collection; none at all is an error."""
        collection = self.collection(name)
        found = [index for index in collection.indexes if not index_name or index.name == index_name]
        if not found:
            raise index_not_found(collection.name)
        return found

    def drop_index(self, name: Name, field_name: str, index_name: str) -> None:
        """Drop an index; one that is not there is ignored."""
        with self.lock:
            collection = self.collection(name)
            gone = [index for index in collection.indexes if (index_name or field_name) in (index.name, index.field_name)]
            if collection.loaded and gone:
                raise unexpected("vector index cannot be dropped on loaded collection: " + str(collection.id))
            collection.indexes = [index for index in collection.indexes if index not in gone]

    # ---- aliases -----------------------------------------------------------------------------------------------------------

    def create_alias(self, name: Name, alias: str) -> None:
        """Create an alias."""
        with self.lock:
            database = self.database(name[0])
            self._check_name(alias, "collection alias")
            target = self.collection(name).name
            if alias in database.collections:
                raise Refusal(1601, f"alias and collection name conflict[database={database.name}][alias={alias}]")
            if database.aliases.get(alias, target) != target:
                raise Refusal(1602, f"{alias} is alias to another collection: {database.aliases[alias]}: alias already exist")
            database.aliases[alias] = target

    def alter_alias(self, name: Name, alias: str) -> None:
        """Point an alias elsewhere."""
        with self.lock:
            database = self.database(name[0])
            target = self.collection(name).name
            if alias not in database.aliases:
                raise alias_not_found(database.name, alias)
            database.aliases[alias] = target

    def drop_alias(self, database_name: str, alias: str) -> None:
        """Drop an alias; one that is not there is ignored."""
        with self.lock:
            self.database(database_name).aliases.pop(alias, None)

    # ---- loading -----------------------------------------------------------------------------------------------------------

    def load(self, name: Name, partitions: Sequence[str] = ()) -> None:
        """Load a collection or some of its partitions; every vector field must have an index (``internal/proxy/task.go``)."""
        with self.lock:
            collection = self.collection(name)
            if not collection.indexes:
                raise index_not_found(collection.name)
            indexed = {index.field_name for index in collection.indexes}
            missing = [f.name for f in collection.schema.fields if f.data_type in schemas.VECTORS and f.name not in indexed]
            if missing:
                raise unexpected(f"there is no vector index on field: [{' '.join(missing)}], please create index firstly")
            chosen = [self.partition(collection, partition) for partition in partitions] or collection.partitions
            collection.loaded |= {partition.id for partition in chosen}

    def release(self, name: Name, partitions: Sequence[str] = ()) -> None:
        """Release a collection or some of its partitions."""
        with self.lock:
            collection = self.collection(name)
            chosen = [self.partition(collection, partition) for partition in partitions] or collection.partitions
            collection.loaded -= {partition.id for partition in chosen}
