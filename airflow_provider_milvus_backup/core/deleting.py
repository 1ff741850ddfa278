"""Deleting backups, one by name or those that a retention policy removes.

In the order of danger: first the commit mark, so that from there on nobody takes the backup for one; then the data, then the other meta
files, then the files of our own, the lease last. Wherever it stops, what is left is a complete backup or one that says that it is
unfinished, and deleting it again goes on from there.

- **Only backups.** A directory in which the catalog finds nothing that only a backup has is refused. In a backup, only what lies in the
  four directories that a backup consists of is deleted; whatever else somebody has put there stays.
- **Not while the store keeps it.** In a bucket with Object Lock a deletion succeeds, and only hides what is locked; so a locked backup is
  refused before anything of it is deleted.
- **Not while somebody works on it.** Deleting holds the lease of whoever writes the backup. A restore writes its lease before it reads the
  commit mark, so leases are looked at once more after the mark is gone: if one has appeared, the mark is put back.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from typing import Any

from . import layout
from .begun_deletions import begun, deletion_of, with_begun
from .catalog import read_catalog
from .catalog_entry import COMPLETE, MARK, MAX_BYTES, OFFICIAL, CatalogEntry
from .errors import BackupInUse, Cancelled, ConfigError, MilvusBackupError, NotInStorage, StorageDenied, StorageError
from .holds import check_not_held
from .lease import Lease, Owner, in_use
from .names import check_backup_name
from .object_lock import BucketLock, bucket_lock, check_not_locked, with_locks
from .patience import Backoff
from .report import Reporter, counted, duration
from .report import size as written
from .retention import check_kinds, plan, table
from .retention_policy import RetentionPolicy
from .store import BUDGET, ObjectStore, StoredObject

#: What a backup consists of, in the order in which it goes.
PARTS = (("binlogs", "bundle"), ("meta",), ("provider",))
MISSING = "missing"
#: The official tool has no lease: a backup of it that is not complete and to which something was added so lately may be being written.
QUIET = timedelta(minutes=10)
#: Keys of one request, as S3 allows.
PAGE = 1000
#: Lines of a table that are returned; the log has them all.
MAX_LINES = 200
#: Such requests at once. S3 counts keys, and becomes too busy at some thousands a second.
AT_ONCE = 4
#: Texts that stand for no backup, and why; a deletion of nothing that succeeds would hide the mistake.
_NO_NAMES = {"None": "this is what a template makes of nothing", "latest": "`latest` stands for a backup in verify and drill alone"}
#: Answers for a single object that pass; MinIO has a slowing down of its own for writes.
_PASSING = re.compile("InternalError|SlowDown(?:Read|Write)?|ServiceUnavailable|OperationAborted|RequestTimeout")


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted; ``state`` is what the backup was: ``complete``, ``unfinished``, ``damaged``, or ``missing``."""

    name: str
    uri: str
    state: str
    objects: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def delete(
    store: ObjectStore,
    name: str,
    owner: Owner,
    reporter: Reporter,
    *,
    expected: CatalogEntry | None = None,
    bucket: BucketLock | None = None,
) -> Deleted:
    """Delete a backup of either tool, complete or not; one that is not there is a success, and the log says so.

    :param owner: who deletes; a further try of the same task instance goes on at once
    :param expected: delete only what still is as it was when the catalog showed it like this
    :param bucket: what is known of the bucket's locks already
    :raises ConfigError: it is on hold, or there is something under this name that is no backup
    :raises BackupInUse: it is being written or restored
    :raises StorageDenied: the store keeps it by Object Lock or a legal hold, or refuses to delete objects of it; the message names some
    """
    started, root = time.monotonic(), store.location.root_path
    uri = f"s3://{store.location.bucket}/{layout.join(root, check_backup_name(name))}"
    bucket = bucket or bucket_lock(store)
    found = _find(store, name, bucket)
    if found is None:
        if name in _NO_NAMES:
            raise ConfigError(f"there is no backup {name!r} in {store.location}, and {_NO_NAMES[name]}; name the backup to delete")
        reporter.line(f"backup {name!r} is not in {store.location}; there is nothing to delete")
        return Deleted(name, uri, MISSING)
    if expected and not expected.leased and found.written != expected.written:  # before the lease, which is written to as well
        raise _changed(name)
    # Only now, for the lease is itself a sign of a backup.
    lease = Lease(store, layout.lease_key(root, name), owner, deletion_of(name), reporter)
    lease.take()
    try:
        with lease.kept(store.patience):
            entry = _find(store, name, bucket)
            if entry is None or (expected and _identity(entry) != _identity(expected)):
                raise _changed(name)
            removal = _Removal(store, name, lease, reporter)
            removal.unlist(entry)
            for parts in PARTS:
                removal.remove(parts)
            removal.tell_strays()
            if bucket.can:
                reporter.line(f"bucket {store.location.bucket!r} keeps versions: space is free when a lifecycle rule has removed those")
    finally:
        lease.give_up()
        store.patience.failure = None  # the lease of this backup says nothing about the next one
    seconds = round(time.monotonic() - started, 3)
    reporter.line(
        f"deleted the {entry.state} backup {name!r}: {counted(removal.objects, 'object')}, {written(removal.bytes)}, in {duration(seconds)}"
    )
    return Deleted(name, uri, entry.state, removal.objects, removal.bytes, seconds)


