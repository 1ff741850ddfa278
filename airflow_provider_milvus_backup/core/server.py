"""MilvusServer: the requests a backup and a restore make, on the raw gRPC stubs.

pymilvus's high-level client drops fields and options silently, so its generated stubs are used directly, on a channel of our own.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .capabilities import SUPPORTED, Capabilities, Capability, is_release
from .errors import ServerError, UnsupportedServer
from .meta import Index
from .names import DEFAULT_DATABASE, CollectionName
from .patience import Backoff
from .rest import MilvusRest
from .rpc import MilvusRpc, common, messages

# Error codes of milvus-io/milvus `pkg/util/merr`, and of the enum before 2.3.
NOT_FOUND_CODES = {4, 100, 25, 700, 800}
#: States of segments whose files are all there. A segment is flushing when its last file has been reported, and a compacted one too
#: before 2.4, until a loop of DataCoord gets to it; GetFlushState does not wait for that (``internal/datacoord/meta.go``, isFlushState).
DURABLE = ("Flushing", "Flushed")
#: What CreateIndex takes (``internal/proxy/util.go``, validateIndexName).
_INDEX_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Flushed:
    """What Flush answered: the segments being sealed, and the timestamp that is durable once all channels have passed it."""

    segment_ids: list[int]
    flush_ts: int
    seal_time: int
    channel_checkpoints: dict[str, str]


@dataclass(frozen=True, slots=True)
class ServerSegment:
    """One durable segment as Milvus reports it."""

    segment_id: int
    partition_id: int
    rows: int
    is_l0: bool
    storage_version: int
    v_channel: str
    #: Whether a clustering compaction has made it, or is about to replace it.
    clustered: bool = field(default=False, compare=False)


class MilvusServer(MilvusRpc):
    """One Milvus. Every method raises ServerUnreachable, AuthError, UnsupportedServer or ServerError."""

    # ---- looking -----------------------------------------------------------------------------------------------------------

    @cached_property
    def version(self) -> str:
        """Return the version as the server says it, ``v2.3.5-lite`` say: its build tag where that is a release, else GetVersion."""
        request = messages().ConnectRequest(client_info=common().ClientInfo(sdk_type="Python"))
        try:
            tag = str(self._call("Connect", request, "connect").server_info.build_tags)
        except UnsupportedServer:  # before 2.2.9
            tag = ""
        return tag if is_release(tag) else str(self._call("GetVersion", messages().GetVersionRequest(), "ask for the version").version)

    @cached_property
    def capabilities(self) -> Capabilities:
        """Return what this Milvus can do; a server that does not say its version is taken for the newest."""
        return Capabilities(self.version)

    def can(self, capability: Capability) -> bool:
        """Return whether this Milvus can do something, as far as is known by now."""
        return self.capabilities.has(capability)

    @cached_property
    def rest(self) -> MilvusRest:
        """Return its REST interface."""
        return MilvusRest(self.address, self.patience)

    def close(self) -> None:
        """Close the channel and the REST connections; a later request opens new ones."""
        super().close()
        if "rest" in self.__dict__:
            self.rest.close()
            del self.rest

    def check_release(self) -> None:
        """Raise UnsupportedServer for a Milvus that is too old."""
        if self.capabilities.release < SUPPORTED:
            oldest = ".".join(map(str, SUPPORTED))
            raise UnsupportedServer(
                f"Milvus at {self.address} is version {self.version}; backups and restores need {oldest} or newer, upgrade it first"
            )

    def databases(self) -> list[str]:
        """Return the names of all databases, sorted; servers without databases have ``default``."""
        try:
            return sorted(self._call("ListDatabases", messages().ListDatabasesRequest(), "list databases").db_names)
        except UnsupportedServer:
            return [DEFAULT_DATABASE]

    def collections(self, database: str) -> list[str]:
        """Return the names of all collections of a database, sorted."""
        answer = self._call("ShowCollections", messages().ShowCollectionsRequest(), f"list collections of {database!r}", database)
        return sorted(answer.collection_names)

    def describe(self, name: CollectionName) -> Any:
        """Return DescribeCollectionResponse, unabridged."""
        request = messages().DescribeCollectionRequest(collection_name=name.collection)
        return self._call("DescribeCollection", request, f"describe {name}", name.database)

    @staticmethod
    def not_found(error: ServerError) -> bool:
        """Return whether the error says that a collection does not exist."""
        return error.code in NOT_FOUND_CODES or "find collection" in str(error).lower()

    def collection_id(self, name: CollectionName) -> int | None:
        """Return the id of a collection, None when there is none of this name; an alias is none."""
        try:
            described = self.describe(name)
        except ServerError as error:
            if self.not_found(error):
                return None
            raise
        return int(described.collectionID) if described.schema.name == name.collection else None

    def partitions(self, name: CollectionName) -> list[tuple[int, str]]:
        """Return (id, name) of all partitions."""
        request = messages().ShowPartitionsRequest(collection_name=name.collection)
        answer = self._call("ShowPartitions", request, f"list partitions of {name}", name.database)
        return list(zip(answer.partitionIDs, answer.partition_names, strict=True))

    def indexes(self, name: CollectionName) -> list[Index]:
        """Return all indexes."""
        found = []
        for index in self._described_indexes(name):
            params = {pair.key: pair.value for pair in index.params}
            found.append(Index(index.field_name, index.index_name, params.get("index_type", ""), params, index.indexID))
        return found

    def unindexed_rows(self, name: CollectionName) -> int:
        """Return how many rows wait for an index, of the index that lacks most."""
        return max((int(index.pending_index_rows) for index in self._described_indexes(name)), default=0)

    def _described_indexes(self, name: CollectionName) -> Sequence[Any]:
        request = messages().DescribeIndexRequest(collection_name=name.collection)
        try:
            answer = self._call("DescribeIndex", request, f"describe indexes of {name}", name.database)
        except ServerError as error:
            if error.code in NOT_FOUND_CODES or "index not found" in str(error).lower() or "IndexNotExist" in str(error):
                return []
            raise
        return list(answer.index_descriptions)

    def load_state(self, name: CollectionName, partition: str | None = None) -> str:
        """Return ``Loaded``, ``Loading`` or ``NotLoad`` of a collection or of one partition."""
        request = messages().GetLoadStateRequest(collection_name=name.collection, partition_names=[partition] if partition else [])
        state = self._call("GetLoadState", request, f"ask whether {name} is loaded", name.database).state
        return {2: "Loading", 3: "Loaded"}.get(state, "NotLoad")

    def segments(self, name: CollectionName) -> list[ServerSegment]:
        """Return the durable segments, by id: Milvus lists them in any order. Growing and sealed ones are left out."""
        request = messages().GetPersistentSegmentInfoRequest(collectionName=name.collection)
        backoff = Backoff(10, self.patience, first=0.1)
        while True:
            try:
                answer = self._call("GetPersistentSegmentInfo", request, f"list segments of {name}", name.database)
                break
            except ServerError as error:
                # A segment that is compacted between the two steps inside the server.
                if "segment not found" not in str(error).lower() or not backoff.again(str(error)):
                    raise
        durable = durable_states()
        found = (
            ServerSegment(
                segment_id=info.segmentID,
                partition_id=info.partitionID,
                rows=info.num_rows,
                is_l0=info.level == 1,
                storage_version=info.storage_version,
                # A field of pymilvus 3; without it import groups segments all the same.
                v_channel=getattr(info, "insert_channel", ""),
                clustered=info.level == 3,
            )
            for info in answer.infos
            if info.state in durable
        )
        return sorted(found, key=lambda segment: segment.segment_id)

    # ---- flushing ----------------------------------------------------------------------------------------------------------

    def flush(self, name: CollectionName) -> Flushed:
        """Ask Milvus to seal and flush a collection; one collection per request, because newer servers mix up several."""
        answer = self._call("Flush", messages().FlushRequest(collection_names=[name.collection]), f"flush {name}", name.database)
        return Flushed(
            segment_ids=list(answer.coll_segIDs[name.collection].data),
            flush_ts=answer.coll_flush_ts[name.collection],
            seal_time=answer.coll_seal_times[name.collection],
            channel_checkpoints={
                channel: base64.b64encode(position.SerializeToString()).decode() for channel, position in answer.channel_cps.items()
            },
        )

    def flush_done(self, name: CollectionName, flushed: Flushed) -> bool:
        """Return whether everything written before the flush is durable, deletes included."""
        request = messages().GetFlushStateRequest(
            segmentIDs=flushed.segment_ids, flush_ts=flushed.flush_ts, collection_name=name.collection
        )
        return bool(self._call("GetFlushState", request, f"ask whether {name} is flushed", name.database).flushed)

    def flush_all(self) -> Any:
        """Flush all collections of the cluster and return FlushAllResponse; with 2.6.11 and later it has a message by channel."""
        return self._call("FlushAll", messages().FlushAllRequest(), "flush all collections")

    def flush_all_done(self, times: Mapping[str, int]) -> bool:
        """Return whether everything up to these hybrid timestamps, by physical channel, is durable."""
        request = messages().GetFlushAllStateRequest(flush_all_tss=times)
        return bool(self._call("GetFlushAllState", request, "ask whether all collections are flushed").flushed)

    # ---- changing ----------------------------------------------------------------------------------------------------------

    def create_database(self, database: str, properties: Sequence[tuple[str, str]] = ()) -> None:
        """Create a database; servers before 2.4.3 do not read the properties."""
        request = messages().CreateDatabaseRequest(db_name=database)
        for key, value in properties:
            request.properties.add(key=key, value=value)
        self._call("CreateDatabase", request, f"create database {database!r}", done=lambda: database in self.databases())

    def drop_database(self, database: str) -> None:
        """Drop a database; Milvus refuses when there are collections in it."""
        request = messages().DropDatabaseRequest(db_name=database)
        self._call("DropDatabase", request, f"drop database {database!r}", done=lambda: database not in self.databases())

    def create_partition(self, name: CollectionName, partition: str) -> None:
        """Create a partition."""
        request = messages().CreatePartitionRequest(collection_name=name.collection, partition_name=partition)
        self._call("CreatePartition", request, f"create partition {partition!r} of {name}", name.database)

    def create_index(self, name: CollectionName, index: Index) -> None:
        """Create an index; one that Milvus named after a JSON path gets its name again, which Milvus gives but does not take."""
        given = index.index_name if _INDEX_NAME.fullmatch(index.index_name) else ""
        request = messages().CreateIndexRequest(collection_name=name.collection, field_name=index.field_name, index_name=given)
        for key, value in index.params.items():
            request.extra_params.add(key=key, value=value)
        self._call("CreateIndex", request, f"create index {index.index_name!r} of {name}", name.database)

    def create_alias(self, name: CollectionName, alias: str) -> None:
        """Create an alias."""
        request = messages().CreateAliasRequest(collection_name=name.collection, alias=alias)
        self._call("CreateAlias", request, f"create alias {alias!r} of {name}", name.database)

    def drop_collection(self, name: CollectionName) -> None:
        """Drop a collection with all its data."""
        self._call("DropCollection", messages().DropCollectionRequest(collection_name=name.collection), f"drop {name}", name.database)

    def rename_collection(self, name: CollectionName, new: str) -> None:
        """Give a collection another name in its database; its id, data and load state stay."""
        request = messages().RenameCollectionRequest(oldName=name.collection, newName=new)
        renamed = name._replace(collection=new)

        def done() -> bool:
            return self.collection_id(name) is None and self.collection_id(renamed) is not None

        self._call("RenameCollection", request, f"rename {name} to {new!r}", name.database, done=done)

    def alter_alias(self, name: CollectionName, alias: str) -> None:
        """Point an existing alias at another collection."""
        request = messages().AlterAliasRequest(collection_name=name.collection, alias=alias)
        self._call("AlterAlias", request, f"point alias {alias!r} at {name}", name.database)

    def load(self, name: CollectionName, *, partitions: Sequence[str] | None = None, refresh: bool = False) -> None:
        """Ask Milvus to load a collection, or some of its partitions; :meth:`load_state` tells when it is loaded.

        :param refresh: the collection is loaded already and shall take in new segments
        """
        if partitions is None:
            request = messages().LoadCollectionRequest(collection_name=name.collection, replica_number=0 if refresh else 1, refresh=refresh)
            self._call("LoadCollection", request, f"load {name}", name.database)
        else:
            parts = messages().LoadPartitionsRequest(collection_name=name.collection, partition_names=partitions, replica_number=1)
            self._call("LoadPartitions", parts, f"load partitions of {name}", name.database)

    def refreshed(self, name: CollectionName) -> bool:
        """Return whether a loaded collection has taken in the segments that :meth:`load` told it to."""
        request = messages().GetLoadingProgressRequest(collection_name=name.collection)
        answer = self._call("GetLoadingProgress", request, f"ask how far {name} is refreshed", name.database)
        return bool(answer.refresh_progress >= 100)

    def release_collection(self, name: CollectionName) -> None:
        """Release a collection from memory."""
        request = messages().ReleaseCollectionRequest(collection_name=name.collection)
        self._call("ReleaseCollection", request, f"release {name}", name.database)

    # ---- importing ---------------------------------------------------------------------------------------------------------

    def submit_import(self, name: CollectionName, partition: str, files: Sequence[str], options: Mapping[str, str]) -> int:
        """Start an import job and return its id.

        :raises ServerUnreachable: also where the answer was lost; the job may then be running, and :meth:`imports` shows it
        """
        request = messages().ImportRequest(collection_name=name.collection, partition_name=partition, files=files)
        for key, value in options.items():
            request.options.add(key=key, value=value)
        answer = self._call("Import", request, f"import into {name}", name.database, once=True)
        return int(answer.tasks[0])

    def import_state(self, job_id: int) -> Any:
        """Return GetImportStateResponse of one job."""
        request = messages().GetImportStateRequest(task=job_id)
        return self._call("GetImportState", request, f"ask for import job {job_id}", cancellable=False)

    def imports(self, name: CollectionName) -> list[Any]:
        """Return GetImportStateResponse of every job into a collection that Milvus keeps a record of."""
        request = messages().ListImportTasksRequest(collection_name=name.collection)
        return list(self._call("ListImportTasks", request, f"list import jobs of {name}", name.database, cancellable=False).tasks)

    # ---- users, roles, databases -------------------------------------------------------------------------------------------

    def backup_rbac(self) -> Any:
        """Return RBACMeta: users, roles, grants and privilege groups that are not built in; Milvus 2.4.9 and newer."""
        return self._call("BackupRBAC", messages().BackupRBACMetaRequest(), "back up users, roles and grants").RBAC_meta

    def restore_rbac(self, rbac: Any, done: Callable[[], bool]) -> None:
        """Add the users, roles, grants and privilege groups of a RBACMeta, none of which may exist.

        :param done: see :meth:`.MilvusRpc._call`
        """
        request = messages().RestoreRBACMetaRequest(RBAC_meta=rbac)
        self._call("RestoreRBAC", request, "restore users, roles and grants", done=done)

    def grant(self, grant: Any) -> None:
        """Give a role the privilege of a GrantEntity; giving it once more changes nothing."""
        doing = f"grant {grant.grantor.privilege.name!r} on {grant.object_name!r} to role {grant.role.name!r}"
        self._call("OperatePrivilege", messages().OperatePrivilegeRequest(entity=grant), doing)

    def describe_database(self, database: str) -> Any:
        """Return DescribeDatabaseResponse; Milvus 2.4.3 and newer."""
        return self._call("DescribeDatabase", messages().DescribeDatabaseRequest(db_name=database), f"describe database {database!r}")


def durable_states() -> frozenset[int]:
    """Return the numbers of the states in :data:`DURABLE`."""
    return frozenset(common().SegmentState.Value(name) for name in DURABLE)
