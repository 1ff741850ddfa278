"""MilvusServer: the requests a backup and a restore make, on the raw gRPC stubs.

pymilvus's high-level client drops fields and options silently, so its generated stubs are used directly, on a channel of our own.
"""

from __future__ import annotations

import base64
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import schema
from .errors import AuthError, ServerError, ServerUnreachable, UnsupportedServer
from .meta import Index
from .names import DEFAULT_DATABASE, CollectionName
from .settings import MilvusAddress, read_pem

#: Leaves time for the rest of what must fail within ten seconds.
CONNECT_SECONDS = 8.0
REQUEST_SECONDS = 60.0
ATTEMPTS = 6
#: First release that works, and first that needs more than this package knows: L0 segments, import by REST.
SUPPORTED, UNSUPPORTED = (2, 2, 9), (2, 4, 0)

# Error codes of milvus-io/milvus `pkg/util/merr`, and of the enum before 2.3.
NOT_FOUND_CODES = {4, 100, 25, 700, 800}


@dataclass(frozen=True, slots=True)
class Flushed:
    """What Flush answered: the segments being sealed, and the timestamp that is durable once all channels have passed it."""

    segment_ids: list[int]
    flush_ts: int
    seal_time: int
    channel_checkpoints: dict[str, str]


@dataclass(frozen=True, slots=True)
class ServerSegment:
    """One flushed segment as Milvus reports it."""

    segment_id: int
    partition_id: int
    rows: int
    is_l0: bool
    storage_version: int
    v_channel: str


