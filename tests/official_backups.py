"""Backups as older official milvus-backup releases wrote them, made from a backup in the format of HEAD.

Written from the fact sheet only (sections 2.9 and 10); shares no code with the provider.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_Json = dict[str, Any]
_Version = tuple[int, int, int]

GENERATIONS = (
    "0.3",  # no group_id, no group directory; root backup_timestamp in unix ms; default database unnamed
    "0.4.0-small",  # as 0.3, with errorMessage/start_time/end_time/progress
    "0.4.0-groups",  # group_id 1, 2, ... of a partition, several segments share one group and its directory
    "0.4.13",  # group_id = segment_id; channel_checkpoints and channel_cp_meta.json; no log_id, v_channel, L0
    "0.4.26",  # adds L0, RBAC, nullable and the lossy default_value_proto
    "0.5.4",  # adds database_backups, log_id, v_channel, functions; state_code 1 although finished
    "0.5.9",  # adds default_value_base64, storage_version, properties, struct arrays; last full nesting
    "0.5.10",  # level files stripped, state_code 0; some builds wrote replicas
    "head-levels-only",  # HEAD whose full_meta.json is missing: -1 L0 segments are not in the meta any more
    "l0compact",  # HEAD's other writer: level 2 keeps l0_segments, drops partitions; level 1 has rbac, rpc, dbs
)
SEGMENTS_PER_GROUP = 2
"""How many segments of a partition "0.4.0-groups" puts into one group."""

_VERSIONS: dict[str, _Version] = dict(
    zip(
        GENERATIONS,
        [(0, 3, 0), (0, 4, 0), (0, 4, 0), (0, 4, 13), (0, 4, 26), (0, 5, 4), (0, 5, 9), (0, 5, 10)],
        strict=False,
    )
)
_HEAD: _Version = (0, 6, 0)
_STATES = {"0.5.4": 1, "0.5.10": 0}

# The release that first wrote a key (sheet 10 and 2.*), by the kind of object it belongs to.
_SINCE: dict[str, dict[str, _Version]] = {
    "backup": {
        "rbac_meta": (0, 4, 21),
        "database_backups": (0, 5, 4),
        "rpc_channel_info": (0, 5, 4),
        **dict.fromkeys(("flush_all_msgs_base64", "control_channel_name", "physical_channel_names"), (0, 5, 10)),
    },
    "rbac": {"privilege_groups": (0, 5, 4)},
    "database": {"ezk": (0, 5, 10)},
    "collection": {
        "channel_checkpoints": (0, 4, 13),
        "l0_segments": (0, 4, 15),
        "properties": (0, 5, 7),
        **dict.fromkeys(("db_id", "created_timestamp", "aliases"), (0, 5, 10)),
        **dict.fromkeys(("virtual_channel_names", "physical_channel_names"), (0, 5, 10)),
    },
    "schema": {"functions": (0, 5, 0), "properties": (0, 5, 7), "struct_array_fields": (0, 5, 9)},
    "field": {"nullable": (0, 4, 26), "is_function_output": (0, 5, 0), "default_value_base64": (0, 5, 5)},
    "segment": {"is_l0": (0, 4, 15), "v_channel": (0, 5, 4), "storage_version": (0, 5, 8)},
    "binlog": {"log_id": (0, 5, 4)},
    "index": {"index_id": (0, 5, 10)},
}


def go_json(value: object) -> bytes:
    """Compact UTF-8 JSON with the escapes of Go's encoding/json (sheet 2.1)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def go_lossy(data: bytes) -> str:
    """Bytes put into a Go JSON string: every byte that is not part of valid UTF-8 becomes U+FFFD (sheet 2.5)."""
    text, start = "", 0
    while start < len(data):
        for end in range(start + 1, min(start + 4, len(data)) + 1):
            try:
                char = data[start:end].decode()
            except UnicodeDecodeError:
                continue
            break
        else:
            char, end = "\ufffd", start + 1
        text, start = text + char, end
    return text


