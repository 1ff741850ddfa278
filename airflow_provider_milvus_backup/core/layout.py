"""Every key in both buckets: pure functions.

The source layout is that of Milvus with storage v1 (``insert_log/<collection>/<partition>/<segment>/<field>/<log>``), the backup
layout that of ``milvus-backup`` (one more directory, the group, between partition and segment). Both are described in
``docs`` of ``milvus-io/milvus`` and ``internal/storage/mpath`` of ``zilliztech/milvus-backup``.
"""

from __future__ import annotations

import posixpath
import re

from .errors import ConfigError
from .jsonreader import MAX_INT64
from .names import short_id

INSERT = "insert_log"
DELTA = "delta_log"
ALL_PARTITIONS = -1

META_FILES = ("full_meta.json", "collection_meta.json", "partition_meta.json", "segment_meta.json", "backup_meta.json")
STAGING = "restore-temp-"
COMMIT_MARK, FULL_META = "backup_meta.json", "full_meta.json"

# Without leading zeros, so that the ids lead back to the key they came from.
_ID = r"(0|[1-9][0-9]{0,18})"
_INSERT_KEY = re.compile(rf"{INSERT}/{_ID}/{_ID}/{_ID}/{_ID}/{_ID}")
_GROUP_DIR = re.compile(rf"(?:{INSERT}|{DELTA})/{_ID}/{_ID}/{_ID}/")
_DELTA_KEY = re.compile(rf"{DELTA}/{_ID}/(-1|{_ID[1:-1]})/{_ID}/{_ID}")


def join(*parts: str | int) -> str:
    """Join key parts with single slashes, dropping empty ones."""
    return "/".join(part for part in (str(p).strip("/") for p in parts) if part)


def clean_root(root: str) -> str:
    """Return a root path without outer, doubled or ``.`` parts, as both Milvus and ``milvus-backup`` read it.

    Raises ConfigError when it contains ``..``.
    """
    if ".." in root.split("/"):
        raise ConfigError(f"root path {root!r} contains `..`; name the path itself")
    return posixpath.normpath("/" + root).strip("/")


def source_dir(root: str, kind: str, collection: int) -> str:
    """Return the prefix of all insert or delta logs of one collection in Milvus's bucket."""
    return join(root, kind, collection) + "/"


def source_insert(root: str, collection: int, partition: int, segment: int, field: int, log: int) -> str:
    """Return the key of one insert binlog in Milvus's bucket."""
    return join(root, INSERT, collection, partition, segment, field, log)


def source_delta(root: str, collection: int, partition: int, segment: int, log: int) -> str:
    """Return the key of one delta log in Milvus's bucket."""
    return join(root, DELTA, collection, partition, segment, log)


def parse_insert(root: str, key: str) -> tuple[int, int, int, int, int] | None:
    """Return (collection, partition, segment, field, log) of an insert binlog's key, None for any other key."""
    return _ids(_INSERT_KEY.fullmatch(_below(root, key)))  # type: ignore[return-value]


def parse_delta(root: str, key: str) -> tuple[int, int, int, int] | None:
    """Return (collection, partition, segment, log) of a delta log's key, None for any other key."""
    return _ids(_DELTA_KEY.fullmatch(_below(root, key)))  # type: ignore[return-value]


def _ids(match: re.Match[str] | None) -> tuple[int, ...] | None:
    ids = tuple(map(int, match.groups())) if match else ()
    return ids if ids and max(ids) <= MAX_INT64 else None


def _below(root: str, key: str) -> str:
    if not root:
        return key
    return key[len(root) + 1 :] if key.startswith(f"{root}/") else ""


def backup_dir(root: str, name: str) -> str:
    """Return the prefix of one backup, with a trailing slash."""
    return join(root, name) + "/"


def meta_key(root: str, name: str, file: str) -> str:
    """Return the key of one meta file."""
    return join(root, name, "meta", file)


def provider_key(root: str, name: str, *parts: str) -> str:
    """Return the key of a file of our own inside a backup; the official tool ignores and deletes these with the backup."""
    return join(root, name, "provider", *parts)


def lease_key(root: str, name: str, restore_id: str | None = None) -> str:
    """Return the key of the lease of whoever writes a backup, or of a restore that reads it."""
    return provider_key(root, name, "lease.json") if restore_id is None else provider_key(root, name, "leases", f"{restore_id}.json")


def binlogs_dir(root: str, name: str) -> str:
    """Return the prefix of all data of one backup, with a trailing slash."""
    return join(root, name, "binlogs") + "/"


def partition_dir(binlogs: str, kind: str, collection: int, partition: int) -> str:
    """Return the prefix of one partition's insert or delta logs below a ``binlogs/`` prefix, with a trailing slash."""
    return join(binlogs, kind, collection, partition) + "/"


def parse_group(binlogs: str, key: str) -> tuple[int, int, int] | None:
    """Return (collection, partition, group) of an object in a group directory below a ``binlogs/`` prefix, None for any other key."""
    return _ids(_GROUP_DIR.match(key, len(binlogs)) if key.startswith(binlogs) else None)  # type: ignore[return-value]


def segment_dir(binlogs: str, kind: str, collection: int, partition: int, group: int | None, segment: int) -> str:
    """Return the prefix of one segment's logs below a ``binlogs/`` prefix; ``group`` None leaves the group directory out."""
    return join(binlogs, kind, collection, partition, *([] if group is None else [group]), segment) + "/"


def staging_dir(restore_id: str) -> str:
    """Return the prefix in Milvus's bucket that one restore may stage objects below, with a trailing slash.

    It lies at the bucket's root, outside Milvus's root path, whose garbage collector removes what it does not know.
    """
    return f"{STAGING}{short_id(restore_id)}/"
