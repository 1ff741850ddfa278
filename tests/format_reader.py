"""Strict reader of backups in the format of milvus-backup HEAD (binlog), independent of the provider it checks."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

META_FILES = ("backup_meta.json", "collection_meta.json", "partition_meta.json", "segment_meta.json", "full_meta.json")


class FormatError(Exception):
    """The backup breaks a promise of the format; the message names the file and the JSON path."""


@dataclass(frozen=True)
class CheckedSegment:
    """One segment: rows, bytes of its objects, log ids per insert field (or column group) and of its deltas."""

    segment_id: int
    rows: int
    size: int
    is_l0: bool
    v_channel: str
    storage_version: int
    insert_logs: Mapping[int, tuple[int, ...]]
    delta_logs: tuple[int, ...]


@dataclass(frozen=True)
class CheckedPartition:
    """One partition; ``segments`` by id, partition-level L0 included; ``rows`` without the deletes of L0."""

    partition_id: int
    name: str
    rows: int
    size: int
    segments: Mapping[int, CheckedSegment]


@dataclass(frozen=True)
class CheckedCollection:
    """One collection; ``fields`` (JSON objects) and ``partitions`` by name, ``l0_segments`` (partition -1) by id."""

    collection_id: int
    db_name: str
    name: str
    rows: int
    size: int
    fields: Mapping[str, Mapping[str, Any]]
    partitions: Mapping[str, CheckedPartition]
    l0_segments: Mapping[int, CheckedSegment]
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class CheckedBackup:
    """A backup that kept every promise; collections by ``(database, name)``; ``raw`` is full_meta without zeros."""

    backup_id: str
    name: str
    size: int
    collections: Mapping[tuple[str, str], CheckedCollection]
    provider_keys: frozenset[str]
    raw: Mapping[str, Any] = field(repr=False)


# Documented keys and JSON types (sheet 2.2 - 2.6). A leaf is str, bool, the range of an integer, the tuple of allowed
# strings, or base64; in the table [x] is a list, {x} an object with free keys, a capital name an object of that row.
_LEAVES: dict[str, Any] = {"str": str, "bool": bool, "b64": base64, "load": ("", "Loaded", "Loading", "NotLoad")}
_LEAVES |= {"i32": range(2**31), "i64": range(2**63), "u64": range(2**64), "zero": range(1), "level": range(5)}
_LEAVES |= {"version": range(-(2**31), 2**31), "partition": range(-1, 2**63)}
_ALWAYS = frozenset({"state_code", "size", "has_index", "log_size"})
_DOCUMENTED = """
KV: key=str value=str Named: name=str
Field: fieldID=i64 name=str description=str data_type=i32 element_type=i32 type_params=[KV] index_params=[KV]
    is_primary_key=bool autoID=bool is_dynamic=bool is_partition_key=bool nullable=bool is_function_output=bool
    default_value_base64=b64
Function: name=str id=i64 description=str type=i32 params=[KV]
    input_field_names=[str] input_field_ids=[i64] output_field_names=[str] output_field_ids=[i64]
Struct: fieldID=i64 name=str description=str fields=[Field]
Schema: name=str description=str autoID=bool fields=[Field] enable_dynamic_field=bool properties=[KV]
    functions=[Function] struct_array_fields=[Struct]
Binlog: log_path=str log_size=i64 log_id=i64 FieldBinlog: fieldID=i64 binlogs=[Binlog]
Segment: segment_id=i64 collection_id=i64 partition_id=partition num_of_rows=i64 binlogs=[FieldBinlog]
    deltalogs=[FieldBinlog] size=i64 group_id=i64 is_l0=bool v_channel=str storage_version=i64
Partition: partition_id=i64 partition_name=str collection_id=i64 size=i64 load_state=load
Index: field_name=str index_name=str index_type=str params={str} index_id=i64 field_id=i64 create_time=u64
    type_params=[KV] index_params=[KV] user_index_params=[KV] is_auto_index=bool
    min_index_version=version max_index_version=version
Collection: id=str collection_id=i64 db_name=str collection_name=str schema=Schema shards_num=i32
    consistency_level=level partition_backups=[Partition] backup_timestamp=u64 size=i64 has_index=bool
    index_infos=[Index] load_state=load backup_physical_timestamp=u64 channel_checkpoints={b64} properties=[KV]
    db_id=i64 created_timestamp=u64 virtual_channel_names=[str] physical_channel_names=[str] aliases=[str]
