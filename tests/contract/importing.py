"""What an import job reads: files below prefixes, by the rules of one version. Nothing here changes a model.

``internal/datacoord/import_util.go`` pairs, ``internal/util/importutilv2/binlog/util.go`` lists and verifies, ``filter.go`` and
``reader.go`` beside it read.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import schemas
from .binlogs import BadObject, Column, Delete, read_column_group, read_delta_log, read_insert_log
from .buckets import Bucket, children
from .profiles import Profile
from .refusals import import_failed
from .state import Row

_FOREVER = 2**64 - 1
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
#: 2019 to 9999 in milliseconds (``pkg/util/tsoutil``, IsValidHybridTs).
_PHYSICAL = range(1_546_300_800_000, 253_402_300_799_001)


class ImportFile(NamedTuple):
    """One thing an import task reads: the directory of a segment's insert logs, maybe that of its delta logs; or an L0 prefix."""

    paths: tuple[str, ...]

    @property
    def name(self) -> str:
        """As jobs' details name it."""
        return f"[{' '.join(self.paths)}]"


class Options(NamedTuple):
    """The options of a job that say what it reads."""

    backup: bool
    l0_import: bool
    storage_version: int
    skips_quota: bool
    raw: Mapping[str, str]


def parse_options(raw: Mapping[str, str], profile: Profile) -> Options:
    """Return the options; unknown ones are ignored, and whatever is not ``true`` is false (``importutilv2/option.go``)."""
    version = raw.get("storage_version", "")
    number = int(version) if version.isdigit() else 1
    backup, l0_import, skip = (raw.get(key, "").lower() == "true" for key in ("backup", "l0_import", "skip_disk_quota_check"))
    return Options(
        backup=backup,
        l0_import=l0_import,
        skips_quota=skip and (backup or (l0_import and profile.l0_skips_quota)),
        storage_version=number if number in profile.import_storage_versions else 1,
        raw=raw,
    )


def timeout(raw: Mapping[str, str]) -> float:
    """Return the seconds a job may take, infinity unless it is said; raises Refusal for what is no Go duration."""
    if "timeout" not in raw:
        return float("inf")
    parts = re.findall(r"([0-9.]+)(ms|us|µs|ns|s|m|h)", raw["timeout"])
    if not parts or "".join(number + unit for number, unit in parts) != raw["timeout"]:
        raise import_failed(f'parse timeout failed, err=time: invalid duration "{raw["timeout"]}"')
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def time_range(raw: Mapping[str, str], profile: Profile) -> tuple[int, int]:
    """Return the timestamps a job reads from and to, both included; raises BadObject, for only the tasks look at them."""

    def parsed(default: int, *names: str) -> int:
        for key, value in raw.items():
            if key.lower() not in [name.lower() for name in names]:
                continue
            if not re.fullmatch(r"[0-9]+", value):
                raise BadObject(f"parse {names[0]} failed, value={value}, err=strconv.ParseUint: invalid syntax")
            if not profile.hybrid_end_ts:
                return (int(value) << 18) & _FOREVER  # of milliseconds; anything else overflows silently
            if int(value) >> 18 not in _PHYSICAL:
                raise BadObject(f"{names[0]} is not a valid hybrid timestamp, value={value}")
            return int(value)
        return default

    start, end = parsed(0, "start_ts", "startTs"), parsed(_FOREVER, "end_ts", "endTs")
    if start > end:
        raise BadObject(f"start_ts shouldn't be larger than end_ts, start_ts:{start}, end_ts:{end}")
    return start, end


# ---- listing -----------------------------------------------------------------------------------------------------------------------


def segment_files(bucket: Bucket, files: Sequence[Sequence[str]], profile: Profile) -> list[ImportFile]:
    """Return the segments below pairs of prefixes: what is right below the first, with what has the same base name below the second.

    Raises Refusal when there is none, or too many. Prefixes are listed as strings: one without its slash lists its siblings, too.
    """
    shown = "[" + " ".join("paths:" + " paths:".join(f'"{path}"' for path in paths) for paths in files) + "]"
    for paths in files:
        if len(paths) > 2:
            inner = import_failed(
                f"too many input paths for binlog import. Valid paths length should be one or two, but got paths:[{' '.join(paths)}]"
            )
            raise inner if profile.two_phase else import_failed(f"list binlogs failed, err={inner.reason}")
    found = []
    for paths in files:
        deltas = {_base(path): path for path in children(bucket, paths[1])} if len(paths) > 1 else {}
        for segment in children(bucket, paths[0]):
            delta = deltas.get(_base(segment))
            found.append(ImportFile((segment, delta) if delta is not None else (segment,)))
    if not found:
        raise import_failed(f"no binlog to import, input={shown}")
    check_count(len(found), profile)
    return found


def check_count(number: int, profile: Profile) -> None:
    """Raise Refusal for more files than one job may have."""
    if number > profile.max_files:
        raise import_failed(f"The max number of import files should not exceed {profile.max_files}, but got {number}")


def _base(path: str) -> str:
    return posixpath.basename(path.rstrip("/"))


