# ruff: noqa: N802 (methods are named as the RPCs are)
"""RPCs about what has a name."""

from __future__ import annotations

from typing import Any

from pymilvus.grpc_gen import common_pb2, milvus_pb2

from . import schemas
from .refusals import Refusal, collection_not_found, invalid
from .rpcs import Base, named, pairs, rpc
from .state import Collection

_NOT_LOADED, _LOADED = 1, 3
_FINISHED = 3


class CatalogRpcs(Base):
    """Connection, databases, collections, partitions, indexes, aliases, loading."""

    @rpc(milvus_pb2.ConnectResponse)
    def Connect(self, request: Any, database: str) -> Any:
        self.model.database(database)
        info = common_pb2.ServerInfo(build_tags=self.model.profile.version, deploy_mode="STANDALONE")
        return milvus_pb2.ConnectResponse(server_info=info, identifier=self.model.next_id())

    @rpc(milvus_pb2.GetVersionResponse)
    def GetVersion(self, request: Any, database: str) -> Any:
        return milvus_pb2.GetVersionResponse(version=self.model.profile.version)

    # ---- databases ---------------------------------------------------------------------------------------------------------

    @rpc(milvus_pb2.AllocTimestampResponse)
    def AllocTimestamp(self, request: Any, database: str) -> Any:
        """The hybrid timestamp of this moment."""
        return milvus_pb2.AllocTimestampResponse(timestamp=self.model.next_ts())

    @rpc(milvus_pb2.ListDatabasesResponse)
    def ListDatabases(self, request: Any, database: str) -> Any:
        found = list(self.model.databases.values())
        return milvus_pb2.ListDatabasesResponse(
            db_names=[d.name for d in found], created_timestamp=[d.created for d in found], db_ids=[d.id for d in found]
        )

    @rpc(common_pb2.Status)
    def CreateDatabase(self, request: Any, database: str) -> None:
        self.model.create_database(request.db_name, pairs(request.properties))

    @rpc(common_pb2.Status)
    def DropDatabase(self, request: Any, database: str) -> None:
        self.model.drop_database(request.db_name)

    @rpc(milvus_pb2.DescribeDatabaseResponse, lambda profile: profile.describe_database)
    def DescribeDatabase(self, request: Any, database: str) -> Any:
        found = self.model.database(database)
        answer = milvus_pb2.DescribeDatabaseResponse(db_name=found.name, dbID=found.id, created_timestamp=found.created)
        for key, value in found.properties.items():
            answer.properties.add(key=key, value=value)
        return answer

    @rpc(common_pb2.Status, lambda profile: profile.describe_database)
    def AlterDatabase(self, request: Any, database: str) -> None:
        found = self.model.database(database)
        if request.properties and request.delete_keys:
            raise invalid("properties and deleteKeys cannot both be provided at the same time")
        found.properties.update(pairs(request.properties))
        for key in request.delete_keys:
            found.properties.pop(key, None)

    # ---- collections -------------------------------------------------------------------------------------------------------

    @rpc(milvus_pb2.ShowCollectionsResponse)
    def ShowCollections(self, request: Any, database: str) -> Any:
        found = list(self.model.database(database).collections.values())
        return milvus_pb2.ShowCollectionsResponse(
            collection_names=[c.name for c in found],
            collection_ids=[c.id for c in found],
            created_timestamps=[c.created for c in found],
            shards_num=[c.shards for c in found],
        )

    @rpc(milvus_pb2.BoolResponse)
    def HasCollection(self, request: Any, database: str) -> Any:
        found = self.model.database(database)
        return milvus_pb2.BoolResponse(value=found.aliases.get(request.collection_name, request.collection_name) in found.collections)

    @rpc(milvus_pb2.DescribeCollectionResponse)
    def DescribeCollection(self, request: Any, database: str) -> Any:
        c = self._described(request, database)
        answer = milvus_pb2.DescribeCollectionResponse(
            schema=schemas.shown(c.schema),
            collectionID=c.id,
            virtual_channel_names=c.vchannels,
            physical_channel_names=[channel.rpartition("_")[0] for channel in c.vchannels],
            created_timestamp=c.created,
            created_utc_timestamp=c.created >> 18,
            shards_num=c.shards,
            aliases=self.model.aliases_of(c),
            consistency_level=c.consistency_level,
            collection_name=c.name,
            db_name=c.database,
            num_partitions=len(c.partitions),
            db_id=self.model.database(c.database).id,
        )
        for key, value in c.properties.items():
            answer.properties.add(key=key, value=value)
            if self.model.profile.functions:  # from 2.5 (internal/rootcoord/root_coord.go, convertModelToDesc)
                answer.schema.properties.add(key=key, value=value)
        return answer

    def _described(self, request: Any, database: str) -> Collection:
        if not request.collection_name and request.collectionID:
            found = self.model.collection_by_id(request.collectionID)
            if found is None:
                raise collection_not_found(database, request.collectionID)
            return found
        try:
            return self.model.collection(named(request, database))
        except Refusal as refusal:
            if refusal.code != 100:
                raise
            # Other than all others, for the sake of old clients (internal/proxy/task.go, describeCollectionTask).
            text = f"can't find collection[database={database}][collection={request.collection_name}]"
            raise Refusal(100, text, old_code=1) from None

    @rpc(common_pb2.Status)
    def CreateCollection(self, request: Any, database: str) -> None:
        self.model.create_collection(
            named(request, database),
            request.schema,
            shards=request.shards_num,
            consistency_level=request.consistency_level,
            properties=pairs(request.properties),
            partitions=request.num_partitions,
        )

    @rpc(common_pb2.Status)
    def DropCollection(self, request: Any, database: str) -> None:
        self.model.drop_collection(named(request, database))

    @rpc(common_pb2.Status)
    def RenameCollection(self, request: Any, database: str) -> None:
        self.model.rename_collection((database, request.oldName), request.newName, request.newDBName)

    @rpc(common_pb2.Status)
    def AlterCollection(self, request: Any, database: str) -> None:
        self.model.alter_collection(named(request, database), pairs(request.properties), list(request.delete_keys))

    @rpc(common_pb2.Status, lambda profile: profile.privilege_groups)
    def AlterCollectionField(self, request: Any, database: str) -> None:
        self.model.alter_field(named(request, database), request.field_name, pairs(request.properties), list(request.delete_keys))

    @rpc(common_pb2.Status, lambda profile: profile.add_field)
    def AddCollectionField(self, request: Any, database: str) -> None:
        self.model.add_field(named(request, database), request.schema)

    # ---- partitions --------------------------------------------------------------------------------------------------------

    @rpc(milvus_pb2.ShowPartitionsResponse)
    def ShowPartitions(self, request: Any, database: str) -> Any:
        found = self.model.collection(named(request, database)).partitions
        return milvus_pb2.ShowPartitionsResponse(
            partition_names=[p.name for p in found], partitionIDs=[p.id for p in found], created_timestamps=[p.created for p in found]
        )

    @rpc(milvus_pb2.BoolResponse)
    def HasPartition(self, request: Any, database: str) -> Any:
        found = self.model.collection(named(request, database)).partition(request.partition_name)
        return milvus_pb2.BoolResponse(value=found is not None)

    @rpc(common_pb2.Status)
    def CreatePartition(self, request: Any, database: str) -> None:
        self.model.create_partition(named(request, database), request.partition_name)

    # ---- indexes -----------------------------------------------------------------------------------------------------------

    @rpc(common_pb2.Status)
    def CreateIndex(self, request: Any, database: str) -> None:
        self.model.create_index(named(request, database), request.field_name, request.index_name, pairs(request.extra_params))

    @rpc(milvus_pb2.DescribeIndexResponse)
    def DescribeIndex(self, request: Any, database: str) -> Any:
        answer = milvus_pb2.DescribeIndexResponse()
        name = named(request, database)
        for index in self.model.indexes(name, request.index_name):
            shown = answer.index_descriptions.add(
                index_name=index.name, indexID=index.id, field_name=index.field_name, state=_FINISHED, total_rows=self.model.row_count(name)
            )
            shown.pending_index_rows = sum(len(segment.rows) for segment in self.model.collection(name).segments if segment.unindexed)
            for key, value in index.params.items():
                shown.params.add(key=key, value=value)
        return answer

    @rpc(common_pb2.Status)
    def DropIndex(self, request: Any, database: str) -> None:
        self.model.drop_index(named(request, database), request.field_name, request.index_name)

    # ---- aliases -----------------------------------------------------------------------------------------------------------

    @rpc(common_pb2.Status)
    def CreateAlias(self, request: Any, database: str) -> None:
        self.model.create_alias(named(request, database), request.alias)

    @rpc(common_pb2.Status)
    def AlterAlias(self, request: Any, database: str) -> None:
        self.model.alter_alias(named(request, database), request.alias)

    @rpc(common_pb2.Status)
    def DropAlias(self, request: Any, database: str) -> None:
        self.model.drop_alias(database, request.alias)

    # ---- loading -----------------------------------------------------------------------------------------------------------

    @rpc(common_pb2.Status)
    def LoadCollection(self, request: Any, database: str) -> None:
        if request.refresh and not self.model.collection(named(request, database)).loaded:
            raise Refusal(101, f"collection not loaded[collection={self.model.collection(named(request, database)).id}]")
        self.model.load(named(request, database))

    @rpc(common_pb2.Status)
    def LoadPartitions(self, request: Any, database: str) -> None:
        self.model.load(named(request, database), list(request.partition_names))

    @rpc(common_pb2.Status)
    def ReleaseCollection(self, request: Any, database: str) -> None:
        self.model.release(named(request, database))

    @rpc(common_pb2.Status)
    def ReleasePartitions(self, request: Any, database: str) -> None:
        self.model.release(named(request, database), list(request.partition_names))

    @rpc(milvus_pb2.GetLoadStateResponse)
    def GetLoadState(self, request: Any, database: str) -> Any:
        c = self.model.collection(named(request, database))
        wanted = {self.model.partition(c, name).id for name in request.partition_names} or set(c.loaded)
        return milvus_pb2.GetLoadStateResponse(state=_LOADED if wanted and wanted <= c.loaded else _NOT_LOADED)

    @rpc(milvus_pb2.GetLoadingProgressResponse)
    def GetLoadingProgress(self, request: Any, database: str) -> Any:
        c = self.model.collection(named(request, database))
        if not c.loaded:
            raise Refusal(101, f"collection not loaded[collection={c.id}]")
        return milvus_pb2.GetLoadingProgressResponse(progress=100, refresh_progress=100)