Grantor: user=Named privilege=Named Grant: role=Named object=Named object_name=str grantor=Grantor db_name=str
User: user=str password=str roles=[Named] PrivilegeGroup: group_name=str privileges=[Named]
RBAC: users=[User] roles=[Named] grants=[Grant] privilege_groups=[PrivilegeGroup]
Database: db_name=str db_id=i64 properties=[KV] ezk=str Channel: name=str position=str
Backup: id=str state_code=zero name=str backup_timestamp=zero size=i64 milvus_version=str
Full: rbac_meta=RBAC rpc_channel_info=Channel database_backups=[Database] flush_all_msgs_base64={b64}
    control_channel_name=str physical_channel_names=[str]
"""


def _specs() -> dict[str, Any]:
    """The documented object of every meta file (sheet 2.7)."""
    rows: dict[str, dict[str, Any]] = {}
    for word in _DOCUMENTED.split():
        if word.endswith(":"):
            row = rows.setdefault(word[:-1], {})
            continue
        key, kind = word.split("=")
        spec = (_LEAVES | rows)[kind.strip("[]{}")]
        row[key] = [spec] if kind[0] == "[" else {"*": spec} if kind[0] == "{" else spec
    partition = rows["Partition"] | {"segment_backups": [rows["Segment"]]}
    tree = rows["Collection"] | {"partition_backups": [partition], "l0_segments": [rows["Segment"]]}
    levels = [{"infos": [rows[level]]} for level in ("Collection", "Partition", "Segment")]
    full = rows["Backup"] | rows["Full"] | {"collection_backups": [tree]}
    return dict(zip(META_FILES, [rows["Backup"], *levels, full], strict=True))


_SPECS = _specs()


@dataclass(frozen=True)
class _At:
    """A place in a meta file; everything that fails, fails at a place."""

    file: str
    steps: tuple[str | int, ...] = ()

    def to(self, *steps: str | int) -> _At:
        return _At(self.file, self.steps + steps)

    def fail(self, problem: str) -> NoReturn:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)
        raise FormatError(f"{self.file}: ${path}: {problem}")

    def same(self, raw: Mapping[str, Any], key: str, expected: Any) -> None:
        if raw.get(key, type(expected)()) != expected:
            self.to(key).fail(f"is {raw.get(key)!r}, expected {expected!r}")

    def need(self, raw: Mapping[str, Any], key: str) -> Any:
        return raw.get(key) or self.to(key).fail("is missing or zero")


def _typed(spec: Any, value: Any, at: _At) -> Any:
    """Check types and keys; return the value without zero-valued keys of structs (both spellings are allowed)."""
    wanted = {dict: dict, list: list, range: int, type: spec}.get(type(spec), str)
    found: object = type(value)
    if found is not wanted:
        at.fail(f"is a {type(value).__name__}, expected {wanted.__name__}")
    if isinstance(spec, range | tuple) and value not in spec:
        at.fail(f"{value!r} is outside its range")
    if (wanted is str and re.search("[\ud800-\udfff]", value)) or (spec is base64 and value != _padded(value)):
        at.fail("is not UTF-8 or not padded standard base64")
    if isinstance(spec, list):
        return [_typed(spec[0], item, at.to(i)) for i, item in enumerate(value)]
    if not isinstance(spec, dict):
        return value
    if "*" in spec:
        return {key: _typed(spec["*"], item, at.to(key)) for key, item in value.items()}
    for key in (value.keys() - spec.keys()) | (_ALWAYS & spec.keys() - value.keys()):
        at.to(key).fail("unknown key: not documented for this object" if key in value else "must always be present")
    typed = {key: _typed(spec[key], item, at.to(key)) for key, item in value.items()}
    return {key: item for key, item in typed.items() if item}


def _padded(text: str) -> str | None:
    try:
        return base64.b64encode(base64.b64decode(text, validate=True)).decode()
    except ValueError:
        return None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError(f"duplicate key among {[key for key, _ in pairs]}")
    return dict(pairs)


def _read_meta(file: str, objects: Mapping[str, int], read: Callable[[str], bytes], prefix: str) -> Any:
    """Sheet 2.1: compact UTF-8 JSON, nothing after it."""
    at, key = _At(file), _join(prefix, "meta", file)
    data = read(key) if key in objects else b""
    if len(data) != objects.get(key):
        at.fail(f"object {key} does not exist or does not have its listed size")
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except ValueError as error:
        at.fail(f"is not UTF-8 JSON: {error}")
    if re.search(r"\s", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        at.fail("is not compact: whitespace outside strings")
    return _typed(_SPECS[file], value, at)


def _join(*parts: object) -> str:
    """Sheet 1.2: Go path.Join; slashes collapse, a leading one stays, empty elements vanish."""
    joined = "/".join(str(part) for part in parts if part != "")
    clean = "/".join(step for step in joined.split("/") if step not in ("", "."))
    return "/" + clean if joined.startswith("/") else clean


class _Tree:
    """Checks the tree of full_meta.json against the objects of the backup."""

    def __init__(self, objects: Mapping[str, int], prefix: str, milvus_root: str) -> None:
        self.objects, self.prefix, self.milvus_root = objects, prefix, milvus_root
        self.listed: set[str] = set()
        self.primary_key = 0

    def collection(self, raw: Mapping[str, Any], backup_id: str, at: _At) -> CheckedCollection:
        at.same(raw, "id", backup_id)
        collection_id, schema = at.need(raw, "collection_id"), at.need(raw, "schema")
        fields = _check_schema(schema, at.to("schema"))
        self.primary_key = next(f["fieldID"] for f in fields.values() if f.get("is_primary_key"))
        if _properties(raw) != _properties(schema):
            at.to("properties").fail("differ from schema.properties")
        items = enumerate(raw.get("partition_backups", []))
        partitions = [self.partition(item, collection_id, at.to("partition_backups", i)) for i, item in items]
        named = {p.name: p for p in partitions}
        if not len(partitions) == len(named) == len({p.partition_id for p in partitions}):
            at.to("partition_backups").fail("a partition name or id is used twice")
        l0 = self.segments(raw.get("l0_segments", []), collection_id, -1, at.to("l0_segments"))
        at.same(raw, "size", size := sum(p.size for p in partitions) + sum(s.size for s in l0.values()))
        db_name, name = raw.get("db_name", "default"), at.need(raw, "collection_name")
        rows = sum(p.rows for p in partitions)
        return CheckedCollection(collection_id, db_name, name, rows, size, fields, named, l0, raw)

    def partition(self, raw: Mapping[str, Any], collection_id: int, at: _At) -> CheckedPartition:
        partition_id, name = at.need(raw, "partition_id"), at.need(raw, "partition_name")
        at.same(raw, "collection_id", collection_id)
        segments = self.segments(raw.get("segment_backups", []), collection_id, partition_id, at.to("segment_backups"))
        at.same(raw, "size", size := sum(s.size for s in segments.values()))
        rows = sum(s.rows for s in segments.values() if not s.is_l0)
        return CheckedPartition(partition_id, name, rows, size, segments)

    def segments(self, listed: list[Any], collection_id: int, partition_id: int, at: _At) -> dict[int, CheckedSegment]:
        found: dict[int, CheckedSegment] = {}
        for i, raw in enumerate(listed):
            at.to(i).same(raw, "collection_id", collection_id)
            at.to(i).same(raw, "partition_id", partition_id)
            segment = self.segment(raw, at.to(i))
            if found.setdefault(segment.segment_id, segment) is not segment:
                at.to(i).fail(f"segment {segment.segment_id} is listed twice")
        return found

    def segment(self, raw: Mapping[str, Any], at: _At) -> CheckedSegment:
        """Sheet 2.4: group id, sizes, L0 or the insert files of every field."""
        segment_id, partition_id = at.need(raw, "segment_id"), raw.get("partition_id", 0)
        at.same(raw, "group_id", 0 if partition_id == -1 else segment_id)
        binlogs, deltalogs = raw.get("binlogs", []), raw.get("deltalogs", [])
        inserts = {e.get("fieldID", 0): self.logs(raw, "binlogs", i, at) for i, e in enumerate(binlogs)}
        if len(inserts) < len(binlogs):
            at.to("binlogs").fail("a field is listed twice")
        deltas = [log for i in range(len(deltalogs)) for log in self.logs(raw, "deltalogs", i, at)]
        sizes = [log.get("log_size", 0) for entry in binlogs + deltalogs for log in entry.get("binlogs", [])]
        at.same(raw, "size", size := sum(sizes))
        is_l0, version = raw.get("is_l0", False), raw.get("storage_version", 0)
        if (is_l0 and inserts) or (partition_id == -1 and not is_l0):
            at.to("is_l0").fail(f"is {is_l0} with partition {partition_id} and {len(inserts)} insert fields")
        if not is_l0:
            self.check_inserts(inserts, version, at.to("binlogs"))
        rest = is_l0, raw.get("v_channel", ""), version, inserts, tuple(deltas)
        return CheckedSegment(segment_id, raw.get("num_of_rows", 0), size, *rest)

    def logs(self, segment: Mapping[str, Any], key: str, index: int, at: _At) -> tuple[int, ...]:
        """Sheet 1.1 and 1.2: the source key in log_path, the object at the key rebuilt from ids, its exact size."""
        entry, kind = segment[key][index], "insert_log" if key == "binlogs" else "delta_log"
        ids = [segment.get(name, 0) for name in ("collection_id", "partition_id", "segment_id")]
        group = [] if ids[1] == -1 else [ids[2]]
        for i, log in enumerate(entry.get("binlogs", [])):
            place = at.to(key, index, "binlogs", i)
            log_id = place.need(log, "log_id")
            tail = [entry.get("fieldID", 0), log_id] if kind == "insert_log" else [log_id]
            place.same(log, "log_path", _join(self.milvus_root, kind, *ids, *tail))
            copy = _join(self.prefix, "binlogs", kind, *ids[:2], *group, ids[2], *tail)
            if copy in self.listed or copy not in self.objects:
                place.fail(f"object {copy} {'is listed twice' if copy in self.listed else 'does not exist'}")
            place.same(log, "log_size", self.objects[copy])
            self.listed.add(copy)
        return tuple(log["log_id"] for log in entry.get("binlogs", []))

    def check_inserts(self, inserts: Mapping[int, tuple[int, ...]], version: int, at: _At) -> None:
        """Sheet 5.5 and 6.4: a data segment has insert logs, the same number for every field, system fields too."""
        counts = {field_id: len(logs) for field_id, logs in inserts.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            at.fail(f"fields have no or different numbers of binlogs: {counts}")
        if version < 2 and not {0, 1, self.primary_key} <= counts.keys():
            at.fail(f"storage v1 needs RowID 0, Timestamp 1 and the primary key; there is {sorted(counts)}")


def _properties(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted((kv.get("key", ""), kv.get("value", "")) for kv in raw.get("properties", []))


def _check_schema(schema: Mapping[str, Any], at: _At) -> dict[str, Mapping[str, Any]]:
    """Sheet 2.5: ids and names unique, no system fields, one primary key, readable default values."""
    fields, structs = schema.get("fields", []), schema.get("struct_array_fields", [])
    places = [(raw, at.to("fields", i)) for i, raw in enumerate(fields)]
    for i, struct in enumerate(structs):
        place = at.to("struct_array_fields", i)
        places += [(raw, place.to("fields", j)) for j, raw in enumerate(struct.get("fields", []))]
        place.need(struct, "name")
    for raw, place in places:
        place.need(raw, "name")
        place.need(raw, "data_type")
        default = base64.b64decode(raw.get("default_value_base64", "CAA="))
        if default[0] not in b"\x08\x10\x18\x25\x29\x32\x3a":
            place.to("default_value_base64").fail("is not a ValueField")
    ids = [raw.get("fieldID", 0) for raw in [raw for raw, _ in places] + structs]
    if {0, 1} & set(ids) or len(set(ids)) < len(ids):
        at.to("fields").fail(f"a fieldID is a system field or used twice: {ids}")
    named = {raw["name"]: raw for raw in fields}
    if len(named) < len(fields) or sum(f.get("is_primary_key", False) for f in fields) != 1:
        at.to("fields").fail("a field name is used twice or there is not exactly one primary key")
    return named


def _check_root(full: Mapping[str, Any], name: str, at: _At) -> None:
    """Sheet 2.2, 5.3 and 8: identity, name rule, and the timestamps of at most one flush strategy."""
    at.need(full, "id")
    at.same(full, "name", name)
    if len(name) > 128 or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        at.to("name").fail(f"{name!r} breaks the naming rule")
    bulk, serial = "flush_all_msgs_base64", {"backup_timestamp", "backup_physical_timestamp", "channel_checkpoints"}
    if bulk in full and any(serial & collection.keys() for collection in full.get("collection_backups", [])):
        at.to(bulk).fail("a collection has timestamps of its own although the flush was a bulk flush")


def _without(items: list[dict[str, Any]], dropped: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in item.items() if key != dropped} for item in items]


def _check_levels(metas: Mapping[str, Any], full: Mapping[str, Any]) -> None:
    """Sheet 2.7: what HEAD's create writes into each level file."""
    flat = _without(full.get("collection_backups", []), "l0_segments")
    partitions = [p for c in flat for p in c.get("partition_backups", [])]
    for raw in flat:
        raw.update({k: _without(v, "segment_backups") for k, v in raw.items() if k == "partition_backups"})
    segments = [s for p in partitions for s in p.get("segment_backups", [])]
    summary = {key: full[key] for key in _SPECS["backup_meta.json"] if key in full}
    _check_equal(metas["backup_meta.json"], summary, _At("backup_meta.json"))
    _check_infos(metas, "collection_meta.json", flat, "collection_id")
    _check_infos(metas, "partition_meta.json", _without(partitions, "segment_backups"), "partition_id")
    _check_infos(metas, "segment_meta.json", segments, "segment_id")