class MilvusServer:
    """One Milvus. The channel is opened by the first request, so instances are free to make and safe before a fork.

    Every method raises ServerUnreachable, AuthError, UnsupportedServer or ServerError.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address

    @cached_property
    def _channel(self) -> Any:
        import grpc

        channel = open_channel(self.address, grpc)
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            channel.close()
            raise ServerUnreachable(
                f"Milvus at {self.address} did not answer within {CONNECT_SECONDS:.0f} s; check host, port and TLS"
            ) from None
        return channel

    @cached_property
    def _stub(self) -> Any:
        from pymilvus.grpc_gen import milvus_pb2_grpc

        return milvus_pb2_grpc.MilvusServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close the channel; a later request opens a new one."""
        if "_channel" in self.__dict__:
            self._channel.close()
            del self._channel
            self.__dict__.pop("_stub", None)

    # ---- looking -----------------------------------------------------------------------------------------------------------

    @cached_property
    def version(self) -> str:
        """Return the server's version as it says it, ``v2.3.5-lite`` for example."""
        return str(self._call("GetVersion", _pb().GetVersionRequest(), "ask for the version").version)

    @cached_property
    def release(self) -> tuple[int, int, int]:
        """Return the version as numbers; a server that does not say is taken for the newest."""
        return parse_version(self.version)

    def check_release(self) -> None:
        """Raise UnsupportedServer for a Milvus whose backups and imports this package does not know."""
        if not SUPPORTED <= self.release < UNSUPPORTED:
            raise UnsupportedServer(
                f"Milvus at {self.address} is version {self.version}; this version of the provider works with Milvus 2.2.9 to 2.3 "
                "(see the compatibility table in its README)"
            )

    def databases(self) -> list[str]:
        """Return the names of all databases, sorted; servers without databases have ``default``."""
        try:
            return sorted(self._call("ListDatabases", _pb().ListDatabasesRequest(), "list databases").db_names)
        except UnsupportedServer:
            return [DEFAULT_DATABASE]

    def collections(self, database: str) -> list[str]:
        """Return the names of all collections of a database, sorted."""
        answer = self._call("ShowCollections", _pb().ShowCollectionsRequest(), f"list collections of {database!r}", database)
        return sorted(answer.collection_names)

    def describe(self, name: CollectionName) -> Any:
        """Return DescribeCollectionResponse, unabridged."""
        request = _pb().DescribeCollectionRequest(collection_name=name.collection)
        return self._call("DescribeCollection", request, f"describe {name}", name.database)

    def exists(self, name: CollectionName) -> bool:
        """Return whether the collection exists."""
        return name.collection in self.collections(name.database)

    def partitions(self, name: CollectionName) -> list[tuple[int, str]]:
        """Return (id, name) of all partitions."""
        request = _pb().ShowPartitionsRequest(collection_name=name.collection)
        answer = self._call("ShowPartitions", request, f"list partitions of {name}", name.database)
        return list(zip(answer.partitionIDs, answer.partition_names, strict=True))

    def indexes(self, name: CollectionName) -> list[Index]:
        """Return all indexes."""
        request = _pb().DescribeIndexRequest(collection_name=name.collection)
        try:
            answer = self._call("DescribeIndex", request, f"describe indexes of {name}", name.database)
        except ServerError as error:
            if error.code in NOT_FOUND_CODES or "index not found" in str(error).lower() or "IndexNotExist" in str(error):
                return []
            raise
        found = []
        for index in answer.index_descriptions:
            params = {pair.key: pair.value for pair in index.params}
            found.append(Index(index.field_name, index.index_name, params.get("index_type", ""), params, index.indexID))
        return found

    def load_state(self, name: CollectionName, partition: str | None = None) -> str:
        """Return ``Loaded``, ``Loading`` or ``NotLoad`` of a collection or of one partition."""
        request = _pb().GetLoadStateRequest(collection_name=name.collection, partition_names=[partition] if partition else [])
        state = self._call("GetLoadState", request, f"ask whether {name} is loaded", name.database).state
        return {2: "Loading", 3: "Loaded"}.get(state, "NotLoad")

    def segments(self, name: CollectionName) -> list[ServerSegment]:
        """Return the flushed segments; growing and sealing ones are not durable and left out."""
        request = _pb().GetPersistentSegmentInfoRequest(collectionName=name.collection)
        for attempt in range(ATTEMPTS):
            try:
                answer = self._call("GetPersistentSegmentInfo", request, f"list segments of {name}", name.database)
                break
            except ServerError as error:
                # A segment that is compacted between the two steps inside the server.
                if "segment not found" not in str(error).lower() or attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
        flushed = _common().SegmentState.Value("Flushed")
        return [
            ServerSegment(
                segment_id=info.segmentID,
                partition_id=info.partitionID,
                rows=info.num_rows,
                is_l0=info.level == 1,
                storage_version=info.storage_version,
                # A field of pymilvus 3; without it import groups segments all the same.
                v_channel=getattr(info, "insert_channel", ""),
            )
            for info in answer.infos
            if info.state == flushed
        ]

    # ---- flushing ----------------------------------------------------------------------------------------------------------

    def flush(self, name: CollectionName) -> Flushed:
        """Ask Milvus to seal and flush a collection; one collection per request, because newer servers mix up several."""
        answer = self._call("Flush", _pb().FlushRequest(collection_names=[name.collection]), f"flush {name}", name.database)
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
        request = _pb().GetFlushStateRequest(segmentIDs=flushed.segment_ids, flush_ts=flushed.flush_ts, collection_name=name.collection)
        return bool(self._call("GetFlushState", request, f"ask whether {name} is flushed", name.database).flushed)

    # ---- changing ----------------------------------------------------------------------------------------------------------

    def create_database(self, database: str) -> None:
        """Create a database."""
        self._call("CreateDatabase", _pb().CreateDatabaseRequest(db_name=database), f"create database {database!r}")

    def create_collection(
        self,
        name: CollectionName,
        document: dict[str, Any],
        *,
        shards: int,
        consistency_level: int,
        properties: Sequence[tuple[str, str]],
        partitions: int,
    ) -> None:
        """Create a collection from the meta JSON of its schema; ``partitions`` counts only with a partition key, else 0."""
        request = _pb().CreateCollectionRequest(
            collection_name=name.collection,
            schema=schema.to_proto(document, name.collection).SerializeToString(),
            shards_num=shards,
            consistency_level=consistency_level,
            num_partitions=partitions,
        )
        for key, value in properties:
            request.properties.add(key=key, value=value)
        self._call("CreateCollection", request, f"create collection {name}", name.database)

    def create_partition(self, name: CollectionName, partition: str) -> None:
        """Create a partition."""
        request = _pb().CreatePartitionRequest(collection_name=name.collection, partition_name=partition)
        self._call("CreatePartition", request, f"create partition {partition!r} of {name}", name.database)

    def create_index(self, name: CollectionName, index: Index) -> None:
        """Create an index."""
        request = _pb().CreateIndexRequest(collection_name=name.collection, field_name=index.field_name, index_name=index.index_name)
        for key, value in index.params.items():
            request.extra_params.add(key=key, value=value)
        self._call("CreateIndex", request, f"create index {index.index_name!r} of {name}", name.database)

    def create_alias(self, name: CollectionName, alias: str) -> None:
        """Create an alias."""
        request = _pb().CreateAliasRequest(collection_name=name.collection, alias=alias)
        self._call("CreateAlias", request, f"create alias {alias!r} of {name}", name.database)

    def drop_collection(self, name: CollectionName) -> None:
        """Drop a collection with all its data."""
        self._call("DropCollection", _pb().DropCollectionRequest(collection_name=name.collection), f"drop {name}", name.database)

    def load(self, name: CollectionName, *, partitions: Sequence[str] | None = None, refresh: bool = False) -> None:
        """Ask Milvus to load a collection, or some of its partitions; :meth:`load_state` tells when it is loaded.

        :param refresh: the collection is loaded already and shall take in new segments
        """
        if partitions is None:
            request = _pb().LoadCollectionRequest(collection_name=name.collection, replica_number=0 if refresh else 1, refresh=refresh)
            self._call("LoadCollection", request, f"load {name}", name.database)
        else:
            parts = _pb().LoadPartitionsRequest(collection_name=name.collection, partition_names=partitions, replica_number=1)
            self._call("LoadPartitions", parts, f"load partitions of {name}", name.database)

    def refreshed(self, name: CollectionName) -> bool:
        """Return whether a loaded collection has taken in the segments that :meth:`load` told it to."""
        request = _pb().GetLoadingProgressRequest(collection_name=name.collection)
        answer = self._call("GetLoadingProgress", request, f"ask how far {name} is refreshed", name.database)
        return bool(answer.refresh_progress >= 100)

    def release_collection(self, name: CollectionName) -> None:
        """Release a collection from memory."""
        request = _pb().ReleaseCollectionRequest(collection_name=name.collection)
        self._call("ReleaseCollection", request, f"release {name}", name.database)

    # ---- importing ---------------------------------------------------------------------------------------------------------

    def submit_import(self, name: CollectionName, partition: str, files: Sequence[str], options: dict[str, str]) -> int:
        """Start an import job and return its id. Never repeated by itself: a job whose answer was lost may be running."""
        request = _pb().ImportRequest(collection_name=name.collection, partition_name=partition, files=files)
        for key, value in options.items():
            request.options.add(key=key, value=value)
        answer = self._call("Import", request, f"import into {name}", name.database, attempts=1)
        return int(answer.tasks[0])

    def import_state(self, job_id: int) -> Any:
        """Return GetImportStateResponse of one job."""
        return self._call("GetImportState", _pb().GetImportStateRequest(task=job_id), f"ask for import job {job_id}")

    # ---- one request -------------------------------------------------------------------------------------------------------

    def _call(self, rpc: str, request: Any, doing: str, database: str | None = None, *, attempts: int = ATTEMPTS) -> Any:
        import grpc

        metadata = request_metadata(self.address, database)
        for delay in _delays(attempts):
            try:
                answer = getattr(self._stub, rpc)(request, timeout=REQUEST_SECONDS, metadata=metadata)
                check_status(answer, doing, self.address)
            except grpc.RpcError as error:
                explained = explain_rpc_error(error, doing, self.address)
                if delay is None or not isinstance(explained, ServerUnreachable):
                    raise explained from None
            except ServerError as error:
                if delay is None or "rate limit" not in str(error).lower():
                    raise
            else:
                return answer
            time.sleep(delay)
        raise AssertionError("unreachable: the last attempt returns or raises")