def backup_prefix(root: str, name: str) -> str:
    """``<root>/<name>`` as Go's path.Join writes it (sheet 1.2)."""
    clean = "/".join(step for step in f"{root}/{name}".split("/") if step)
    return "/" + clean if root.startswith("/") else clean


def _partitions(full_meta: _Json) -> Iterator[_Json]:
    for collection in full_meta.get("collection_backups", []):
        yield from collection.get("partition_backups", [])


def _segments(full_meta: _Json) -> Iterator[_Json]:
    for partition in _partitions(full_meta):
        yield from partition.get("segment_backups", [])
    for collection in full_meta.get("collection_backups", []):
        yield from collection.get("l0_segments", [])


def _logs(segment: _Json) -> Iterator[tuple[str, list[int], _Json]]:
    """(directory, path elements after the segment, binlog) of every file of a segment."""
    for directory, key in (("insert_log", "binlogs"), ("delta_log", "deltalogs")):
        for entry in segment.get(key, []):
            middle = [entry.get("fieldID", 0)] if key == "binlogs" else []
            for log in entry.get("binlogs", []):
                log_id = int(log["log_path"].rsplit("/", 1)[1])
                yield directory, [*middle, log_id], log


def object_sizes(full_meta: _Json, root: str, name: str) -> dict[str, int]:
    """Size by key of every data object the meta lists, at the keys its group ids say (sheet 1.2)."""
    found = {}
    for segment in _segments(full_meta):
        ids = [segment[key] for key in ("collection_id", "partition_id")]
        group = [segment["group_id"]] if segment.get("group_id") else []
        for directory, tail, log in _logs(segment):
            steps = [directory, *ids, *group, segment["segment_id"], *tail]
            found["/".join([backup_prefix(root, name), "binlogs", *map(str, steps)])] = log.get("log_size", 0)
    return found


def _objects(full_meta: _Json) -> Iterator[tuple[str, _Json]]:
    """Every object of the tree with its kind in ``_SINCE``."""
    yield "backup", full_meta
    yield "rbac", full_meta.get("rbac_meta", {})
    yield from (("database", database) for database in full_meta.get("database_backups", []))
    for collection in full_meta.get("collection_backups", []):
        schema = collection.get("schema", {})
        yield from (("collection", collection), ("schema", schema))
        yield from (("index", index) for index in collection.get("index_infos", []))
        for owner in (schema, *schema.get("struct_array_fields", [])):
            yield from (("field", field) for field in owner.get("fields", []))
    for segment in _segments(full_meta):
        yield "segment", segment
        yield from (("binlog", log) for _, _, log in _logs(segment))


def _forget_newer_keys(full_meta: _Json, version: _Version) -> None:
    for kind, owner in list(_objects(full_meta)):
        if kind == "field" and (0, 4, 26) <= version < (0, 5, 5) and "default_value_base64" in owner:
            owner["default_value_proto"] = go_lossy(base64.b64decode(owner["default_value_base64"]))
        for key, since in _SINCE[kind].items():
            if version < since:
                owner.pop(key, None)


def _drop_l0(full_meta: _Json) -> None:
    """Releases before 0.4.15 knew no L0: neither the segments nor their files are in such a backup."""
    for collection in full_meta.get("collection_backups", []):
        collection.pop("l0_segments", None)
    for partition in _partitions(full_meta):
        kept = [s for s in partition.get("segment_backups", []) if not s.get("is_l0")]
        partition["segment_backups"] = kept
    _add_up(full_meta)


def _add_up(full_meta: _Json) -> None:
    for partition in _partitions(full_meta):
        partition["size"] = sum(s.get("size", 0) for s in partition.get("segment_backups", []))
    for collection in full_meta.get("collection_backups", []):
        parts = collection.get("partition_backups", []) + collection.get("l0_segments", [])
        collection["size"] = sum(part.get("size", 0) for part in parts)
    full_meta["size"] = sum(c.get("size", 0) for c in full_meta.get("collection_backups", []))


