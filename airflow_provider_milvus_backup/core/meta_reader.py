"""The meta files of a backup → dataclasses: pure functions.

Reads every generation that ``milvus-backup`` wrote, from 0.1 to HEAD, in binlog format and in that of snapshots, and trusts none of them:
types, ranges and contradictions are checked, and paths are built from ids. The one that is taken from a file, that of a snapshot's
metadata, must have the shape that Milvus gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import layout, rbac, schema, snapshot_plan
from .errors import BackupDamaged, UnsupportedFormat
from .jsonreader import MAX_INT64, MAX_UINT64, Node
from .meta import SNAPSHOT, Backup, Collection, Database, FieldLogs, FlushAll, Index, Log, Partition, Segment, SnapshotBackup
from .names import DEFAULT_DATABASE, CollectionName

#: What there is beside full_meta.json in snapshot format.
_SNAPSHOT_FILES = ("collection_meta.json", "backup_meta.json")


def from_files(files: Mapping[str, bytes]) -> Backup:
    """Return the backup that the meta files describe: full_meta.json where present, else the four level files, in snapshot format two.

    Raises BackupDamaged for anything unreadable and UnsupportedFormat for formats other than binlogs and snapshots.
    """
    if "full_meta.json" in files:
        return from_document(Node.parse(files["full_meta.json"], "full_meta.json"))
    root = Node.parse(files.get("backup_meta.json", b"{}"), "backup_meta.json")
    found_format = _format(root)
    missing = [file for file in (_SNAPSHOT_FILES if found_format == SNAPSHOT else layout.META_FILES[1:]) if file not in files]
    if missing:
        raise BackupDamaged(f"the backup has neither full_meta.json nor {', '.join(missing)}; its meta is incomplete")
    if found_format == SNAPSHOT:
        nodes = Node.parse(files["collection_meta.json"], "collection_meta.json").nodes("infos")
        return _read_backup(root, [_read_collection(node, None, SNAPSHOT) for node in nodes])
    levels = {file: list(Node.parse(files[file], file).nodes("infos")) for file in layout.META_FILES[1:4]}
    segments: dict[tuple[int, int], list[Node]] = {}
    for node in levels["segment_meta.json"]:
        segments.setdefault((node.integer("collection_id"), node.integer("partition_id", low=-1)), []).append(node)
    partitions: dict[int, list[Partition]] = {}
    known_partitions = {(node.integer("collection_id"), node.integer("partition_id")) for node in levels["partition_meta.json"]}
    if lost_ids := {ids for ids in segments if ids[1] != layout.ALL_PARTITIONS} - known_partitions:
        raise BackupDamaged(f"partition_meta.json lacks partition {min(lost_ids)[1]}, of which segment_meta.json names segments")
    for node in levels["partition_meta.json"]:
        ids = (node.integer("collection_id"), node.integer("partition_id"))
        found = segments.get(ids, [])
        if sum(segment.integer("size") for segment in found) < node.integer("size"):
            raise BackupDamaged(f"segment_meta.json lacks segments of partition {ids[1]}, whose size is {node.integer('size'):,} bytes")
        partitions.setdefault(ids[0], []).append(_read_partition(node, found))
    for node in levels["collection_meta.json"]:
        known = {partition.partition_id for partition in partitions.get(node.integer("collection_id"), [])}
        if lost := {partition.integer("partition_id") for partition in node.nodes("partition_backups")} - known:
            raise BackupDamaged(f"partition_meta.json lacks partitions {sorted(lost)} of collection {node.string('collection_name')!r}")
    collections = [_read_collection(node, partitions) for node in levels["collection_meta.json"]]
    warning = "full_meta.json is missing: deletes kept in L0 segments may be lost, and rows they deleted may come back"
    return _read_backup(root, collections, [] if any(c.l0_segments for c in collections) else [warning])


def from_document(root: Node) -> Backup:
    """Return the backup that a full_meta.json document describes."""
    found = _format(root)
    return _read_backup(root, [_read_collection(node, None, found) for node in root.nodes("collection_backups")])


def _format(root: Node) -> str:
    found = root.string("format")
    if found not in ("", SNAPSHOT):
        raise UnsupportedFormat(
            f"backup {root.string('name')!r} was taken in the {found!r} format; this version knows binlog and snapshot format. "
            "Read it with a newer version"
        )
    return found


def _read_backup(root: Node, collections: list[Collection], warnings: list[str] | None = None) -> Backup:
    databases = [
        Database(node.string("db_name") or DEFAULT_DATABASE, node.integer("db_id"), node.pairs("properties"))
        for node in root.nodes("database_backups")
    ]
    _once(root, "collection", (collection.name for collection in collections))
    _once(root, "collection id", (collection.collection_id for collection in collections))
    found = root.value.get("rbac_meta")
    messages = root.strings("flush_all_msgs_base64")
    return Backup(
        root.string("id"),
        root.string("name"),
        root.string("milvus_version"),
        collections,
        databases,
        warnings or [],
        None if found is None else rbac.from_json(found, f"{root.where}.rbac_meta"),
        FlushAll(messages, root.string("control_channel_name"), root.items("physical_channel_names", str)) if messages else None,
        root.string("format"),
    )


def _once(node: Node, what: str, identities: Iterable[object]) -> None:
    seen = set()
    for identity in identities:
        if identity in seen:
            raise BackupDamaged(f"{node.where} holds {what} {identity} twice")
        seen.add(identity)


def _read_collection(node: Node, partitions: Mapping[int, list[Partition]] | None, format_: str = "") -> Collection:
    name = CollectionName(node.string("db_name") or DEFAULT_DATABASE, node.string("collection_name"))
    if not name.collection:
        raise node.wrong("collection_name", "a collection name")
    collection_id = _id(node, "collection_id")
    document = schema.checked(Node(node.value.get("schema"), f"{node.where}.schema"))
    # Releases differ in which of the two places they fill; where both do, the schema is what they restore from.
    in_schema = [(pair["key"], pair["value"]) for pair in document.get("properties", [])]
    properties = list({**dict(node.pairs("properties")), **dict(in_schema)}.items())
    if partitions is None:
        own = [_read_partition(partition, list(partition.nodes("segment_backups"))) for partition in node.nodes("partition_backups")]
    else:
        own = partitions.get(collection_id, [])
    l0_segments = [_read_segment(segment, layout.ALL_PARTITIONS) for segment in node.nodes("l0_segments")]
    _once(node, "partition", (partition.partition_id for partition in own))
    _once(node, "partition", (partition.name for partition in own))
    if format_ == SNAPSHOT and (l0_segments or any(partition.segments for partition in own)):
        raise BackupDamaged(f"{node.where} holds segments, and the backup says that it is in snapshot format")
    _once(node, "segment", (segment.segment_id for segment in (*(s for p in own for s in p.segments), *l0_segments)))
    return Collection(
        collection_id=collection_id,
        name=name,
        schema={**document, "properties": [{"key": key, "value": value} for key, value in properties]},
        shards=node.integer("shards_num", high=2**31 - 1),
        consistency_level=node.integer("consistency_level", high=4),
        partitions=own,
        l0_segments=l0_segments,
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
        snapshot=_read_snapshot(node) if format_ == SNAPSHOT else None,
    )


def _read_snapshot(collection: Node) -> SnapshotBackup | None:
    found = collection.value.get("snapshot_backup")
    if found is None:
        return None
    node = Node(found, f"{collection.where}.snapshot_backup")
    path = node.string("metadata_path")
    if not snapshot_plan.is_metadata_path(path):
        raise node.wrong("metadata_path", f"{snapshot_plan.BUNDLE}/…/snapshots/<collection id>/metadata/<snapshot id>.json")
    return SnapshotBackup(path, node.integer("total_files"), node.integer("total_bytes"))


def _read_partition(node: Node, segments: list[Node]) -> Partition:
    if not node.string("partition_name") or "/" in node.string("partition_name"):
        raise node.wrong("partition_name", "a partition name")
    partition_id = _id(node, "partition_id")
    return Partition(
        partition_id,
        node.string("partition_name"),
        [_read_segment(segment, partition_id) for segment in segments],
        node.string("load_state"),
    )


def _read_segment(node: Node, partition_id: int) -> Segment:
    if (node.integer("partition_id", low=layout.ALL_PARTITIONS) or partition_id) != partition_id:
        raise node.wrong("partition_id", f"that of its partition, {partition_id}")
    inserts = _read_logs(node, "binlogs")
    return Segment(
        segment_id=_id(node, "segment_id"),
        partition_id=partition_id,
        rows=node.integer("num_of_rows"),
        inserts=inserts,
        deltas=_read_logs(node, "deltalogs"),
        group_id=node.integer("group_id") or None,
        is_l0=node.boolean("is_l0") or partition_id == layout.ALL_PARTITIONS or (not inserts and _is_old(node)),
        v_channel=node.string("v_channel"),
        storage_version=node.integer("storage_version"),
    )


def _is_old(segment: Node) -> bool:
    """Return whether a release before 0.5.4 wrote a segment's delta logs: these have no ids. Those before 0.4.15 do not say what is L0."""
    return any(not log.integer("log_id") for node in segment.nodes("deltalogs") for log in node.nodes("binlogs"))


def _read_logs(segment: Node, key: str) -> list[FieldLogs]:
    fields = []
    for node in segment.nodes(key):
        logs = [_read_log(log) for log in node.nodes("binlogs")]
        _once(node, "log", (log.log_id for log in logs))
        if logs:
            fields.append(FieldLogs(node.integer("fieldID"), logs))
    if key == "binlogs":
        _once(segment, "field", (found.field_id for found in fields))
    else:
        _once(segment, "delta log", (log.log_id for found in fields for log in found.logs))
    return fields


def _read_log(node: Node) -> Log:
    log_id = node.integer("log_id")
    if not log_id:
        # Before 0.5.4 only the path says it.
        last = node.string("log_path").rpartition("/")[2]
        if not (last.isascii() and last.isdigit() and len(last) <= 19 and int(last) <= MAX_INT64):
            raise node.wrong("log_path", "a path that ends in a log id")
        log_id = int(last)
    return Log(log_id, node.integer("log_size"))


def _id(node: Node, key: str) -> int:
    value = node.integer(key)
    if not value:
        raise node.wrong(key, "an id")
    return value
