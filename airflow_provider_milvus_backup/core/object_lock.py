"""What a bucket does by itself to keep objects: versioning, Object Lock, legal holds.

In a bucket that can lock, a deletion only hides an object behind a delete marker, locked or not: the store then keeps, and charges for,
what nobody finds any more. So whoever deletes backups asks first (:func:`with_locks`). One question per bucket decides: where it cannot
lock, nothing more is asked; where it can, or does not say, one HEAD of each backup's commit mark, which is locked last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, TypeVar

from . import layout
from .catalog_entry import MARK, CatalogEntry
from .errors import NotInStorage, StorageDenied, StorageError
from .report import Reporter
from .store import ObjectStore

GOVERNANCE, COMPLIANCE = "GOVERNANCE", "COMPLIANCE"
MODES = (GOVERNANCE, COMPLIANCE)
THREADS = 32
#: What stores say that do not know a request, or whose bucket has nothing of what was asked for.
_NOTHING = ("NotFoundError", "NoSuchLifecycleConfiguration", "NotImplemented", "MethodNotAllowed", "not found")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BucketLock:
    """Whether a bucket can lock objects, and for how many days it locks each one by default (0: not by default).

    ``can`` is None where the store does not let that be asked; ``reason`` then says why.
    """

    can: bool | None
    mode: str = ""
    days: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lock:
    """What the store keeps one object by: until when, in which mode, and whether a legal hold, which has no end, is on it."""

    mode: str = ""
    until: datetime | None = None
    legal_hold: bool = False

    def holds(self, now: datetime) -> bool:
        """Return whether it keeps the object at this moment."""
        return self.legal_hold or bool(self.until and self.until > now)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON: mode, until (ISO 8601, UTC) and legal_hold."""
        until = self.until.astimezone(timezone.utc).isoformat(timespec="seconds") if self.until else None
        return {"mode": self.mode, "until": until, "legal_hold": self.legal_hold}


def is_versioned(store: ObjectStore) -> bool | None:
    """Return whether a bucket keeps what is deleted and overwritten; None where the store does not let that be asked.

    :raises StorageError: it cannot be asked now
    """

    def look(s3: Any, bucket: str) -> bool:
        return bool(s3.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled")

    return _asked(store, "versioning of", look, False)


def expires_versions(store: ObjectStore) -> bool | None:
    """Return whether a rule of the bucket removes versions that were deleted or overwritten; None as for :func:`is_versioned`."""

    def look(s3: Any, bucket: str) -> bool:
        rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", ())
        return any(rule.get("Status") == "Enabled" and "NoncurrentVersionExpiration" in rule for rule in rules)

    return _asked(store, "lifecycle of", look, False)


def bucket_lock(store: ObjectStore) -> BucketLock:
    """Return whether a bucket can lock objects. One request; a second one where the first is denied.

    :raises StorageError: it cannot be asked now
    """

    def look(s3: Any, bucket: str) -> BucketLock:
        found = s3.get_object_lock_configuration(Bucket=bucket).get("ObjectLockConfiguration", {})
        default = found.get("Rule", {}).get("DefaultRetention", {})
        days = default.get("Days", 0) + 365 * default.get("Years", 0)
        return BucketLock(found.get("ObjectLockEnabled") == "Enabled", default.get("Mode", ""), days)

    found = _asked(store, "Object Lock of", look, BucketLock(False))
    if found is None and is_versioned(store) is False:
        return BucketLock(False)  # without versions there are no locks
    why = f"the key may not ask for the Object Lock configuration of {store.location}, or the store does not understand"
    return found or BucketLock(None, reason=why)


def lock_of(store: ObjectStore, key: str) -> Lock:
    """Return what keeps an object, as far as the key may see it; raises NotInStorage."""
    with store.explained(f"look for {key!r} in"):
        found = store.s3.head_object(Bucket=store.location.bucket, Key=key)
    until, hold = found.get("ObjectLockRetainUntilDate"), found.get("ObjectLockLegalHoldStatus") == "ON"
    return Lock(found.get("ObjectLockMode", ""), until and until.astimezone(timezone.utc), hold)


def with_locks(
    store: ObjectStore, entries: Sequence[CatalogEntry], now: datetime | None, bucket: BucketLock, reporter: Reporter | None = None
) -> list[CatalogEntry]:
    """Return entries with what the store keeps them by.

    :param now: the store's time; locks that are over by then are none. Without it the store is asked
    :param bucket: what :func:`bucket_lock` has returned for this bucket
    :param reporter: where to say that the bucket does not tell whether it locks
    """
    if bucket.can is False:
        return list(entries)
    if bucket.can is None and reporter:
        reporter.warn(f"{bucket.reason}; locks are known only as far as the key may see those of single objects")

    def look(entry: CatalogEntry) -> CatalogEntry:
        if not entry.committed:
            return entry
        mark = layout.join(store.location.root_path, entry.name, MARK)
        try:
            lock = lock_of(store, mark)
            return replace(entry, locked=lock.to_dict()) if lock.holds(now or store.times(mark)[1]) else entry
        except (NotInStorage, StorageDenied):
            return entry

    with ThreadPoolExecutor(THREADS, "locks") as pool:
        return list(pool.map(look, entries))


def check_not_locked(entry: CatalogEntry, what: str) -> None:
    """Raise StorageDenied when the store keeps the backup.

    :param what: what it cannot be, for the message
    """
    if entry.locked:
        raise StorageDenied(
            f"backup {entry.name!r} is {entry.lock} by the store. It cannot be {what}: its objects would stay, and be charged for, where "
            "nobody finds them; wait for the end, or let whoever may lift the lock first"
        )


def _asked(store: ObjectStore, what: str, look: Callable[[Any, str], T], nothing: T) -> T | None:
    """Return what ``look`` returns; ``nothing`` where the store knows none of it, and None where it does not let that be asked."""
    try:
        with store.explained(f"ask for the {what}"):
            return look(store.s3, store.location.bucket)
    except StorageError as error:
        if error.passing or "bucket does not exist" in str(error):
            raise
        return nothing if any(sign in str(error) for sign in _NOTHING) else None