def open_channel(address: MilvusAddress, grpc: Any) -> Any:
    """Return a channel of ``grpc`` (the module itself or ``grpc.aio``); nothing is sent yet."""
    from grpc import ssl_channel_credentials

    target = f"{address.host}:{address.port}"
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.enable_http_proxy", 0),
    ]
    if not address.secure:
        return grpc.insecure_channel(target, options=options)
    if address.server_name:
        options.append(("grpc.ssl_target_name_override", address.server_name))
    ca, key, certificate = (
        read_pem(path, f"{purpose} of {address}") if path else None
        for path, purpose in ((address.ca_cert, "ca_cert"), (address.client_key, "client_key"), (address.client_cert, "client_cert"))
    )
    return grpc.secure_channel(target, ssl_channel_credentials(ca, key, certificate), options=options)


def request_metadata(address: MilvusAddress, database: str | None) -> list[tuple[str, str]]:
    """Return the headers of one request: who asks, and for which database."""
    secret = address.token or (f"{address.user}:{address.password}" if address.user else "")
    metadata = [("dbname", database)] if database else []
    if secret:
        metadata.append(("authorization", base64.b64encode(secret.encode()).decode()))
    return metadata


def check_status(answer: Any, doing: str, address: MilvusAddress) -> None:
    """Raise ServerError when the status inside an answer says so."""
    status = answer if hasattr(answer, "error_code") else answer.status
    code = status.code or status.error_code
    if code:
        kind = AuthError if "privilege" in status.reason.lower() or "permission deny" in status.reason.lower() else ServerError
        raise kind(f"Milvus at {address} cannot {doing}: {status.reason.strip()} (code {code})", code)