def _check_infos(metas: Mapping[str, Any], file: str, expected: list[dict[str, Any]], key: str) -> None:
    at, wanted = _At(file).to("infos"), {(raw["collection_id"], raw[key]): raw for raw in expected}
    for i, raw in enumerate(metas[file].get("infos", [])):
        identity = (raw.get("collection_id", 0), raw.get(key, 0))
        if identity not in wanted:
            at.to(i).fail(f"{key} {identity[1]} is listed twice or not in the tree of full_meta.json")
        _check_equal(raw, wanted.pop(identity), at.to(i))
    if wanted:
        at.fail(f"{key} {min(wanted)[1]} of full_meta.json is missing")


def _check_equal(found: Any, expected: Any, at: _At) -> None:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            _check_equal(found.get(key), expected.get(key), at.to(key))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, item in enumerate(found):
            _check_equal(item, expected[i], at.to(i))
    elif found != expected:
        at.fail(f"{found!r} differs from full_meta.json, which says {expected!r}")


def check_backup(
    objects: Mapping[str, int], read: Callable[[str], bytes], root: str, name: str, *, milvus_root: str
) -> CheckedBackup:
    """Check the backup ``<root>/<name>`` against the format of HEAD (sheet 0, 1.2, 2 and the checklist of 11).

    ``objects`` maps every key below the backup to its size, ``read`` fetches a meta file, ``milvus_root`` is Milvus'
    ``minio.rootPath``. Raises FormatError at the first broken promise.
    """
    prefix = _join(root, name)
    metas = {file: _read_meta(file, objects, read, prefix) for file in META_FILES}
    full, at = metas["full_meta.json"], _At("full_meta.json")
    _check_root(full, name, at)
    tree, items = _Tree(objects, prefix, milvus_root), enumerate(full.get("collection_backups", []))
    collections = [tree.collection(raw, full["id"], at.to("collection_backups", i)) for i, raw in items]
    named = {(c.db_name, c.name): c for c in collections}
    if not len(collections) == len(named) == len({c.collection_id for c in collections}):
        at.to("collection_backups").fail("a collection name or id is used twice")
    at.same(full, "size", sum(c.size for c in collections))
    _check_levels(metas, full)
    known = tree.listed | {_join(prefix, "meta", file) for file in META_FILES}
    provider = frozenset(key for key in objects if key.startswith(prefix + "/provider/"))
    for key in objects.keys() - known - provider:
        at.fail(f"object {key} is not part of the backup (not in its meta, not under provider/)")
    return CheckedBackup(full["id"], name, full.get("size", 0), named, provider, full)