def apply_policy(store: ObjectStore, policy: RetentionPolicy, owner: Owner, reporter: Reporter, *, dry_run: bool = False) -> dict[str, Any]:
    """Delete the backups that a policy does not keep, the oldest first, as of now by the store's clock.

    :param dry_run: print what would happen, the same table, and delete nothing
    :return: ``{"kept": count, "removed": [name], "table": [line], "dry_run": bool}``, of the table :data:`MAX_LINES` at most
    :raises ConfigError: the policy would weigh backups of several tasks against each other
    :raises MilvusBackupError: some could not be deleted; the others are. Its class is that of one of their errors, one that a retry may
        help where there is one
    """
    if not isinstance(dry_run, bool):
        raise ConfigError(f"dry_run {dry_run!r} is neither True nor False; it is not a template")
    catalog = read_catalog(store, policy.name_pattern, unfinished=True)
    check_kinds(catalog.entries, policy)
    bucket = bucket_lock(store)
    decisions = plan(with_locks(store, catalog.entries, catalog.now, bucket, reporter), policy, catalog.now)
    decisions = with_begun(store, decisions, owner)
    lines = table(decisions)
    for line in lines:
        reporter.line(line)
    if not decisions:
        reporter.warn(f"no backup in {store.location} has a name that fits name_pattern {policy.name_pattern!r}")
    going = [decision.backup for decision in reversed(decisions) if not decision.keep]
    removed, failed = [], dict[str, MilvusBackupError]()
    for entry in going:
        try:
            if not dry_run:
                delete(store, entry.name, owner, reporter, expected=entry, bucket=bucket)
            removed.append(entry.name)
        except MilvusBackupError as error:
            if isinstance(error, Cancelled) or (isinstance(error, StorageError) and error.passing):
                raise  # so it would be with every other one
            failed[entry.name] = error
            reporter.warn(f"backup {entry.name!r} stays: {error}")
    reporter.line(
        f"dry run: {counted(len(removed), 'backup')} of {len(decisions):,} would be removed"
        if dry_run
        else f"removed {counted(len(removed), 'backup')} of {len(decisions):,}"
    )
    if failed:
        told = "; ".join(f"{name}: {error}" for name, error in list(failed.items())[:5]) + ("; …" if len(failed) > 5 else "")
        kind = type(max(failed.values(), key=lambda error: error.retryable))
        raise kind(f"{len(failed):,} of {counted(len(going), 'backup')} to remove could not be removed: {told}")
    if (more := len(lines) - MAX_LINES) > 0:
        lines = [*lines[:MAX_LINES], f"… and {more:,} more, which the log shows"]
    return {"kept": len(decisions) - len(going), "removed": removed, "table": lines, "dry_run": dry_run}


def _find(store: ObjectStore, name: str, bucket: BucketLock) -> CatalogEntry | None:
    """Return the backup of this name if it may be deleted, None when nothing is there."""
    catalog = read_catalog(store, name, unfinished=True)
    for entry in with_locks(store, catalog.entries, catalog.now, bucket):
        check_not_held(entry, "deleted")
        check_not_locked(entry, "deleted")
        moment = entry.committed or entry.written
        lately = moment is not None and catalog.now - moment < QUIET
        if moment and lately and entry.tool == OFFICIAL and entry.state != COMPLETE and not begun(store, entry):
            ago, quiet = duration(max(0.0, (catalog.now - moment).total_seconds())), duration(QUIET.total_seconds())
            raise BackupInUse(
                f"backup {name!r} is not complete, and was written to {ago} ago: milvus-backup may be making it; "
                f"delete it when nothing was added for {quiet}"
            )
        return entry
    stray = next(iter(store.objects(layout.backup_dir(store.location.root_path, name))), None)
    if stray:
        raise ConfigError(
            f"{name!r} in {store.location} is not a backup: it holds {stray.key!r} and nothing that only a backup has. Nothing was "
            "deleted; correct the backup name, the bucket or backup_root_path"
        )
    return None


def _changed(name: str) -> BackupInUse:
    return BackupInUse(f"backup {name!r} has changed since it was looked at; nothing of it was deleted, look again")


def _identity(entry: CatalogEntry) -> tuple[object, ...]:
    return entry.state, entry.backup_id, entry.committed, entry.created