def list_insert_logs(bucket: Bucket, prefix: str) -> dict[int, list[str]]:
    """Return the keys below a segment by the directory they are in, which must be a number."""
    logs: dict[int, list[str]] = {}
    for key in bucket.list(prefix):
        directory = _base(posixpath.dirname(key))
        if not re.fullmatch(r"-?[0-9]+", directory):
            raise BadObject(f'failed to parse field id from log, error: strconv.ParseInt: parsing "{directory}": invalid syntax')
        logs.setdefault(int(directory), []).append(key)
    return {directory: sorted(keys) for directory, keys in sorted(logs.items())}


def verify(schema: Any, logs: Mapping[int, Sequence[str]], version: int, profile: Profile) -> None:
    """Raise BadObject for a segment whose logs are not those of the schema."""
    missing = [field for field in schemas.all_fields(schema) if field.fieldID not in logs]
    if profile.all_fields_required and missing:
        raise BadObject(f"no binlog for field:{missing[0].name}")
    if version == 2:
        required = {0: "system fields"}
    else:
        required = {schemas.TIMESTAMP: "Timestamp field"} | ({} if profile.two_phase else {schemas.ROW_ID: "RowID field"})
    for directory, what in sorted(required.items()):
        if directory not in logs:
            raise BadObject(f"no binlog for {what}")
    first = schemas.ROW_ID if schemas.ROW_ID in logs else schemas.TIMESTAMP
    for field_id, keys in logs.items():
        if len(keys) != len(logs[first]):
            raise BadObject(f"misaligned binlog count, field{field_id}:{len(keys)}, field{first}:{len(logs[first])}")
    members = {field.fieldID for struct in schema.struct_array_fields for field in struct.fields}
    for field in missing:
        optional = field.is_dynamic or field.nullable or field.HasField("default_value")
        if field.data_type in schemas.VECTORS if version == 2 else field.fieldID in members or not optional:
            raise BadObject(f"no binlog for {'struct ' if field.fieldID in members and version != 2 else ''}field:{field.name}")


# ---- reading -----------------------------------------------------------------------------------------------------------------------


def read_segment(bucket: Bucket, schema: Any, file: ImportFile, options: Options, profile: Profile) -> list[Row]:
    """Return the rows of one segment: without those its delta logs delete, and within the job's time range; raises BadObject."""
    start, end = time_range(options.raw, profile)
    version = options.storage_version
    if version == 3:
        raise BadObject("StorageV3 backup import requires an exact manifest from a snapshot source")
    logs = list_insert_logs(bucket, file.paths[0])
    verify(schema, logs, version, profile)
    deleted: dict[Any, int] = {}
    for delete in read_deletes(bucket, file.paths[1]) if len(file.paths) > 1 else []:
        if start <= delete.ts <= end:
            deleted[delete.pk] = max(delete.ts, deleted.get(delete.pk, 0))
    known = {field.fieldID: field for field in schemas.all_fields(schema)}
    key = schemas.primary_key(schema).fieldID
    rows = []
    for position in range(len(next(iter(logs.values())))):
        columns = [column for keys in logs.values() for column in _read(bucket, keys[position], version)]
        by_id = {column.field_id: column for column in columns}
        if key not in by_id:
            raise BadObject(f"no binlog for field:{schemas.primary_key(schema).name}")
        for field_id, column in by_id.items():
            if field_id in known:
                schemas.check_column(known[field_id], column)
        stamps = by_id[schemas.TIMESTAMP].values
        if {len(column.values) for column in columns} != {len(stamps)}:
            raise BadObject("imported rows are not aligned between fields")
        ids = by_id[schemas.ROW_ID].values if schemas.ROW_ID in by_id else [0] * len(stamps)
        for i, ts in enumerate(stamps):
            values = {field_id: by_id[field_id].values[i] for field_id in known if field_id in by_id}
            if start <= ts <= end and deleted.get(values[key], 0) <= ts:
                rows.append(Row(values[key], ts, ids[i], values))
    return rows


def _read(bucket: Bucket, key: str, version: int) -> list[Column]:
    content = _get(bucket, key)
    return read_column_group(content, key) if version == 2 else [read_insert_log(content, key)]


def read_deletes(bucket: Bucket, prefix: str) -> list[Delete]:
    """Return what all delta logs below a prefix delete; raises BadObject."""
    return [delete for key in bucket.list(prefix) for delete in read_delta_log(_get(bucket, key), key)]


def _get(bucket: Bucket, key: str) -> bytes:
    try:
        return bucket.get(key)
    except KeyError:
        raise BadObject(f"failed to open binlog {key}: key not found") from None


def read_l0(bucket: Bucket, files: Sequence[ImportFile], options: Options, profile: Profile) -> list[Delete]:
    """Return what an ``l0_import`` deletes; raises BadObject.

    A task of 2.4 to 2.6.4 reads one prefix and fails when it gets more (``internal/datanode/importv2/task_l0_preimport.go``).
    """
    start, end = time_range(options.raw, profile)
    if len(files) != 1 and not profile.many_l0_prefixes:
        raise BadObject(f"there should be one prefix for l0 import, but got [{' '.join(file.name for file in files)}]")
    deletes = []
    for file in files:
        if len(file.paths) != 1:
            raise BadObject(f"there should be one prefix, but got {file.name}")
        # Only the reader of several prefixes looks at the time (internal/util/importutilv2/binlog/l0_reader.go).
        found = read_deletes(bucket, file.paths[0])
        deletes += [delete for delete in found if start <= delete.ts <= end] if profile.many_l0_prefixes else found
    return deletes