def explain_rpc_error(error: Any, doing: str, address: MilvusAddress) -> ServerError:
    """Return our error for one of gRPC's."""
    code, details = error.code().name, (error.details() or "").strip()
    if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"):
        return ServerUnreachable(f"Milvus at {address} cannot {doing} now: {details or code}")
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return AuthError(f"Milvus at {address} refuses to {doing}: {details or code}; check login, password or token of the connection")
    if code == "UNIMPLEMENTED":
        return UnsupportedServer(f"Milvus at {address} does not know how to {doing}")
    return ServerError(f"Milvus at {address} cannot {doing}: {details or code}")


def parse_version(text: str) -> tuple[int, int, int]:
    """Return (major, minor, patch) of what a server calls its version.

    Release (``v2.4.1``), four-part (``2.5.20.1``) and suffixed (``v2.3.5-lite``) versions give their first three numbers; development
    builds (``2.6-20260404-abc``, ``… Compatible with Milvus 2.6``) count as the newest of their line, anything else as the newest.
    """
    text = text.strip()
    if match := re.match(r"v?(\d+)\.(\d+)\.(\d+)", text):
        return int(match[1]), int(match[2]), int(match[3])
    if match := re.search(r"(?:^v?|Milvus )(\d+)\.(\d+)(?:-|$|\s)", text):
        return int(match[1]), int(match[2]), 9999
    return 99, 0, 0


def _delays(attempts: int) -> Iterator[float | None]:
    """Yield the pause after each attempt, None after the last: jittered, doubling from 0.1 s."""
    for attempt in range(attempts - 1):
        yield random.uniform(0.5, 1) * 0.2 * 2**attempt  # noqa: S311 (jitter)
    yield None


def _pb() -> Any:
    from pymilvus.grpc_gen import milvus_pb2

    return milvus_pb2


def _common() -> Any:
    from pymilvus.grpc_gen import common_pb2

    return common_pb2
