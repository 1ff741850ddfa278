"""What a model keeps: the nouns of Milvus, as plain data."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .binlogs import Delete
from .buckets import Bucket
from .profiles import Profile

#: (database, collection); `airflow_provider_milvus_backup.core.names.CollectionName` is one.
Name = tuple[str, str]

DEFAULT_DATABASE, DEFAULT_PARTITION = "default", "_default"
ALL_PARTITIONS = -1
LEGACY, L0, L1, L2 = 0, 1, 2, 3
GROWING, SEALED, FLUSHED, FLUSHING, DROPPED = 2, 3, 4, 5, 6
PHYSICAL_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One inserted row; ``values`` by field id, without the system fields."""

    pk: Any
    ts: int
    row_id: int
    values: dict[int, Any]


@dataclass(slots=True)
class Segment:
    """One segment. The files of a dropped one stay in the bucket."""

    id: int
    partition_id: int
    vchannel: str
    level: int
    state: int
    storage_version: int
    rows: list[Row] = field(default_factory=list)
    #: Of an L0 segment: what it deletes; of any other: what its own delta logs say.
    deletes: list[Delete] = field(default_factory=list)
    insert_logs: dict[int, list[int]] = field(default_factory=dict)
    delta_logs: list[int] = field(default_factory=list)
    compaction_from: list[int] = field(default_factory=list)
    #: Overrides the rows' own timestamps (3.0); 0 = there is none.
    commit_ts: int = 0
    #: It belongs to an import that is not complete: listed, never seen by a query.
    importing: bool = False
    #: A clustering compaction has made it, and its inputs are what a query sees until it is indexed.
    unindexed: bool = False
    sorted: bool = False

    def ts(self, row: Row) -> int:
        """Return the timestamp a row counts with."""
        return self.commit_ts or row.ts


@dataclass(slots=True)
class Partition:
    """One partition."""

    id: int
    name: str
    created: int


@dataclass(slots=True)
class Index:
    """One index."""

    id: int
    name: str
    field_name: str
    params: dict[str, str]


@dataclass(slots=True)
class Pending:
    """A flush whose segments are sealed and not written yet."""

    due: float
    flush_ts: int
    segments: list[Segment]


@dataclass(slots=True)
class Collection:
    """One collection."""

    id: int
    database: str
    name: str
    #: As RootCoord keeps it, ``$meta`` included.
    schema: Any
    shards: int
    consistency_level: int
    properties: dict[str, str]
    created: int
    vchannels: list[str]
    partitions: list[Partition] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    pending: list[Pending] = field(default_factory=list)
    #: Deletes that no flush has written yet, by (vchannel, partition id).
    deletes: dict[tuple[str, int], list[Delete]] = field(default_factory=dict)
    #: Ids of loaded partitions.
    loaded: set[int] = field(default_factory=set)
    #: Timestamp up to which everything is durable.
    checkpoint: int = 0

    @property
    def full_name(self) -> Name:
        """(database, name)."""
        return self.database, self.name

    @property
    def external(self) -> bool:
        """Whether its data lies outside of Milvus (3.0)."""
        return bool(self.schema.external_source)

    def partition(self, name: str) -> Partition | None:
        """Return a partition by name."""
        return next((partition for partition in self.partitions if partition.name == name), None)

    def vchannel_of(self, pk: Any) -> str:
        """Return the channel a primary key hashes to; Milvus's own hash is another, and nobody outside can tell."""
        return self.vchannels[zlib.crc32(repr(pk).encode()) % len(self.vchannels)]


@dataclass(slots=True)
class Database:
    """One database."""

    id: int
    name: str
    created: int
    properties: dict[str, str] = field(default_factory=dict)
    collections: dict[str, Collection] = field(default_factory=dict)
    #: Collection names by alias.
    aliases: dict[str, str] = field(default_factory=dict)


class State:
    """What all parts of a model share.

    :param first_id: where ids begin; two clusters of one test may have different ones
    :param clock: seconds since 1970, for timestamps
    :param monotonic: seconds, for how long things take
    """

    def __init__(
        self,
        profile: Profile,
        bucket: Bucket,
        *,
        root_path: str = "files",
        bucket_name: str = "a-bucket",
        first_id: int = 450_000_000_000_000_000,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.profile, self.bucket = profile, bucket
        self.root_path, self.bucket_name = root_path.strip("/"), bucket_name
        self.clock, self.monotonic = clock, monotonic
        self.lock = threading.RLock()
        self._last_ts = 0
        self._last_id = first_id
        #: Rows in one log of a field; a segment with more has several logs.
        self.rows_per_log = 1000
        #: Seconds from a Flush until its segments are written.
        self.flush_seconds = 0.02
        self.databases = {DEFAULT_DATABASE: Database(1, DEFAULT_DATABASE, self.next_ts())}

    def next_ts(self) -> int:
        """Return a new hybrid timestamp: milliseconds << 18, and a counter below."""
        self._last_ts = max(self._last_ts + 1, int(self.clock() * 1000) << 18)
        return self._last_ts

    def next_id(self) -> int:
        """Return a new id; collections, segments, logs and jobs share one sequence, as in Milvus."""
        self._last_id += 1
        return self._last_id

    def key(self, *parts: object) -> str:
        """Return a key below the root path."""
        return "/".join([*([self.root_path] if self.root_path else []), *map(str, parts)])