def _regroup(full_meta: _Json, generation: str) -> None:
    """Sheet 10: no group, groups shared by several segments, or one group per segment."""
    for partition in _partitions(full_meta):
        for i, segment in enumerate(partition.get("segment_backups", [])):
            if generation == "0.4.0-groups":
                segment["group_id"] = i // SEGMENTS_PER_GROUP + 1
            elif generation in ("0.3", "0.4.0-small"):
                segment.pop("group_id", None)


def _add_old_keys(full_meta: _Json, generation: str, version: _Version) -> None:
    full_meta["state_code"] = _STATES.get(generation, 2)
    if generation == "0.3":
        full_meta["backup_timestamp"] = 1_700_000_000_000
        for collection in full_meta.get("collection_backups", []):
            if collection.get("db_name") == "default":
                del collection["db_name"]
    if (0, 4, 0) <= version < (0, 5, 10):
        values = ("", 1_700_000_000_000, 1_700_000_060_000, 100)  # Go omits the empty errorMessage
        full_meta.update(zip(_OLD_LEVEL_1, values, strict=True))
    if version < (0, 5, 4):  # list-file mode: always one entry, possibly empty
        for segment in _segments(full_meta):
            segment["deltalogs"] = segment.get("deltalogs") or [{}]
    if version == (0, 5, 10):
        for collection in full_meta.get("collection_backups", []):
            collection["replicas"] = 1


def _without(items: list[_Json], *keys: str) -> list[_Json]:
    return [{key: value for key, value in item.items() if key not in keys} for item in items]


def _stripped(full_meta: _Json) -> list[_Json]:
    """Level 2 of 0.5.10 and HEAD (sheet 2.7)."""
    found = _without(full_meta.get("collection_backups", []), "l0_segments")
    for raw in found:
        raw["partition_backups"] = _without(raw.get("partition_backups", []), "segment_backups")
    return found


def _nested(full_meta: _Json) -> list[_Json]:
    """Level 2 until 0.5.9: everything."""
    return list(full_meta.get("collection_backups", []))


def _compacted(full_meta: _Json) -> list[_Json]:
    """Level 2 of l0compact: with l0_segments, without partitions."""
    return _without(full_meta.get("collection_backups", []), "partition_backups")


_OLD_LEVEL_1 = ("errorMessage", "start_time", "end_time", "progress")
_LEVEL_1 = ("id", "state_code", *_OLD_LEVEL_1, "name", "backup_timestamp", "size", "milvus_version", "format")
_L0COMPACT_LEVEL_1 = tuple(_SINCE["backup"])


def _meta_files(
    full_meta: _Json, prefix: str, level_2: Callable[[_Json], list[_Json]], more_level_1: tuple[str, ...] = ()
) -> dict[str, bytes]:
    partitions = list(_partitions(full_meta))
    files: dict[str, object] = {
        "full_meta.json": full_meta,
        "segment_meta.json": {"infos": [s for p in partitions for s in p.get("segment_backups", [])]},
        "partition_meta.json": {"infos": _without(partitions, "segment_backups")},
        "collection_meta.json": {"infos": level_2(full_meta)},
        "backup_meta.json": {key: full_meta[key] for key in (*_LEVEL_1, *more_level_1) if key in full_meta},
    }
    return {f"{prefix}/meta/{file}": go_json(value) for file, value in files.items()}


def head_files(full_meta: _Json, root: str, name: str) -> dict[str, bytes]:
    """The five meta files of HEAD's create, by key (sheet 2.7)."""
    return _meta_files(full_meta, backup_prefix(root, name), _stripped)


