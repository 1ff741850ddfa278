"""Holds: a person's word that a backup is not to be deleted, until it is released or its time is over by the store's clock.

A hold is ``provider/hold.json`` in the backup (the format is in :mod:`.catalog_entry`). It is written and removed under the lease of the
backup, so that it never comes too late for a deletion that has begun: one of the two is refused.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from . import layout
from .catalog import read_catalog
from .catalog_entry import COMPLETE, HOLD, HOLD_VERSION, CatalogEntry
from .errors import BackupNotFound, ConfigError
from .lease import Lease, Owner
from .names import check_backup_name
from .object_lock import bucket_lock, check_not_locked, with_locks
from .reader import read_backup
from .report import Reporter
from .store import ObjectStore


def hold(
    store: ObjectStore, name: str, reason: str, owner: str, until: datetime | str | None, worker: Owner, reporter: Reporter
) -> dict[str, Any]:
    """Put a backup on hold; the same owner may do so again, with another reason or end. Returns the hold.

    :param reason: why; whoever wants to delete the backup reads it
    :param owner: who can be asked to release it
    :param until: the end, in the future and with a time zone; None is until it is released
    :param worker: who calls, as the lease shows it
    :raises ConfigError: no reason, no owner, an end that is none; or the backup is on hold of somebody else
    :raises BackupNotFound: there is no backup of this name
    :raises BackupInUse: it is being written or deleted
    :raises TakenOver: it took so long that somebody else has begun to write or delete it; look whether the backup is still complete
    """
    for argument, value in (("reason", reason), ("owner", owner)):
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"{argument} {value!r}: a hold needs a reason and an owner, for whoever finds it in a year")
    end = _end(until)
    now, entry = _find(store, name)
    if end and end <= now:
        raise ConfigError(f"until {_text(end)} is not in the future: it is {_text(now)} by the clock of {store.location}")
    lease = Lease(store, layout.lease_key(store.location.root_path, name), worker, f"put backup {name!r} on hold", reporter)
    lease.take()
    try:
        now, entry = _find(store, name)
        if entry.hold and entry.hold["owner"] != owner.strip():
            raise ConfigError(f"{_told(entry)}. Release it first, if {entry.hold['owner'] or 'its owner'} agrees")
        held = {"reason": reason.strip(), "owner": owner.strip(), "until": _text(end) if end else None, "since": _text(now)}
        store.write(_key(store, name), json.dumps({"version": HOLD_VERSION, **held}).encode())
        lease.renew()  # else somebody may have begun to delete the backup before the hold was there
    finally:
        lease.give_up()
    reporter.line(f"backup {name!r} is on hold{f' until {_text(end)}' if end else ''}: {held['reason']}")
    if entry.state != COMPLETE:
        reporter.warn(f"backup {name!r} is {entry.state}, so the hold keeps what there is of it: {entry.reason}")
    return held


def release(store: ObjectStore, name: str, worker: Owner, reporter: Reporter) -> dict[str, Any] | None:
    """End the hold of a backup; returns what it was, None when the backup was not on hold, which is a success.

    :raises BackupNotFound: there is no backup of this name
    :raises BackupInUse: it is being written or deleted
    """
    _, entry = _find(store, name)
    if entry.hold is None:
        reporter.line(f"backup {name!r} is not on hold")
        return None
    lease = Lease(store, layout.lease_key(store.location.root_path, name), worker, f"release backup {name!r}", reporter)
    lease.take()
    try:
        store.delete([_key(store, name)])
    finally:
        lease.give_up()
    reporter.line(f"released: {_told(entry)}")
    return entry.hold


def check_not_held(entry: CatalogEntry, what: str) -> None:
    """Raise ConfigError when a hold is on the backup.

    :param what: what it cannot be, for the message
    """
    if entry.hold:
        raise ConfigError(f"{_told(entry)}. It cannot be {what}: wait for the end, or call release_backup({entry.name!r}) first")


def check_replaceable(store: ObjectStore, name: str, finished: str | None) -> None:
    """Raise ConfigError when a hold is on the backup of this name, which a new one would replace; StorageDenied when the store keeps it.

    :param finished: its id, None when there is none
    """
    if finished is not None:
        now, entry = _find(store, name)
        check_not_held(entry, "replaced")
        (entry,) = with_locks(store, [entry], now, bucket_lock(store))
        check_not_locked(entry, "replaced")


def _told(entry: CatalogEntry) -> str:
    found = entry.hold or {}
    end = f"until {found['until']}" if found.get("until") else "without an end"
    return f"backup {entry.name!r} is on hold of {found.get('owner') or 'nobody known'} {end}: {found.get('reason') or 'no reason given'}"


def _find(store: ObjectStore, name: str) -> tuple[datetime, CatalogEntry]:
    catalog = read_catalog(store, check_backup_name(name), unfinished=True)
    if not catalog.entries:
        read_backup(store, name)  # raises, and names those that there are
        raise BackupNotFound(f"backup {name!r} was not in {store.location} until this moment; look again")
    return catalog.now, catalog.entries[0]


def _key(store: ObjectStore, name: str) -> str:
    return layout.join(store.location.root_path, name, HOLD)


def _end(until: datetime | str | None) -> datetime | None:
    """Return the end of a hold in UTC; raises ConfigError unless it is a time with a zone."""
    if until is None:
        return None
    try:
        moment = datetime.fromisoformat(until.strip().replace("Z", "+00:00")) if isinstance(until, str) else until
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError, AttributeError):
        raise ConfigError(f"until {until!r} is not a time with its zone; write it as in `2027-01-31T00:00:00+00:00`") from None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
