"""What a backup says about itself: dataclasses.

:mod:`.meta_writer` turns them into the five meta files, :mod:`.meta_reader` reads them from those of every release of ``milvus-backup``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .names import CollectionName
from .rbac import Rbac

#: The format of backups whose data Milvus itself has written, from 3.0 on.
SNAPSHOT = "snapshot"


class Log(NamedTuple):
    """One insert binlog or delta log: its id (the last part of its key), its size in bytes, and in a plan its ETag."""

    log_id: int
    size: int
    etag: str = ""


class FieldLogs(NamedTuple):
    """The logs of one field, in the order of their ids; delta logs have field 0."""

    field_id: int
    logs: list[Log]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment and its files. ``group_id`` None means a layout without group directories (before 0.4.4, and L0 of all partitions)."""

    segment_id: int
    partition_id: int
    rows: int
    inserts: list[FieldLogs]
    deltas: list[FieldLogs]
    group_id: int | None
    is_l0: bool = False
    v_channel: str = ""
    storage_version: int = 0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(log.size for fields in (*self.inserts, *self.deltas) for log in fields.logs)

    @property
    def objects(self) -> int:
        """Number of files."""
        return sum(len(fields.logs) for fields in (*self.inserts, *self.deltas))


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition and its segments."""

    partition_id: int
    name: str
    segments: list[Segment]
    load_state: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(segment.size for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Index:
    """One index: what CreateIndex needs to make it again."""

    field_name: str
    index_name: str
    index_type: str
    params: dict[str, str]
    index_id: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotBackup:
    """What Milvus 3.0 has written of one collection: the path of its metadata, relative to the backup, the number of files, their bytes."""

    metadata_path: str
    total_files: int = 0
    total_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection as it was backed up. ``schema`` is the meta JSON that :mod:`.schema` reads and writes."""

    collection_id: int
    name: CollectionName
    schema: dict[str, Any]
    shards: int
    consistency_level: int
    partitions: list[Partition]
    l0_segments: list[Segment] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    load_state: str = "NotLoad"
    properties: list[tuple[str, str]] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)
    database_id: int = 0
    created_timestamp: int = 0
    virtual_channels: list[str] = field(default_factory=list)
    physical_channels: list[str] = field(default_factory=list)
    backup_timestamp: int = 0
    backup_physical_timestamp: int = 0
    channel_checkpoints: dict[str, str] = field(default_factory=dict)
    #: Its data in snapshot format; there are no segments then.
    snapshot: SnapshotBackup | None = None

    def segments(self) -> Iterator[Segment]:
        """Iterate over all segments, those for all partitions (L0) last."""
        for partition in self.partitions:
            yield from partition.segments
        yield from self.l0_segments

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.snapshot.total_bytes if self.snapshot else sum(segment.size for segment in self.segments())

    @property
    def rows(self) -> int:
        """Rows inserted into the segments; deletes are not taken off, and those in a snapshot are not known."""
        return sum(segment.rows for segment in self.segments())


@dataclass(frozen=True, slots=True)
class Database:
    """One database."""

    name: str
    database_id: int = 0
    properties: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FlushAll:
    """The one point in time of a whole backup: by physical channel the message that marks it, a ``commonpb.ImmutableMessage`` as base64."""

    messages: dict[str, str]
    control_channel: str = ""
    physical_channels: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Backup:
    """A whole backup."""

    backup_id: str
    name: str
    server_version: str
    collections: list[Collection]
    databases: list[Database] = field(default_factory=list)
    #: What the reader could not recover, one sentence each; empty for a backup read from full_meta.json.
    warnings: list[str] = field(default_factory=list)
    #: Users, roles, grants and privilege groups; None when they were not backed up.
    rbac: Rbac | None = None
    #: What a flush of everything left behind; None when collections were flushed one by one.
    flush_all: FlushAll | None = None
    #: How the data is kept: empty for binlogs, :data:`SNAPSHOT` for bundles that Milvus has written.
    format: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(collection.size for collection in self.collections)
