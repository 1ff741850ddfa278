"""What a backup will copy: pairing listed objects with reported segments, and the plan as JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import layout, meta, meta_reader, meta_writer
from .copier import Copy
from .errors import BackupDamaged, ConfigError, SourceChanged
from .jsonreader import Node
from .names import check_backup_name
from .segment_logs import NamedLogs
from .server import ServerSegment
from .store import StoredObject

PLAN_FILE = "plan.json"
PLAN_VERSION = 1

FLUSH, FLUSH_ALL, SKIP_FLUSH, META_ONLY = "flush", "flush_all", "skip_flush", "meta_only"
STRATEGIES = (FLUSH, FLUSH_ALL, SKIP_FLUSH, META_ONLY)


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """Everything that copy and commit need; travels between tasks and workers as JSON."""

    backup: meta.Backup
    strategy: str
    milvus_root: str
    backup_root: str
    #: The id of the finished backup that this one replaces, empty when there is none.
    replaces: str = ""

    def copies(self) -> Iterator[Copy]:
        """Iterate over the objects to copy."""
        for collection in self.backup.collections:
            for segment in collection.segments():
                yield from self.segment_copies(collection.collection_id, segment)

    def segment_copies(self, cid: int, s: meta.Segment) -> Iterator[Copy]:
        """Iterate over the objects to copy for one segment of the collection with this id."""
        binlogs = layout.binlogs_dir(self.backup_root, self.backup.name)
        inserts = layout.segment_dir(binlogs, layout.INSERT, cid, s.partition_id, s.group_id, s.segment_id)
        for fields in s.inserts:
            for log in fields.logs:
                source = layout.source_insert(self.milvus_root, cid, s.partition_id, s.segment_id, fields.field_id, log.log_id)
                yield Copy(source, f"{inserts}{fields.field_id}/{log.log_id}", log.size, log.etag)
        deltas = layout.segment_dir(binlogs, layout.DELTA, cid, s.partition_id, s.group_id, s.segment_id)
        for fields in s.deltas:
            for log in fields.logs:
                source = layout.source_delta(self.milvus_root, cid, s.partition_id, s.segment_id, log.log_id)
                yield Copy(source, f"{deltas}{log.log_id}", log.size, log.etag)

    def to_json(self) -> bytes:
        """Return the plan as JSON."""
        return meta_writer.to_json(
            {
                "version": PLAN_VERSION,
                "strategy": self.strategy,
                "milvus_root": self.milvus_root,
                "backup_root": self.backup_root,
                "replaces": self.replaces,
                "etags": [copy.etag for copy in self.copies()],
                "full_meta": meta_writer.full_meta(self.backup, self.milvus_root),
            }
        )

    @classmethod
    def from_json(cls, content: bytes) -> BackupPlan:
        """Return the plan that :meth:`to_json` wrote; raises BackupDamaged for anything else."""
        root = Node.parse(content, PLAN_FILE)
        if root.integer("version") != PLAN_VERSION:
            raise root.wrong("version", str(PLAN_VERSION))
        backup = meta_reader.from_document(Node(root.value.get("full_meta"), f"{PLAN_FILE}.full_meta"))
        try:
            check_backup_name(backup.name)
            milvus_root, backup_root = (layout.clean_root(root.string(key)) for key in ("milvus_root", "backup_root"))
        except ConfigError as error:
            raise BackupDamaged(f"{PLAN_FILE} cannot be trusted: {error}") from None
        segments = [segment for collection in backup.collections for segment in collection.segments()]
        etags, objects = root.items("etags", str), sum(segment.objects for segment in segments)
        if len(etags) != objects:
            raise BackupDamaged(f"{PLAN_FILE} names {objects:,} objects and {len(etags):,} ETags; delete the unfinished backup")
        remaining = iter(etags)
        for segment in segments:
            for fields in (*segment.inserts, *segment.deltas):
                fields.logs[:] = [meta.Log(log.log_id, log.size, next(remaining)) for log in fields.logs]
        return cls(backup, root.string("strategy"), milvus_root, backup_root, root.string("replaces"))


def pair(
    segments: Iterable[ServerSegment],
    inserts: Iterable[StoredObject],
    deltas: Iterable[StoredObject],
    root: str,
    named: Mapping[int, NamedLogs] | None = None,
    *,
    levels: bool = True,
) -> list[meta.Segment]:
    """Return the segments with their files, in id order; objects of segments that Milvus does not report are left out.

    Raises SourceChanged that names the segment when its fields have different numbers of files, or when it has rows and no files.

    :param named: what Milvus says belongs to each segment; other objects in their directories are left out too
    :param levels: whether Milvus says which segments are L0; those of 2.4.0 to 2.4.6 are known by having delta logs alone
    """
    reported = {segment.segment_id: segment for segment in segments}
    insert_logs: dict[int, dict[int, list[meta.Log]]] = {}
    delta_logs: dict[int, list[meta.Log]] = {}
    for item in inserts:
        if (ids := layout.parse_insert(root, item.key)) and _belongs(reported, ids[2], ids[1]):
            insert_logs.setdefault(ids[2], {}).setdefault(ids[3], []).append(meta.Log(ids[4], item.size, item.etag))
    for item in deltas:
        if (delta_ids := layout.parse_delta(root, item.key)) and _belongs(reported, delta_ids[2], delta_ids[1]):
            delta_logs.setdefault(delta_ids[2], []).append(meta.Log(delta_ids[3], item.size, item.etag))
    if named is not None:
        for segment_id in reported:
            _keep_named(segment_id, named[segment_id], insert_logs.setdefault(segment_id, {}), delta_logs)
    paired = []
    for segment_id in sorted(reported):
        segment = reported[segment_id]
        fields = insert_logs.get(segment_id, {})
        _check_files(segment, fields)
        if not fields and segment_id not in delta_logs:
            continue
        paired.append(
            meta.Segment(
                segment_id=segment_id,
                partition_id=segment.partition_id,
                rows=segment.rows,
                inserts=[meta.FieldLogs(field_id, sorted(logs)) for field_id, logs in sorted(fields.items())],
                deltas=[meta.FieldLogs(0, sorted(delta_logs[segment_id]))] if segment_id in delta_logs else [],
                group_id=None if segment.partition_id == layout.ALL_PARTITIONS else segment_id,
                is_l0=segment.is_l0 or segment.partition_id == layout.ALL_PARTITIONS or not (levels or segment.rows or fields),
                v_channel=(named[segment_id].v_channel if named else "") or segment.v_channel,
                storage_version=segment.storage_version,
            )
        )
    return paired


def _keep_named(segment_id: int, named: NamedLogs, inserts: dict[int, list[meta.Log]], deltas: dict[int, list[meta.Log]]) -> None:
    """Keep the logs that Milvus names; raises SourceChanged when one of them is not in the bucket."""
    missing = []
    for field_id in {*inserts, *named.inserts}:
        wanted = named.inserts.get(field_id, frozenset())
        inserts[field_id] = [log for log in inserts.get(field_id, []) if log.log_id in wanted]
        missing += sorted(wanted - {log.log_id for log in inserts[field_id]})
        if not wanted:
            del inserts[field_id]
    kept = [log for log in deltas.pop(segment_id, []) if log.log_id in named.deltas]
    missing += sorted(named.deltas - {log.log_id for log in kept})
    if kept:
        deltas[segment_id] = kept
    if missing:
        raise SourceChanged(
            f"Milvus names logs {missing[:5]} of segment {segment_id}, which are not in its directory; it was just compacted"
        )


def _belongs(reported: dict[int, ServerSegment], segment_id: int, partition_id: int) -> bool:
    segment = reported.get(segment_id)
    return segment is not None and segment.partition_id == partition_id


def _check_files(segment: ServerSegment, fields: dict[int, list[Any]]) -> None:
    if segment.rows and not fields and not segment.is_l0:
        raise SourceChanged(f"segment {segment.segment_id} has {segment.rows:,} rows in Milvus and no insert binlogs in the bucket")
    counts = {len(logs) for logs in fields.values()}
    if len(counts) > 1:
        by_field = ", ".join(f"field {field_id}: {len(logs)}" for field_id, logs in sorted(fields.items()))
        raise SourceChanged(
            f"segment {segment.segment_id} has different numbers of binlogs per field ({by_field}); Milvus could not import it again. "
            "An unfinished write leaves such files; flush or compact the collection and back up again"
        )
