"""The five meta files of a backup ⇄ dataclasses: pure functions.

The format is that of ``milvus-backup`` (``core/proto/backup.proto`` and ``internal/meta`` of ``zilliztech/milvus-backup``): Go's JSON of
protobuf structs, integers as numbers, zero values left out. Readers accept every generation from 0.1 to HEAD in binlog format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import layout, schema
from .errors import BackupDamaged, UnsupportedFormat
from .jsonreader import MAX_UINT64, Node
from .names import DEFAULT_DATABASE, CollectionName


class Log(NamedTuple):
    """One insert binlog or delta log: its id (the last part of its key) and its size in bytes."""

    log_id: int
    size: int


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

    def segments(self) -> Iterator[Segment]:
        """Iterate over all segments, those for all partitions (L0) last."""
        for partition in self.partitions:
            yield from partition.segments
        yield from self.l0_segments

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(segment.size for segment in self.segments())

    @property
    def rows(self) -> int:
        """Rows inserted into the segments; deletes are not taken off."""
        return sum(segment.rows for segment in self.segments())


@dataclass(frozen=True, slots=True)
class Database:
    """One database."""

    name: str
    database_id: int = 0
    properties: list[tuple[str, str]] = field(default_factory=list)


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

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(collection.size for collection in self.collections)


# ---- writing -------------------------------------------------------------------------------------------------------------------


def to_files(backup: Backup, milvus_root: str) -> dict[str, bytes]:
    """Return ``{file name: content}`` in the order to write them: full_meta.json first, the commit mark backup_meta.json last.

    ``milvus_root`` is the root path of the source Milvus, which ``log_path`` records.
    """
    head = {"id": backup.backup_id, "state_code": 0, "name": backup.name, "size": backup.size, "milvus_version": backup.server_version}
    databases = [
        _kept({"db_name": d.name, "db_id": d.database_id, "properties": _pairs(d.properties)}) for d in backup.databases
    ]
    partitions = [(collection, partition) for collection in backup.collections for partition in collection.partitions]
    segments = [
        _segment(collection, segment, milvus_root) for collection, partition in partitions for segment in partition.segments
    ]
    remaining = iter(segments)
    full = [
        {
            **_collection(backup, collection),
            "partition_backups": [
                {**_partition(collection, partition), **_kept({"segment_backups": [next(remaining) for _ in partition.segments]})}
                for partition in collection.partitions
            ],
            **_kept({"l0_segments": [_segment(collection, segment, milvus_root) for segment in collection.l0_segments]}),
        }
        for collection in backup.collections
    ]
    levels = [
        {**_collection(backup, collection), "partition_backups": [_partition(collection, p) for p in collection.partitions]}
        for collection in backup.collections
    ]
    return {
        "full_meta.json": _json({**head, "collection_backups": full, "database_backups": databases}),
        "collection_meta.json": _json({"infos": levels}),
        "partition_meta.json": _json({"infos": [_partition(collection, partition) for collection, partition in partitions]}),
        "segment_meta.json": _json({"infos": segments}),
        "backup_meta.json": _json(head),
    }


def _collection(backup: Backup, c: Collection) -> dict[str, Any]:
    properties = _pairs(c.properties)
    # Readers of different age take the properties from different places, so both places say the same.
    return {
        **_kept(
            {
                "id": backup.backup_id,
                "collection_id": c.collection_id,
                "db_name": c.name.database,
                "collection_name": c.name.collection,
                "schema": _kept({**c.schema, "properties": properties}),
                "shards_num": c.shards,
                "consistency_level": c.consistency_level,
                "backup_timestamp": c.backup_timestamp,
                "index_infos": [
                    _kept(
                        {
                            "field_name": index.field_name,
                            "index_name": index.index_name,
                            "index_type": index.index_type,
                            "params": index.params,
                            "index_id": index.index_id,
                        }
                    )
                    for index in c.indexes
                ],
                "load_state": c.load_state,
                "backup_physical_timestamp": c.backup_physical_timestamp,
                "channel_checkpoints": c.channel_checkpoints,
                "properties": properties,
                "db_id": c.database_id,
                "created_timestamp": c.created_timestamp,
                "virtual_channel_names": c.virtual_channels,
                "physical_channel_names": c.physical_channels,
                "aliases": c.aliases,
            }
        ),
        "size": c.size,
        "has_index": bool(c.indexes),
    }


def _partition(c: Collection, p: Partition) -> dict[str, Any]:
    kept = _kept(
        {"partition_id": p.partition_id, "partition_name": p.name, "collection_id": c.collection_id, "load_state": p.load_state}
    )
    return {**kept, "size": p.size}


def _segment(c: Collection, s: Segment, root: str) -> dict[str, Any]:
    inserts = [
        _logs(fields, [layout.source_insert(root, c.collection_id, s.partition_id, s.segment_id, fields.field_id, log.log_id) for log in fields.logs])
        for fields in s.inserts
    ]
    deltas = [
        _logs(fields, [layout.source_delta(root, c.collection_id, s.partition_id, s.segment_id, log.log_id) for log in fields.logs])
        for fields in s.deltas
    ]
    kept = _kept(
        {
            "segment_id": s.segment_id,
            "collection_id": c.collection_id,
            "partition_id": s.partition_id,
            "num_of_rows": s.rows,
            "binlogs": inserts,
            "deltalogs": deltas,
            "group_id": s.group_id,
            "is_l0": s.is_l0,
            "v_channel": s.v_channel,
            "storage_version": s.storage_version,
        }
    )
    return {**kept, "size": s.size}


def _logs(fields: FieldLogs, paths: list[str]) -> dict[str, Any]:
    logs = [{"log_path": path, "log_size": log.size, "log_id": log.log_id} for path, log in zip(paths, fields.logs, strict=True)]
    return _kept({"fieldID": fields.field_id, "binlogs": logs})


def _pairs(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs]


def _kept(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value not in (None, 0, "", [], {})}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# ---- reading -------------------------------------------------------------------------------------------------------------------


def from_files(files: Mapping[str, bytes]) -> Backup:
    """Return the backup that the meta files describe: full_meta.json where present, else the four level files.

    Raises BackupDamaged for anything unreadable and UnsupportedFormat for formats other than binlogs.
    """
    if "full_meta.json" in files:
        return from_document(Node.parse(files["full_meta.json"], "full_meta.json"))
    missing = [file for file in layout.META_FILES[1:] if file not in files]
    if missing:
        raise BackupDamaged(f"the backup has neither full_meta.json nor {', '.join(missing)}; its meta is incomplete")
    root = Node.parse(files["backup_meta.json"], "backup_meta.json")
    _refuse_other_formats(root)
    levels = {file: list(Node.parse(files[file], file).nodes("infos")) for file in layout.META_FILES[1:4]}
    segments: dict[tuple[int, int], list[Node]] = {}
    for node in levels["segment_meta.json"]:
        segments.setdefault((node.integer("collection_id"), node.integer("partition_id", low=-1)), []).append(node)
    partitions: dict[int, list[Partition]] = {}
    for node in levels["partition_meta.json"]:
        ids = (node.integer("collection_id"), node.integer("partition_id"))
        partitions.setdefault(ids[0], []).append(_read_partition(node, segments.get(ids, [])))
    collections = [_read_collection(node, partitions) for node in levels["collection_meta.json"]]
    warning = "full_meta.json is missing: deletes kept in L0 segments may be lost, and rows they deleted may come back"
    return _read_backup(root, collections, [] if any(c.l0_segments for c in collections) else [warning])


def from_document(root: Node) -> Backup:
    """Return the backup that a full_meta.json document describes."""
    _refuse_other_formats(root)
    return _read_backup(root, [_read_collection(node, None) for node in root.nodes("collection_backups")])


def _refuse_other_formats(root: Node) -> None:
    if found := root.string("format"):
        raise UnsupportedFormat(
            f"backup {root.string('name')!r} was taken in the {found!r} format; this version restores backups in binlog format only"
        )


def _read_backup(root: Node, collections: list[Collection], warnings: list[str] | None = None) -> Backup:
    databases = [
        Database(node.string("db_name") or DEFAULT_DATABASE, node.integer("db_id"), node.pairs("properties"))
        for node in root.nodes("database_backups")
    ]
    seen: set[CollectionName] = set()
    for collection in collections:
        if collection.name in seen:
            raise BackupDamaged(f"{root.where} holds collection {collection.name} twice")
        seen.add(collection.name)
    return Backup(root.string("id"), root.string("name"), root.string("milvus_version"), collections, databases, warnings or [])


def _read_collection(node: Node, partitions: Mapping[int, list[Partition]] | None) -> Collection:
    name = CollectionName(node.string("db_name") or DEFAULT_DATABASE, node.string("collection_name"))
    if not name.collection:
        raise node.wrong("collection_name", "a collection name")
    collection_id = _id(node, "collection_id")
    document = schema.checked(Node(node.value.get("schema"), f"{node.where}.schema"))
    schema_properties = [(pair["key"], pair["value"]) for pair in document.get("properties", [])]
    properties = schema_properties + [pair for pair in node.pairs("properties") if pair not in schema_properties]
    return Collection(
        collection_id=collection_id,
        name=name,
        schema={**document, "properties": [{"key": key, "value": value} for key, value in properties]},
        shards=node.integer("shards_num", high=2**31 - 1),
        consistency_level=node.integer("consistency_level", high=4),
        partitions=[_read_partition(p, list(p.nodes("segment_backups"))) for p in node.nodes("partition_backups")]
        if partitions is None
        else partitions.get(collection_id, []),
        l0_segments=[_read_segment(segment) for segment in node.nodes("l0_segments")],
        indexes=[
            Index(i.string("field_name"), i.string("index_name"), i.string("index_type"), i.strings("params"), i.integer("index_id"))
            for i in node.nodes("index_infos")
        ],
        load_state=node.string("load_state") or "NotLoad",
        properties=properties,
        aliases=node.items("aliases", str),
        database_id=node.integer("db_id"),
        created_timestamp=node.integer("created_timestamp", high=MAX_UINT64),
        virtual_channels=node.items("virtual_channel_names", str),
        physical_channels=node.items("physical_channel_names", str),
        backup_timestamp=node.integer("backup_timestamp", high=MAX_UINT64),
        backup_physical_timestamp=node.integer("backup_physical_timestamp", high=MAX_UINT64),
        channel_checkpoints=node.strings("channel_checkpoints"),
    )


def _read_partition(node: Node, segments: list[Node]) -> Partition:
    if not node.string("partition_name"):
        raise node.wrong("partition_name", "a partition name")
    return Partition(
        _id(node, "partition_id"), node.string("partition_name"), [_read_segment(segment) for segment in segments], node.string("load_state")
    )


def _read_segment(node: Node) -> Segment:
    return Segment(
        segment_id=_id(node, "segment_id"),
        partition_id=node.integer("partition_id", low=layout.ALL_PARTITIONS),
        rows=node.integer("num_of_rows"),
        inserts=_read_logs(node, "binlogs"),
        deltas=_read_logs(node, "deltalogs"),
        group_id=node.integer("group_id") or None,
        is_l0=node.boolean("is_l0") or node.integer("partition_id", low=layout.ALL_PARTITIONS) == layout.ALL_PARTITIONS,
        v_channel=node.string("v_channel"),
        storage_version=node.integer("storage_version"),
    )


def _read_logs(segment: Node, key: str) -> list[FieldLogs]:
    fields = []
    for node in segment.nodes(key):
        logs = [_read_log(log) for log in node.nodes("binlogs")]
        if logs:
            fields.append(FieldLogs(node.integer("fieldID"), logs))
    return fields


def _read_log(node: Node) -> Log:
    log_id = node.integer("log_id")
    if not log_id:
        # Before 0.5.4 only the path says it.
        last = node.string("log_path").rpartition("/")[2]
        if not (last.isascii() and last.isdigit() and len(last) <= 19):
            raise node.wrong("log_path", "a path that ends in a log id")
        log_id = int(last)
    return Log(log_id, node.integer("log_size"))


def _id(node: Node, key: str) -> int:
    value = node.integer(key)
    if not value:
        raise node.wrong(key, "an id")
    return value
