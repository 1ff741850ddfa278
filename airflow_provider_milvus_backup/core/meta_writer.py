"""A backup → its five meta files: pure functions.

The format is that of ``milvus-backup`` (``core/proto/backup.proto`` and ``internal/meta`` of ``zilliztech/milvus-backup``): Go's JSON of
protobuf structs, compact, integers as numbers, zero values left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from . import layout, rbac
from .meta import SNAPSHOT, Backup, Collection, FieldLogs, Partition, Segment


def to_files(backup: Backup, milvus_root: str) -> Iterator[tuple[str, bytes]]:
    """Iterate over (file name, content) in the order to write them: the level files, full_meta.json, the commit mark backup_meta.json.

    Every reader goes by full_meta.json where there is one. So a backup that is being replaced stays the old one until this is written, and
    then the new one; the mark follows at once. In snapshot format there is none about partitions and segments. One at a time, because two
    of them name every object. ``milvus_root`` is the root path of the source Milvus, which ``log_path`` records.
    """
    levels = [
        {**_collection(backup, collection), "partition_backups": [_partition(collection, p) for p in collection.partitions]}
        for collection in backup.collections
    ]
    yield "collection_meta.json", to_json({"infos": levels})
    if backup.format != SNAPSHOT:  # where there are no segments, milvus-backup writes no files about them either
        partitions = [(collection, partition) for collection in backup.collections for partition in collection.partitions]
        yield "partition_meta.json", to_json({"infos": [_partition(collection, partition) for collection, partition in partitions]})
        yield (
            "segment_meta.json",
            to_json({"infos": (_segment(collection, s, milvus_root) for collection, partition in partitions for s in partition.segments)}),
        )
    yield "full_meta.json", to_json(full_meta(backup, milvus_root))
    yield "backup_meta.json", to_json(_head(backup))


def full_meta(backup: Backup, milvus_root: str) -> dict[str, Any]:
    """Return the document of full_meta.json, which holds everything, for :func:`to_json`."""
    databases = [_kept({"db_name": d.name, "db_id": d.database_id, "properties": _pairs(d.properties)}) for d in backup.databases]
    collections = (_full_collection(backup, collection, milvus_root) for collection in backup.collections)
    users = {} if backup.rbac is None else {"rbac_meta": rbac.to_json(backup.rbac)}
    return {**_head(backup), "collection_backups": collections, "database_backups": databases, **users, **_flush_all(backup)}


def _flush_all(backup: Backup) -> dict[str, Any]:
    if not (flushed := backup.flush_all):
        return {}
    return _kept(
        {
            "flush_all_msgs_base64": flushed.messages,
            "control_channel_name": flushed.control_channel,
            "physical_channel_names": flushed.physical_channels,
        }
    )


def _full_collection(backup: Backup, c: Collection, root: str) -> dict[str, Any]:
    def segments(found: list[Segment]) -> Iterator[dict[str, Any]] | None:
        return (_segment(c, segment, root) for segment in found) if found else None

    partitions = ({**_partition(c, p), **_kept({"segment_backups": segments(p.segments)})} for p in c.partitions)
    return {**_collection(backup, c), "partition_backups": partitions, **_kept({"l0_segments": segments(c.l0_segments)})}


def to_json(document: dict[str, Any]) -> bytes:
    """Return a document as Go writes it. An iterator in it becomes an array whose items never exist all at once."""
    return b"".join(_pieces(document))


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, Iterator):
        yield b"["
        for index, item in enumerate(value):
            yield b"," if index else b""
            yield from _pieces(item)
        yield b"]"
    elif isinstance(value, dict) and any(isinstance(member, (Iterator, dict)) for member in value.values()):
        for index, (key, member) in enumerate(value.items()):
            yield (b"," if index else b"{") + _piece(key) + b":"
            yield from _pieces(member)
        yield b"}"
    else:
        yield _piece(value)


def _piece(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _head(b: Backup) -> dict[str, Any]:
    head = {"id": b.backup_id, "state_code": 0, "name": b.name, "size": b.size, "milvus_version": b.server_version}
    return {**head, **_kept({"format": b.format})}


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
                "snapshot_backup": None if c.snapshot is None else _kept(asdict(c.snapshot)),
            }
        ),
        "size": c.size,
        "has_index": bool(c.indexes),
    }


def _partition(c: Collection, p: Partition) -> dict[str, Any]:
    kept = _kept({"partition_id": p.partition_id, "partition_name": p.name, "collection_id": c.collection_id, "load_state": p.load_state})
    return {**kept, "size": p.size}


def _segment(c: Collection, s: Segment, root: str) -> dict[str, Any]:
    inserts = [
        _logs(
            fields,
            [layout.source_insert(root, c.collection_id, s.partition_id, s.segment_id, fields.field_id, log.log_id) for log in fields.logs],
        )
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
