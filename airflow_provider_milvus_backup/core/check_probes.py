"""The lines of a preflight that write, copy and delete: only below directories of their own, which are empty again in the end.

In the backup storage that is ``<backup root>/airflow-check-probes/<run>/``, in Milvus's bucket ``restore-temp-<id>/<run>/``, where restores
stage objects. What a run that was killed has left there, a later one removes when it is an hour old.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

from .check_storage import nothing_to
from .check_subject import STAGED_PROBES, Subject, probes_dir
from .checking import FAIL, PASS, SKIP, WARN, Check, Finding
from .copier import Copy, Progress, copy_objects
from .errors import MilvusBackupError, ObjectChanged, StorageDenied
from .report import duration
from .report import size as written
from .store import ObjectStore

MIB = 1024**2
#: Bytes of the largest probe: enough to tell a fast connection from a slow one.
SIZE = 4 * MIB
#: Probes of other runs are left alone for so long.
LEFT = timedelta(hours=1)
_FAR = 100 * 1024 * MIB
_WRITE = "let the key write objects (s3:PutObject) below the backup root"
_READ = "let the key read objects (s3:GetObject) below the backup root"
_DELETE = "let the key delete objects (s3:DeleteObject) below the backup root"
_PARTS = "allow uploads in parts (s3:PutObject, s3:AbortMultipartUpload)"
_CONDITIONS = "let nothing between worker and store change If-None-Match"


def write(subject: Subject) -> Finding:
    """Write a probe into the backup storage."""
    started = time.monotonic()
    subject.ends.backups.write(subject.probe("written"), _content(subject))
    return _timed(subject, "written", started)


def read(subject: Subject) -> Finding:
    """Read the probe again, and compare it."""
    if "backup_storage.write" in subject.left_out:
        return Finding(SKIP, "not checked because no probe was written: skip names backup_storage.write")
    started = time.monotonic()
    if subject.ends.backups.read(subject.probe("written"), SIZE) != _content(subject):
        return Finding(FAIL, "a probe was read with another content than it was written with", "do not trust this storage with a backup")
    return _timed(subject, "read", started)


def _content(subject: Subject) -> bytes:
    # Bytes that nobody can compress, the same at every call of one run.
    block = bytes.fromhex(subject.run)
    return block * (SIZE // len(block))


def _timed(subject: Subject, done: str, started: float) -> Finding:
    seconds = max(time.monotonic() - started, 1e-6)
    subject.rates.append(SIZE / seconds)
    return Finding(PASS, f"a probe of {written(SIZE)} was {done} in {duration(seconds)} ({written(SIZE / seconds)}/s)")


def conditional(subject: Subject) -> Finding:
    """Look whether the store keeps to the conditions by which two runs are kept apart."""
    store, key = subject.ends.backups, subject.probe("conditional")
    etag = store.create(key, b"first")
    store.swap(key, b"second", etag)
    try:
        store.swap(key, b"third", etag)
    except ObjectChanged:
        if store.conditional is not False:
            return Finding(PASS, "the store keeps to conditional writes")
    return Finding(
        WARN,
        "the store does not keep to conditional writes (If-None-Match): two runs that begin in the same moment are not kept apart",
        "never run two backups under one name, or two restores of one backup, at once; or upgrade the store",
    )


def copy(subject: Subject) -> Finding:
    """Copy an object of Milvus's as a backup does it."""
    if subject.proof is None:
        return nothing_to("copied")
    progress = _copied(subject, "copied")
    if progress.mode == "server-side":
        took = f"{written(subject.proof.size)} in {duration(progress.seconds)}"
        return Finding(PASS, f"the store copies from Milvus's bucket by itself ({took})")
    ends, rate = subject.ends, min(subject.rates, default=0.0)
    numbers = f", here about {written(rate)}/s: 100 GiB would take {duration(_FAR / rate)}" if rate else ""
    if ends.settings.streaming:
        why, remedy = "as asked for (streaming)", "leave crossStorage off in backup.yaml if both buckets are in one store"
    elif ends.backups.endpoint == ends.milvus_store.endpoint:
        why, remedy = "because the backup storage's key may not read Milvus's bucket", "let that key read Milvus's bucket as well"
    else:
        why, remedy = "because the storages have different endpoints", "keep backups in the store that Milvus uses, if they must be quick"
    return Finding(WARN, f"the bytes of backups go through this worker, {why}{numbers}", remedy)


def _copied(subject: Subject, name: str, **options: Any) -> Progress:
    ends, proof = subject.ends, subject.proof
    assert proof is not None, "whoever calls has looked"
    destination, progress = subject.probe(name), Progress(1, proof.size)
    how = {**ends.settings.copying, **options}
    copy_objects(ends.milvus_store, ends.backups, [Copy(proof.key, destination, proof.size)], progress, patience=ends.patience, **how)
    if (size := ends.backups.head(destination).size) != proof.size:
        raise StorageDenied(f"a copy of {proof.key!r} has {size:,} bytes instead of {proof.size:,} in {ends.backups.location}")
    return progress


