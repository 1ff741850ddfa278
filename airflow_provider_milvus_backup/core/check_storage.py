"""The lines of a preflight about both buckets that only look: whose they are, and what they do to what is deleted."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from itertools import islice

from . import layout, object_lock
from .check_subject import CLOSELY, Subject, probes_dir
from .checking import FAIL, PASS, SKIP, WARN, Check, Finding
from .errors import MilvusBackupError
from .names import CollectionName
from .report import counted, duration
from .report import size as written
from .restore_plan import NEWEST_STORAGE
from .server import ServerSegment
from .store import ObjectStore, StoredObject
from .survey import Survey

#: Seconds by which clocks may differ. From the second on, S3 refuses requests (RequestTimeTooSkewed).
SKEW, REFUSED = 60.0, 15 * 60.0
#: Segments of one collection that are looked for, and objects of one that are looked at.
_SEGMENTS, _OBJECTS = 3, 1000
#: Directories at the top of Milvus's bucket in which lost segments are looked for.
_ROOTS = 50
_KEY = "correct the aws connection, the bucket name, or what its key may do; the worker's clock must be right, too"


def milvus_list(subject: Subject) -> Finding:
    """List the beginning of Milvus's root path."""
    return _listed(subject.ends.milvus_store, "Milvus's bucket", empty=True)


def backup_list(subject: Subject) -> Finding:
    """List the beginning of the backup root."""
    return _listed(subject.ends.backups, "the backup storage", empty=False)


def _listed(store: ObjectStore, what: str, *, empty: bool) -> Finding:
    found = list(islice(store.objects(store.location.root_path), 1))
    if not found and empty:
        remedy = f"correct bucket_name {store.location.bucket!r} or root_path {store.location.root_path!r}, unless this Milvus is new"
        return Finding(WARN, f"{what} {store.location} can be listed, and holds nothing below the root path", remedy)
    return Finding(PASS, f"{what} {store.location} can be listed")


def segment(subject: Subject) -> Finding:
    """Look for the objects of a sealed segment: they show whose bucket and root path these are."""
    for name in subject.selected[:CLOSELY]:
        collection_id = subject.server.collection_id(name)
        sealed = [] if collection_id is None else _sealed(subject, name)  # None is one that was dropped meanwhile
        if collection_id is None or not sealed:
            continue
        found = _objects_of(subject, subject.ends.milvus_store.location.root_path, collection_id, sealed)
        if not found and (again := _sealed(subject, name)) != sealed:  # compacted in this moment
            found = _objects_of(subject, subject.ends.milvus_store.location.root_path, collection_id, again)
        if found:
            subject.proof = min(found, key=lambda item: item.size)
            ids, uri = subject.proof.key.split("/")[-3], subject.ends.milvus_store.location.uri
            return Finding(PASS, f"{uri} holds {counted(len(found), 'object')} of segment {ids} of {name}")
        return _lost(subject, name, collection_id, sealed)
    return Finding(
        WARN,
        "cannot be proven: no sealed segment in the selected collections",
        "flush a collection with rows and check again, or see that bucket_name and root_path are those of minio in milvus.yaml",
    )


def _sealed(subject: Subject, name: CollectionName) -> list[ServerSegment]:
    segments = [one for one in subject.server.segments(name) if one.rows and not one.is_l0 and one.storage_version <= NEWEST_STORAGE]
    return segments[-_SEGMENTS:]


def _objects_of(subject: Subject, root: str, collection_id: int, segments: list[ServerSegment]) -> list[StoredObject]:
    for one in segments:
        prefix = layout.join(root, layout.INSERT, collection_id, one.partition_id, one.segment_id)
        if found := list(islice(subject.ends.milvus_store.objects(prefix), _OBJECTS)):
            return found
    return []


def _lost(subject: Subject, name: CollectionName, collection_id: int, sealed: list[ServerSegment]) -> Finding:
    place = subject.ends.milvus_store.location
    lost = f"Milvus reports {counted(len(sealed), 'segment')} of {name}, and {place} holds no object of them"
    for root in ["", *subject.ends.milvus_store.directories("")[:_ROOTS]]:
        if root != place.root_path and _objects_of(subject, root, collection_id, sealed):
            return Finding(FAIL, f"{lost}; they lie below {root!r}", f"set root_path of the Milvus connection to {root!r}")
    wrong = f"bucket_name {place.bucket!r} or root_path {place.root_path!r}"
    remedy = f"correct {wrong} of the Milvus connection; minio of milvus.yaml has both"
    return Finding(FAIL, lost, remedy)


def milvus_read(subject: Subject) -> Finding:
    """Read an object of Milvus's."""
    proof, store = subject.proof, subject.ends.milvus_store
    if proof is None:
        return nothing_to("read")
    with store.explained(f"read {proof.key!r} from"):
        got = store.s3.get_object(Bucket=store.location.bucket, Key=proof.key, Range="bytes=0-0")
        got["Body"].read()
    return Finding(PASS, f"objects of Milvus's can be read ({proof.key!r}, {written(proof.size)})")


def nothing_to(what: str) -> Finding:
    """Return what a line says that needs an object of Milvus's where there is none."""
    return Finding(SKIP, f"not checked because no sealed segment is known whose object could be {what}")


def place(subject: Subject) -> Finding:
    """Look whether Milvus's garbage collector would take backups for its own."""
    ends = subject.ends
    Survey(ends.settings, ends.server, ends.milvus_store, ends.reporter, ends.patience).check_places(ends.backups)
    return Finding(PASS, f"{ends.backups.location.uri} lies outside Milvus's root path")


