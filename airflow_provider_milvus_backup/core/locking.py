"""Locking a complete backup by S3 Object Lock, so that until some day nobody deletes it, whoever holds the keys.

A copy inside the store carries no retention, so a backup is locked after its commit: the data first, the commit mark last. Hence a
locked mark says that all is locked, and whoever comes after a crash goes on. The end is counted from the commit, by the store's clock,
so that it is the same in every try. Locked is what a restore or a verification reads: data, meta, the schemas and the manifest. Leases,
holds and the like beside them are not, for they must change.

``GOVERNANCE`` can be lifted by who has the permission ``s3:BypassGovernanceRetention``, ``COMPLIANCE`` by nobody, the owner of the account
included; a lock can always be made longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from . import attempt as attempts
from . import layout
from .catalog import read_catalog
from .catalog_entry import COMPLETE, MANIFEST, MARK, SCHEMAS, CatalogEntry
from .errors import BackupDamaged, BackupNotFound, ConfigError, StorageDenied, StorageError
from .lease import Lease, Owner
from .names import check_backup_name
from .object_lock import COMPLIANCE, GOVERNANCE, MODES, THREADS, BucketLock, Lock, bucket_lock, lock_of
from .patience import Backoff
from .report import Reporter, counted
from .store import BUDGET, ObjectStore

#: Requests that wait for a thread at most, so that a backup of millions of objects is never in memory.
_QUEUE = 4 * THREADS
_LONGEST = 36500


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days from its commit a backup is locked, and how.

    ``implied``: the bucket locks every object by itself, so that a locked commit mark does not say that we have locked the data.
    """

    days: int
    mode: str
    implied: bool = False

    def until(self, committed: datetime) -> datetime:
        """Return the end of the lock, in whole seconds, as S3 keeps it."""
        return committed.replace(microsecond=0) + timedelta(days=self.days)


def check_days(days: int | None, mode: str, if_exists: str = attempts.FAIL) -> None:
    """Raise ConfigError for days or a mode that cannot be used; None is no lock."""
    if days is None:
        return
    if isinstance(days, bool) or not isinstance(days, int) or not 0 < days <= _LONGEST:
        raise ConfigError(f"object_lock_days {days!r} is not a number of days from 1 to {_LONGEST:,}; leave it out for no lock")
    if mode not in MODES:
        raise ConfigError(f"object_lock_mode {mode!r} is not one of {', '.join(MODES)}")
    if if_exists == attempts.REPLACE:
        raise ConfigError("object_lock_days and if_exists='replace' contradict each other: what is locked stays; name each backup anew")


def planned(store: ObjectStore, days: int | None, mode: str, if_exists: str) -> Retention | None:
    """Return how a backup that is going to be made will be locked, None where it will not; raises ConfigError where it cannot be."""
    check_days(days, mode, if_exists)
    return None if days is None else retention(store, days, mode)


def lock_planned(store: ObjectStore, name: str, wanted: Retention | None, owner: Owner, reporter: Reporter) -> dict[str, Any]:
    """Lock a backup that was made just now, or was there, as planned; returns ``{"object_lock": {"mode", "until"}}``, or nothing."""
    if wanted is None:
        return {}
    with reporter.phase("Lock"):
        return {"object_lock": lock(store, name, wanted, owner, reporter)}


def retention(store: ObjectStore, days: int, mode: str) -> Retention:
    """Return how a backup is locked in this bucket: for longer where the bucket locks every object for longer by itself.

    :raises ConfigError: the bucket has no Object Lock, or a default that does not allow this
    """
    check_days(days, mode)
    found = bucket_lock(store)
    if found.can is False:
        raise ConfigError(
            f"object_lock_days {days}: bucket {store.location.bucket!r} has no Object Lock; enable it, which needs versioning, choose "
            "another backup bucket, or leave object_lock_days out"
        )
    return combined(Retention(days, mode), found)


def combined(wanted: Retention, bucket: BucketLock) -> Retention:
    """Return what comes of a wanted retention and the bucket's default, which every object has got when it was written."""
    if not bucket.days or not bucket.mode:
        return wanted
    if wanted.mode == COMPLIANCE and bucket.mode == GOVERNANCE:
        raise ConfigError(
            "object_lock_mode 'COMPLIANCE': the bucket locks every object in mode GOVERNANCE by default, which is not replaced by another "
            "mode; ask for GOVERNANCE, or change the default retention of the bucket"
        )
    return Retention(max(wanted.days, bucket.days), bucket.mode, implied=True)


