"""Backups in the snapshot format of Milvus 3.0: where a bundle lies, how Milvus is told, and what excludes the format. Pure functions.

A bundle is what ExportSnapshot of Milvus writes below ``<backup>/bundle``: ``snapshots/<collection>/metadata/<snapshot>.json``, manifests,
and the files themselves; each export has a directory of its own, ``exports/<uuid>/``
(``docs/design_docs`` of milvus-io/milvus, external snapshot export and restore; ``core/backup/snapshot_target.go`` of milvus-backup).
Milvus copies inside one object store only, with one credential that may read the one place and write the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from .errors import BackupDamaged, BackupError, ConfigError, ServerError
from .imports import JobState, JobStatus
from .meta import Backup, Collection
from .restore_plan import APPEND, RestoreOptions
from .settings import without_userinfo

BUNDLE = "bundle"
_PART = r"(?!\.{1,2}/)[A-Za-z0-9_.=-]+/"
_METADATA_PATH = re.compile(rf"({BUNDLE}/(?:{_PART})*?)snapshots/(0|[1-9][0-9]{{0,18}})/metadata/[0-9]{{1,19}}\.json")
#: The longest key of S3.
_LONGEST = 1024

#: The services that Milvus takes for one store whatever the host is called (``s3EndpointService`` in its ``endpoint.go``).
_SERVICES = (
    (re.compile(r"s3\.(?:.*\.)?amazonaws\.com(?:\.cn)?"), "aws"),
    (re.compile(r"storage\.googleapis\.com"), "gcp"),
    (re.compile(r"oss-.*\.aliyuncs\.com"), "aliyun"),
    (re.compile(r"cos\..*\.myqcloud\.com"), "tencent"),
    (re.compile(r"obs\..*\.myhuaweicloud\.com"), "huawei"),
)


# ---- what the meta says --------------------------------------------------------------------------------------------------------


def is_metadata_path(path: str) -> bool:
    """Return whether a path out of a meta file may be followed: relative, below ``bundle/``, and of the shape that Milvus writes."""
    return len(path) <= _LONGEST and _METADATA_PATH.fullmatch(path) is not None


def bundle_root(path: str) -> str:
    """Return the directory, with a trailing slash, that holds all of a bundle, by the path of its metadata."""
    match = _METADATA_PATH.fullmatch(path)
    if match is None:
        raise BackupDamaged(f"snapshot metadata path {path[:60]!r} is not one that Milvus writes below {BUNDLE}/")
    return match[1]


def collection_of(path: str) -> int:
    """Return the id of the collection whose snapshot the metadata path leads to."""
    bundle_root(path)
    return int(path.rsplit("/", 3)[1])


def snapshot_name(backup_name: str) -> str:
    """Return what the snapshots of a backup are called in Milvus while they are exported; it is what milvus-backup calls them."""
    return f"mbk_{backup_name}"


def check_bundles(backup: Backup, collections: Iterable[Collection], there: Mapping[str, int]) -> None:
    """Raise BackupDamaged where files of a bundle are missing.

    Milvus restores what is left of a bundle and says it succeeded (milvus #53514, #53519), and nothing but its manifests, which cannot be
    read here, names the files. So their number and bytes are compared; what else lies in a bundle does no harm.

    :param collections: the ones to look at, of this backup
    :param there: size by key, relative to the backup, of all objects below ``bundle/``
    """
    for root in sorted({bundle_root(c.snapshot.metadata_path) for c in collections if c.snapshot}):
        sharing = [(c, c.snapshot) for c in backup.collections if c.snapshot and bundle_root(c.snapshot.metadata_path) == root]
        sizes = [size for key, size in there.items() if key.startswith(root) and not key.startswith(f"{root}_staging/")]
        names = ", ".join(str(collection.name) for collection, _ in sharing[:3])
        if gone := [snapshot.metadata_path for _, snapshot in sharing if snapshot.metadata_path not in there]:
            raise BackupDamaged(f"backup {backup.name!r} lacks the snapshot of {names}: {gone[0]} is missing")
        files, size = sum(snapshot.total_files for _, snapshot in sharing), sum(snapshot.total_bytes for _, snapshot in sharing)
        if len(sizes) < files or sum(sizes) < size:
            raise BackupDamaged(
                f"the snapshot of {names} in backup {backup.name!r} is incomplete: {len(sizes):,} files of {sum(sizes):,} bytes lie below "
                f"{root}, and Milvus had written {files:,} files of {size:,} bytes"
            )


def strays(backup: Backup, there: Iterable[str]) -> Iterator[str]:
    """Iterate over the keys below ``bundle/`` that belong to no bundle of the backup: what an export that failed has left.

    :param there: keys relative to the backup
    """
    roots = tuple(bundle_root(c.snapshot.metadata_path) for c in backup.collections if c.snapshot)
    return (key for key in there if key.startswith(f"{BUNDLE}/") and not key.startswith(roots))


def parts(backup: Backup, there: Iterable[str]) -> Iterator[str]:
    """Iterate over the keys below ``bundle/`` that are part of a bundle of the backup; what Milvus was still writing is not.

    :param there: keys relative to the backup
    """
    roots = tuple({bundle_root(c.snapshot.metadata_path) for c in backup.collections if c.snapshot})
    staging = tuple(f"{root}_staging/" for root in roots)
    return (key for key in there if key.startswith(roots) and not key.startswith(staging))


# ---- what Milvus is told -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials of object storage."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Store:
    """An object store as this process sees it. ``endpoint`` is scheme and host; ``label`` is how a message calls the place."""

    endpoint: str
    region: str
    bucket: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """A place in object storage as Milvus takes it: a URI, and where Milvus's own credential does not do, what lets it in."""

    uri: str
    #: JSON with keys; Milvus keeps it with the job until that has ended.
    external_spec: str = field(default="", repr=False)
    #: What must not be seen in any message.
    secrets: tuple[str, ...] = field(default=(), repr=False)


def place(milvus: Store, backups: Store, key: str, keys: Callable[[], Keys]) -> SnapshotPlace:
    """Return how to tell Milvus about a key in the bucket of the backups.

    In the store that Milvus uses the endpoint is left out, for it may be another one from where Milvus is; no key is sent, and Milvus's own
    must be let into the bucket. In another region of one cloud both are sent.

    :param milvus: the storage that Milvus itself uses
    :param keys: called where they are sent
    :raises ConfigError: Milvus cannot copy between the two, or the keys are temporary ones, which it does not take
    """
    path = quote(f"{backups.bucket}/{key.strip('/')}", safe="/")
    if _host(milvus) == _host(backups):
        return SnapshotPlace(f"s3://{path}")
    service = _service(backups)
    if not service or service != _service(milvus):
        raise ConfigError(
            f"Milvus copies snapshots within one object store only: it uses {without_userinfo(milvus.endpoint)}, and backups lie in "
            f"{without_userinfo(backups.endpoint)}{f' ({backups.label})' if backups.label else ''}. Copy the backup into the store that "
            "Milvus uses, or use binlog format, which this process can copy; if both are one store, name it alike in both connections"
        )
    found = keys()
    if found.token:
        raise ConfigError(
            f"Milvus takes no session token for snapshots, and {backups.label or backups.bucket} is reached with one. Use a key that does "
            "not expire, or keep backups where Milvus reaches them with its own credential"
        )
    spec = {
        "cloud_provider": service,
        "use_ssl": str(urlsplit(backups.endpoint).scheme == "https").lower(),
        "region": backups.region,
        "access_key_id": found.access_key,
        "access_key_value": found.secret_key,
    }
    text = json.dumps({"extfs": {name: value for name, value in spec.items() if value}}, separators=(",", ":"))
    return SnapshotPlace(f"minio://{_host(backups)}/{path}", text, tuple(filter(None, (found.secret_key, found.access_key))))


def _host(store: Store) -> str:
    parts = urlsplit(store.endpoint)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return f"{parts.hostname}:{parts.port}" if parts.port and parts.port != default else str(parts.hostname)


def _service(store: Store) -> str:
    host = urlsplit(store.endpoint).hostname or ""
    return next((service for pattern, service in _SERVICES if pattern.fullmatch(host)), "")


def metadata_path(target: SnapshotPlace, uri: str) -> str:
    """Return the path, relative to the backup, of the metadata that an export to ``<backup>/bundle`` has written.

    Milvus spells the same place in another way, with the endpoint it has found (``https://host/bucket/key``); bucket and key are compared.

    :raises BackupError: it is not below the target
    """
    bucket, _, root = _located(target.uri, "").partition("/")
    found = _located(uri, bucket)
    below = found.removeprefix(f"{bucket}/{root}/")
    path = f"{BUNDLE}/{below}"
    if below == found or not is_metadata_path(path):
        raise BackupError(
            f"Milvus says it has exported a snapshot to {without_userinfo(uri)[:300]!r}, which is no metadata below {target.uri}; "
            "the export cannot be used"
        )
    return path


def _located(uri: str, bucket: str) -> str:
    """Return ``bucket/key`` of a URI of any shape that Milvus writes; an empty text for others.

    :param bucket: the bucket expected, for the scheme s3 may be followed by an endpoint
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ""
    if parts.query or parts.fragment or parts.username or parts.password:
        return ""
    path = unquote(parts.path).strip("/")
    if parts.scheme in ("minio", "http", "https") or (bucket and parts.netloc != bucket):
        return path
    return f"{parts.netloc}/{path}" if parts.scheme in ("s3", "gs", "gcs") else ""


# ---- what Milvus says ----------------------------------------------------------------------------------------------------------

#: ExportSnapshotState and RestoreSnapshotState have the same numbers.
COMPLETED, FAILED = 3, 4


def of_answer(job_id: int, answer: Any) -> JobStatus:
    """Return the meaning of a GetRestoreSnapshotStateResponse, which does not tell rows."""
    info = answer.info
    state = {COMPLETED: JobState.COMPLETED, FAILED: JobState.FAILED}.get(info.state, JobState.RUNNING)
    return JobStatus(job_id, state, 0, info.progress, info.reason)


def lost(job_id: int, error: ServerError) -> JobStatus:
    """Return UNKNOWN for the error of a restore without a record; raises any other error again."""
    if "job" in str(error) and "not found" in str(error):
        return JobStatus(job_id, JobState.UNKNOWN, reason="Milvus no longer has a record of this job")
    raise error


# ---- what excludes the format --------------------------------------------------------------------------------------------------


def check_options(backup: Backup, collections: Sequence[Collection], options: RestoreOptions) -> None:
    """Raise ConfigError for options that mean nothing where Milvus makes the collection: schema, shards, indexes and data as they were.

    Raises BackupDamaged for collections without a snapshot.
    """
    binding = [c.name for c in collections if options.max_shards is not None and c.shards > options.max_shards]
    wrong = [
        ("meta_only", options.meta_only, "Milvus makes the collection and its data in one"),
        ("cut_at_flush", options.cut_at_flush, "a snapshot is restored as it is"),
        ("if_exists='append'", options.if_exists == APPEND, "Milvus restores a snapshot into a new collection only"),
        ("restore_indexes=False", not options.restore_indexes, "indexes are part of a snapshot"),
        (f"max_shards={options.max_shards}", bool(binding), f"{binding[0] if binding else ''} keeps the shards it had"),
    ]
    for option, given, why in wrong:
        if given:
            raise ConfigError(f"{option} cannot be used with backup {backup.name!r}, which is in snapshot format: {why}")
    if without := [collection.name for collection in collections if collection.snapshot is None]:
        raise BackupDamaged(
            f"backup {backup.name!r} is in snapshot format and holds no snapshot of {without[0]}; it was made without data (meta_only), or "
            "its meta is damaged. Restore other collections of it"
        )