def multipart(subject: Subject) -> Finding:
    """Copy an object in parts, as large ones are; where it is streamed, begin and give up an upload in parts."""
    store = subject.ends.backups
    abandoned = _abort(store, probes_dir(store.location.root_path))
    told = f"; {abandoned} uploads of killed checks were given up" if abandoned else ""
    if subject.proof is not None and subject.proof.size > 1 and _copied(subject, "in_parts", multipart_threshold=1).mode == "server-side":
        return Finding(PASS, f"large objects can be copied in parts{told}")
    key = subject.probe("upload")
    with store.explained(f"upload {key!r} in parts to"):
        upload = store.s3.create_multipart_upload(Bucket=store.location.bucket, Key=key)["UploadId"]
        store.s3.abort_multipart_upload(Bucket=store.location.bucket, Key=key, UploadId=upload)
    return Finding(PASS, f"large objects can be uploaded in parts{told}")


def delete(subject: Subject) -> Finding:
    """Delete the probes, and look whether they are gone."""
    store, directory = subject.ends.backups, f"{probes_dir(subject.ends.backups.location.root_path)}{subject.run}/"
    store.delete([item.key for item in store.objects(directory)])
    left = [item.key for item in store.objects(directory)]
    if left:
        return Finding(FAIL, f"{left[0]!r} is still in {store.location} after it was deleted", _DELETE)
    return Finding(PASS, "objects can be deleted")


def staging(subject: Subject) -> Finding:
    """Write, read and delete a probe where restores stage objects and keep their lease."""
    store, key = subject.ends.milvus_store, subject.staged_probe("written")
    store.write(key, b"probe")
    if store.read(key, 5) != b"probe":
        return Finding(FAIL, f"{key!r} was read with another content than it was written with", "do not trust this storage with a restore")
    store.delete([key])
    if store.exists(key):
        return Finding(FAIL, f"{key!r} is still in {store.location} after it was deleted", _DELETE)
    if subject.proof is None:
        remedy = "see milvus_storage.segment: imports fail when Milvus reads another bucket than this one"
        return Finding(WARN, f"restores can stage objects in {store.location}, but not proven is that Milvus reads this bucket", remedy)
    return Finding(PASS, f"restores can stage objects in bucket {store.location.bucket!r}, which Milvus reads")


def remove(subject: Subject) -> None:
    """Remove the probes of this run, and those of runs that were killed; never raises, for it is the last thing a run does."""
    for store, directory, line in (
        (subject.ends.backups, probes_dir(subject.ends.backups.location.root_path), "backup_storage.list"),
        (subject.ends.milvus_store, STAGED_PROBES, "milvus_storage.list"),
    ):
        if subject.failed(line):
            continue
        try:
            _, now = store.directories_now(directory)
            listed = list(store.dated(directory))
            old = [item.key for item, at in listed if now - at > LEFT or item.key.startswith(f"{directory}{subject.run}/")]
            store.delete(old)
        except MilvusBackupError as error:
            subject.ends.reporter.warn(f"could not remove the probes below {directory!r} in {store.location}; the next check will: {error}")


def _abort(store: ObjectStore, prefix: str) -> int:
    """Give up uploads of killed runs below a prefix; returns how many there were. A store that cannot list them has none."""
    before = datetime.now(timezone.utc) - LEFT
    try:
        with store.explained(f"list uploads below {prefix!r} in"):
            found = store.s3.list_multipart_uploads(Bucket=store.location.bucket, Prefix=prefix).get("Uploads", ())
            old = [upload for upload in found if upload["Initiated"] < before and upload["Key"].startswith(prefix)]
            for upload in old:
                store.s3.abort_multipart_upload(Bucket=store.location.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            return len(old)
    except MilvusBackupError:
        return 0


BACKUPS: tuple[Check[Subject], ...] = (
    Check("backup_storage.write", write, ("backup_storage.place", "backup_storage.list"), _WRITE),
    Check("backup_storage.read", read, ("backup_storage.write",), _READ),
    Check("backup_storage.conditional", conditional, ("backup_storage.write",), _CONDITIONS),
    Check("backup_storage.copy", copy, ("milvus_storage.segment", "milvus_storage.read", "backup_storage.write"), _WRITE),
    Check("backup_storage.multipart", multipart, ("backup_storage.write",), _PARTS),
    Check("backup_storage.delete", delete, ("backup_storage.write",), _DELETE),
)
STAGING: Check[Subject] = Check(
    "restore.staging", staging, ("milvus_storage.list",), "let the key of Milvus's bucket write and delete below restore-temp-*"
)