def rewrite(full_meta: _Json, generation: str, root: str, name: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """The backup as ``generation`` wrote it: meta file key -> bytes, and new object key -> HEAD object key.

    The HEAD backup is ``<root>/<full_meta["name"]>``, the result ``<root>/<name>``. Generations before 0.4.15 lose
    their L0 segments, as they knew none. "l0compact" changes only the files; nothing is folded.
    """
    if generation not in GENERATIONS:
        raise ValueError(f"unknown generation {generation!r}")
    prefix, version = backup_prefix(root, name), _VERSIONS.get(generation, _HEAD)
    meta = copy.deepcopy(full_meta) | {"name": name}
    if version < (0, 4, 15):
        _drop_l0(meta)
    sources = list(object_sizes(meta, root, full_meta["name"]))
    _regroup(meta, generation)
    objects = dict(zip(object_sizes(meta, root, name), sources, strict=True))
    _forget_newer_keys(meta, version)
    if version < _HEAD:
        _add_old_keys(meta, generation, version)
    files = _meta_files(meta, prefix, _nested if version < (0, 5, 10) else _stripped)
    if generation == "l0compact":
        files = _meta_files(meta, prefix, _compacted, _L0COMPACT_LEVEL_1)
    if generation == "head-levels-only":
        del files[f"{prefix}/meta/full_meta.json"]
    if (0, 4, 13) <= version <= (0, 5, 9):
        points = [c.get("channel_checkpoints", {}) for c in meta.get("collection_backups", [])]
        files[f"{prefix}/meta/channel_cp_meta.json"] = go_json({k: v for point in points for k, v in point.items()})
    return files, objects


@dataclass(frozen=True)
class Synthetic:
    """A HEAD backup without a server: its full_meta and the size by key of its data objects."""

    full_meta: _Json
    objects: Mapping[str, int]
    root: str
    name: str
    milvus_root: str

    def files(self) -> dict[str, bytes]:
        """The five meta files as HEAD writes them."""
        return head_files(self.full_meta, self.root, self.name)


_BACKUP_ID = "7c1f2f0e-6f5f-4a55-9a0d-0d6f6f7f2a11"
_BASE = 455_000_000_000_000_000
_POSITION = b"\n+%b\x12\x04\x08\x10\x18\x00 \x81\xe0\xee\x84\x95\xea\xa1\xa8\x06"
_SIZES = {0: 389, 1: 401, 100: 802, 101: 4096}


def _log(milvus_root: str, directory: str, ids: list[int], size: int) -> _Json:
    path = "/".join([*filter(None, milvus_root.split("/")), directory, *map(str, ids)])
    return {"log_path": path, "log_size": size, "log_id": ids[-1]}


def _synthetic_segment(milvus_root: str, channel: str, ids: list[int], first_log: int) -> _Json:
    logs = [_log(milvus_root, "insert_log", [*ids, f, first_log + i], _SIZES[f]) for i, f in enumerate(_SIZES)]
    binlogs = [{"fieldID": f, "binlogs": [log]} for f, log in zip(_SIZES, logs, strict=True)]
    del binlogs[0]["fieldID"]  # the row id column is field 0, omitted as every zero
    deltas = [{"binlogs": [_log(milvus_root, "delta_log", [*ids, first_log + len(_SIZES)], 512)]}]
    size = sum(_SIZES.values()) + 512
    segment: _Json = {"segment_id": ids[2], "collection_id": ids[0], "partition_id": ids[1], "num_of_rows": 100}
    segment |= {"binlogs": binlogs, "deltalogs": deltas, "size": size, "group_id": ids[2], "v_channel": channel}
    return segment


def _synthetic_l0(milvus_root: str, channel: str, ids: list[int], log_id: int) -> _Json:
    deltas = [{"binlogs": [_log(milvus_root, "delta_log", [*ids, log_id], 640)]}]
    segment: _Json = {"segment_id": ids[2], "collection_id": ids[0], "partition_id": ids[1], "num_of_rows": 3}
    segment |= {"deltalogs": deltas, "size": 640, "is_l0": True, "v_channel": channel}
    return segment if ids[1] == -1 else segment | {"group_id": ids[2]}


def _synthetic_collection(number: int, channel: str, partitions: list[_Json], l0: list[_Json]) -> _Json:
    base, name = _BASE + number * 1_000_000, f"docs{number or ''}"
    properties = [{"key": "collection.ttl.seconds", "value": "86400"}]
    vector = {"fieldID": 101, "name": "vec", "data_type": 101, "type_params": [{"key": "dim", "value": "8"}]}
    fields = [{"fieldID": 100, "name": "pk", "is_primary_key": True, "data_type": 5}, vector]
    params = {"M": "16", "efConstruction": "200", "index_type": "HNSW", "metric_type": "L2"}
    index = {"field_name": "vec", "index_name": "vec", "index_type": "HNSW", "params": params, "index_id": base + 150}
    return {
        "id": _BACKUP_ID,
        "collection_id": base + 100,
        "db_name": "default",
        "collection_name": name,
        "schema": {"name": name, "description": "tiny demo", "fields": fields, "properties": properties},
        "shards_num": 1,
        "consistency_level": 2,
        "partition_backups": partitions,
        "backup_timestamp": 455_012_345_678_901_249,
        "size": 0,
        "has_index": True,
        "index_infos": [index],
        "load_state": "Loaded",
        "backup_physical_timestamp": 1_735_689_600,
        "channel_checkpoints": {channel: base64.b64encode(_POSITION % channel.encode()).decode()},
        **({"l0_segments": l0} if l0 else {}),
        "properties": copy.deepcopy(properties),
        "db_id": 1,
        "created_timestamp": 455_012_000_000_000_004,
        "virtual_channel_names": [channel],
        "physical_channel_names": [channel.rsplit("_", 1)[0]],
        "aliases": [f"{name}_live"],
    }


def _synthetic_tree(number: int, partitions: int, segments: int, l0: bool, partition_l0: bool, root: str) -> _Json:
    base = _BASE + number * 1_000_000
    collection, channel, found = base + 100, f"by-dev-rootcoord-dml_3_{base + 100}v0", []
    for i in range(partitions):
        ids = [collection, base + 101 + i]
        units = [1000 * i + 10 * j for j in range(segments)]
        rows = [_synthetic_segment(root, channel, [*ids, base + 201 + u], base + 1202 + u) for u in units]
        if partition_l0:
            rows.append(_synthetic_l0(root, channel, [*ids, base + 205 + 1000 * i], base + 1208 + 1000 * i))
        partition = {"partition_id": ids[1], "partition_name": f"part{i}" if i else "_default", "collection_id": ids[0]}
        found.append(partition | {"segment_backups": rows, "size": 0, "load_state": "Loaded"})
    all_l0 = [_synthetic_l0(root, channel, [collection, -1, base + 203], base + 1204)] if l0 else []
    return _synthetic_collection(number, channel, found, all_l0)


def synthetic(
    *,
    collections: int = 1,
    partitions: int = 1,
    segments: int = 1,
    l0: bool = True,
    partition_l0: bool = False,
    root: str = "backup",
    name: str = "demo",
    milvus_root: str = "files",
) -> Synthetic:
    """The example of sheet section 3, exactly, with the defaults; otherwise more of the same with distinct ids.

    ``l0`` adds a segment of partition -1 per collection, ``partition_l0`` an L0 segment per partition; ``partitions``
    counts per collection and ``segments`` per partition.
    """
    trees = [_synthetic_tree(i, partitions, segments, l0, partition_l0, milvus_root) for i in range(collections)]
    databases = [{"db_name": "default", "db_id": 1}]
    meta: _Json = {"id": _BACKUP_ID, "state_code": 0, "name": name, "collection_backups": trees, "size": 0}
    meta |= {"milvus_version": "2.5.20", "database_backups": databases}
    _add_up(meta)
    return Synthetic(meta, object_sizes(meta, root, name), root, name, milvus_root)