class _Removal:
    """The removal of one backup, under its lease."""

    def __init__(self, store: ObjectStore, name: str, lease: Lease, reporter: Reporter) -> None:
        self.store, self.name, self.lease, self.reporter = store, name, lease, reporter
        self.directory = layout.backup_dir(store.location.root_path, name)
        self.objects = self.bytes = 0
        self._counting = threading.Lock()
        self._client = store.boto3_client()
        self._client.meta.events.register("before-sign.s3.DeleteObjects", _with_md5)

    def unlist(self, entry: CatalogEntry) -> None:
        """Delete the commit mark.

        :raises BackupInUse: somebody restores the backup; the mark is there, as before
        """
        self._check_unused()
        key = f"{self.directory}{MARK}"
        try:
            content = self.store.read(key, MAX_BYTES) if entry.state == COMPLETE else None
            found = self.store.head(key)
        except NotInStorage:
            return
        self._delete([found], "nothing of the backup was deleted")
        try:
            self._check_unused()
        except BackupInUse:
            if content is not None:
                self.store.create(key, content)
            raise

    def remove(self, parts: Iterable[str]) -> None:
        """Delete everything in some of the backup's directories, but for the lease; what is refused stops it behind these."""
        refused: dict[str, str] = {}
        running = deque[Future[dict[str, str]]]()
        listed = (item for part in parts for item in self.store.objects(f"{self.directory}{part}/") if item.key != self.lease.key)
        with ThreadPoolExecutor(AT_ONCE, "delete") as pool:
            for page in _pages(item for item in listed if item.key.startswith(self.directory)):
                if len(running) == AT_ONCE:
                    refused |= running.popleft().result()
                self.store.patience.check(f"backup {self.name!r} was deleted; it is no longer listed, delete it again to go on")
                self.lease.confirm()  # another backup may have taken the name
                running.append(pool.submit(self._try, page))
                self.reporter.progress(f"deleted {self.objects:,} objects, {written(self.bytes)}, of backup {self.name!r}")
            for left in running:
                refused |= left.result()
        if refused:
            raise self._denied(refused, "The backup is no longer listed; delete it again when they may go")

    def tell_strays(self) -> None:
        """Say what is left because it is no part of a backup."""
        rest = next((item.key for item in self.store.objects(self.directory) if item.key != self.lease.key), "")
        if rest:
            self.reporter.warn(f"{rest!r} in {self.store.location}, and maybe more beside it, is no part of a backup and stays")

    def _check_unused(self) -> None:
        others = [held for held in in_use(self.store, self.store.location.root_path, self.name) if held.token != self.lease.holding.token]
        if others:
            who = "; ".join(f"{held} is about to {held.doing}" for held in others)
            raise BackupInUse(f"backup {self.name!r} is in use and cannot be deleted: {who}; delete it when that is done")

    def _delete(self, page: list[StoredObject], otherwise: str) -> None:
        if refused := self._try(page):
            raise self._denied(refused, otherwise)

    def _denied(self, refused: dict[str, str], state: str) -> StorageDenied:
        some = ", ".join(f"{key!r} ({why})" for key, why in list(refused.items())[:3]) + (", …" if len(refused) > 3 else "")
        return StorageDenied(
            f"{self.store.location} refused to delete {counted(len(refused), 'object')} of backup {self.name!r}: {some}. It is kept by "
            f"Object Lock or a legal hold, or the key lacks the permission to delete. {state}"
        )

    def _try(self, page: list[StoredObject]) -> dict[str, str]:
        """Delete up to 1,000 objects in one request, and those again that the store was too busy for; return why it refused which."""
        sizes, left = {item.key: item.size for item in page}, [item.key for item in page]
        refused: dict[str, str] = {}
        backoff = Backoff(BUDGET, self.store.patience)
        while left:
            asked = {"Objects": [{"Key": key} for key in left], "Quiet": True}
            try:
                with self.store.explained(f"delete {counted(len(left), 'object')} of backup {self.name!r} in"):
                    answer = self._client.delete_objects(Bucket=self.store.location.bucket, Delete=asked)
            except StorageError as error:
                if not (error.passing and backoff.again(str(error))):
                    raise
                continue
            errors = {error["Key"]: error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"}
            busy = [key for key, error in errors.items() if _PASSING.fullmatch(error.get("Code", ""))]
            refused |= {key: f"{error.get('Code')}: {error.get('Message', '')}" for key, error in errors.items() if key not in busy}
            gone = [key for key in left if key not in errors]
            with self._counting:
                self.objects += len(gone)
                self.bytes += sum(sizes[key] for key in gone)
            if busy and not backoff.again(f"{len(busy):,} objects could not be deleted"):
                raise self._too_busy(errors[busy[0]], len(busy))
            left = busy
        return refused

    def _too_busy(self, error: Any, count: int) -> StorageError:
        raised = StorageError(
            f"{self.store.location} was too busy for {duration(BUDGET)} to delete {counted(count, 'object')} of backup {self.name!r} "
            f"({error['Key']!r}: {error.get('Code')}: {error.get('Message', '')}); delete the backup again to go on"
        )
        raised.passing = True
        return raised


def _pages(items: Iterable[StoredObject]) -> Iterator[list[StoredObject]]:
    rest = iter(items)
    while page := list(islice(rest, PAGE)):
        yield page


def _with_md5(request: Any, **_: Any) -> None:
    """Add the digest that S3 asked for before it knew other checksums: older stores refuse a deletion without it."""
    digest = hashlib.md5(request.body if isinstance(request.body, bytes) else request.body.encode(), usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