def milvus_versioning(subject: Subject) -> Finding:
    """Look whether Milvus's bucket keeps what Milvus removes."""
    return _versioning(subject.ends.milvus_store, "what Milvus and restores remove from its bucket")


def backup_versioning(subject: Subject) -> Finding:
    """Look whether the backup bucket keeps what is deleted."""
    if subject.shared and not subject.failed("milvus_storage.versioning"):
        return Finding(SKIP, "not checked because it is the bucket of milvus_storage.versioning")
    return _versioning(subject.ends.backups, "deleted backups")


def _versioning(store: ObjectStore, what: str) -> Finding:
    bucket, versioned = f"bucket {store.location.bucket!r}", object_lock.is_versioned(store)
    if versioned is None:
        return Finding(WARN, f"the key may not ask whether {bucket} keeps versions", "grant s3:GetBucketVersioning, or skip this check")
    if not versioned:
        return Finding(PASS, f"{bucket} keeps no versions")
    if object_lock.expires_versions(store):
        return Finding(PASS, f"{bucket} keeps versions, and a lifecycle rule removes those that are not current")
    return Finding(
        WARN,
        f"{bucket} keeps versions and has no lifecycle rule that removes them: {what} stay as noncurrent versions, and cost as before",
        "add a lifecycle rule with NoncurrentVersionExpiration to the bucket",
    )


def milvus_lock(subject: Subject) -> Finding:
    """Look whether Milvus's bucket locks objects."""
    return _lock(subject.ends.milvus_store, "what Milvus compacts away, and what restores stage, stays")


def backup_lock(subject: Subject) -> Finding:
    """Look whether the backup bucket locks objects."""
    if subject.shared and not subject.failed("milvus_storage.object_lock"):
        return Finding(SKIP, "not checked because it is the bucket of milvus_storage.object_lock")
    return _lock(subject.ends.backups, "unfinished attempts, and each renewal of a lease, stay")


def _lock(store: ObjectStore, what: str) -> Finding:
    found, bucket = object_lock.bucket_lock(store), f"bucket {store.location.bucket!r}"
    if found.can is None:
        remedy = "grant s3:GetBucketObjectLockConfiguration, or skip this check"
        return Finding(WARN, f"the key may not ask whether {bucket} locks objects", remedy)
    if not found.can:
        return Finding(PASS, f"{bucket} has no Object Lock; object_lock_days cannot be used")
    if found.days:
        return Finding(
            WARN,
            f"{bucket} locks every object for {counted(found.days, 'day')} ({found.mode}): {what} that long, too",
            "take the default retention off the bucket, and ask for object_lock_days, which locks complete backups alone",
        )
    return Finding(PASS, f"{bucket} has Object Lock, and locks nothing by itself; object_lock_days can be used")


def clocks(subject: Subject) -> Finding:
    """Compare the clocks of the worker, both stores and Milvus."""
    ends, ahead = subject.ends, dict[str, float]()
    stores = {"the backup storage": (ends.backups, "backup_storage.list"), "Milvus's storage": (ends.milvus_store, "milvus_storage.list")}
    for what, (store, line) in stores.items():
        if not subject.failed(line):
            with suppress(MilvusBackupError):  # a line of its own says what is wrong
                _, now = store.directories_now(probes_dir(store.location.root_path))
                ahead[what] = (now - datetime.now(timezone.utc)).total_seconds()
    if not subject.failed("milvus.login"):
        with suppress(MilvusBackupError):
            milliseconds = subject.server.timestamp() >> 18
            ahead["Milvus"] = milliseconds / 1000 - datetime.now(timezone.utc).timestamp()
    return compared(ahead)


def compared(ahead: dict[str, float]) -> Finding:
    """Return what clocks say that are so many seconds ahead of this worker's."""
    told = ", ".join(f"{what} {_told(seconds)}" for what, seconds in ahead.items())
    among = [0.0, *ahead.values()]
    apart = max(among) - min(among)
    remedy = "let all machines, this worker too, keep time by NTP"
    if not ahead:
        return Finding(WARN, "neither Milvus nor a store tells the time", "see the other lines")
    if max(map(abs, ahead.values())) >= REFUSED:
        return Finding(FAIL, f"{told}: stores refuse requests that are {duration(REFUSED)} off", remedy)
    return Finding(WARN, told, remedy) if apart >= SKEW else Finding(PASS, f"against this worker's clock: {told}")


def _told(seconds: float) -> str:
    # A store tells whole seconds.
    return "is right" if abs(seconds) < 2 else f"is {duration(abs(seconds))} {'ahead' if seconds > 0 else 'behind'}"


MILVUS: tuple[Check[Subject], ...] = (
    Check("milvus_storage.list", milvus_list, remedy=_KEY),
    Check("milvus_storage.segment", segment, ("milvus.collections", "milvus_storage.list"), _KEY),
    Check("milvus_storage.read", milvus_read, ("milvus_storage.segment",), "let the key read objects of Milvus's bucket (s3:GetObject)"),
    Check("milvus_storage.versioning", milvus_versioning, ("milvus_storage.list",), _KEY),
    Check("milvus_storage.object_lock", milvus_lock, ("milvus_storage.list",), _KEY),
)
BACKUPS: tuple[Check[Subject], ...] = (
    Check("backup_storage.place", place, remedy="choose another backup_root_path"),
    Check("backup_storage.list", backup_list, remedy=_KEY),
    Check("backup_storage.versioning", backup_versioning, ("backup_storage.list",), _KEY),
    Check("backup_storage.object_lock", backup_lock, ("backup_storage.list",), _KEY),
)
CLOCKS: Check[Subject] = Check("clocks", clocks)