def lock(store: ObjectStore, name: str, wanted: Retention, owner: Owner, reporter: Reporter) -> dict[str, Any]:
    """Lock a complete backup of either tool, and return ``{"mode", "until"}``; one that is locked as long or longer stays as it is.

    :raises BackupNotFound, BackupDamaged: there is no complete backup of this name
    :raises BackupInUse: it is being written or deleted
    :raises StorageDenied: the store refuses; what is locked by then stays so, and calling again goes on
    """
    found = _complete(store, name)
    assert found.committed, "a complete backup has a commit mark"
    until, mark = wanted.until(found.committed), layout.join(store.location.root_path, name, MARK)
    told = {"mode": wanted.mode, "until": until.isoformat(timespec="seconds")}
    if not wanted.implied and _is_locked(lock_of(store, mark), wanted.mode, until):
        reporter.line(f"backup {name!r} is locked until {told['until']} or longer")
        return told
    if until <= store.times(mark)[1]:
        reporter.line(f"backup {name!r} is not locked: the {counted(wanted.days, 'day')} after its commit are over")
        return told
    lease = Lease(store, layout.lease_key(store.location.root_path, name), owner, f"lock backup {name!r}", reporter)
    lease.take()
    try:
        with lease.kept(store.patience):
            if _complete(store, name).committed != found.committed:
                raise BackupNotFound(f"backup {name!r} was replaced in this moment; lock it again")
            objects = _Locker(store, name, wanted.mode, until, reporter).all()
    finally:
        lease.give_up()
    reporter.line(f"locked {counted(objects, 'object')} of backup {name!r} until {told['until']} ({wanted.mode})")
    return told


def _complete(store: ObjectStore, name: str) -> CatalogEntry:
    entries = read_catalog(store, check_backup_name(name), unfinished=True).entries
    if not entries:
        raise BackupNotFound(f"backup {name!r} is not in {store.location}; correct the name, the bucket or backup_root_path")
    if entries[0].state != COMPLETE:
        raise BackupDamaged(f"backup {name!r} is {entries[0].state}, and only complete ones are locked: {entries[0].reason}")
    return entries[0]


def _is_locked(found: Lock, mode: str, until: datetime) -> bool:
    """Return whether an object is locked as long as is wanted, and as firmly."""
    return found.until is not None and found.until >= until and found.mode in {mode, COMPLIANCE}


class _Locker:
    def __init__(self, store: ObjectStore, name: str, mode: str, until: datetime, reporter: Reporter) -> None:
        self.store, self.name, self.mode, self.until, self.reporter = store, name, mode, until, reporter

    def all(self) -> int:
        """Lock everything that a restore or a verification reads, the commit mark last; returns how many objects that were."""
        directory, done = layout.backup_dir(self.store.location.root_path, self.name), 0
        keys = self._keys(directory)
        with ThreadPoolExecutor(THREADS, "lock") as pool:
            running = {pool.submit(self._one, key) for key in islice(keys, _QUEUE)}
            try:
                while running:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for one in ended:
                        one.result()
                    done += len(ended)
                    self.store.patience.check(f"backup {self.name!r} was locked: it is complete, and a retry goes on")
                    self.reporter.progress(f"locked {done:,} objects of backup {self.name!r}")
                    running |= {pool.submit(self._one, key) for key in islice(keys, len(ended))}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._one(f"{directory}{MARK}")
        return done + 1

    def _keys(self, directory: str) -> Iterator[str]:
        for part in ("binlogs", "bundle", "meta"):
            yield from (item.key for item in self.store.objects(f"{directory}{part}/") if item.key != f"{directory}{MARK}")
        for file in (SCHEMAS, MANIFEST):
            if self.store.exists(f"{directory}{file}"):
                yield f"{directory}{file}"

    def _one(self, key: str) -> None:
        kept = {"Mode": self.mode, "RetainUntilDate": self.until}
        backoff = Backoff(BUDGET, self.store.patience)
        while True:
            try:
                with self.store.explained(f"lock {key!r} in"):
                    self.store.s3.put_object_retention(Bucket=self.store.location.bucket, Key=key, Retention=kept)
                return
            except StorageDenied as error:
                # A lock is never made shorter, so one that is longer is refused.
                if _is_locked(lock_of(self.store, key), self.mode, self.until):
                    return
                raise StorageDenied(
                    f"{error}. Backup {self.name!r} is complete, but not locked: grant s3:PutObjectRetention, and run it again"
                ) from None
            except StorageError as error:
                if not (error.passing and backoff.again(str(error))):
                    raise
