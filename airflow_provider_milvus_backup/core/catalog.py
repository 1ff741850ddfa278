"""The catalog: which backups there are, from their smallest files.

After one listing of the backup root, a backup costs the same however large it is:

=========  ==============================================================================================================================
a listing  of ``meta/`` and ``provider/``, which follow the data in key order: what is there, and since when by the store's clock. A
           listing instead of attempts to read, for it also shows a meta that is incomplete, and that there is no hold
a read     of ``meta/backup_meta.json``, the commit mark
a read     of ``provider/catalog.json``, which a backup of ours has: what the commit mark does not say. ``summary.json`` will not do: it
           grows with the collections, names 100 of them at most, and does not say which attempt it is of
a read     each of ``verified.json``, ``drill.json`` and ``hold.json`` in ``provider/`` and of leases, where the listing shows them
=========  ==============================================================================================================================

What follows from what is read, is decided in :mod:`.catalog_entry`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, NamedTuple

from . import layout, meta
from .attempt import Attempt
from .catalog_entry import (
    ATTEMPT,
    COMPLETE,
    DAMAGED,
    DRILLED,
    FACTS,
    FACTS_VERSION,
    HOLD,
    LEASE,
    MARK,
    MAX_BYTES,
    OWN,
    SCHEMAS,
    UNREADABLE,
    VERIFIED,
    WRITTEN,
    CatalogEntry,
    File,
    entry_of,
    is_backup,
    read_hold,
    read_lease,
    unfinished_of,
)
from .errors import BackupDamaged, BackupNotFound, ConfigError, NotInStorage, StorageError, UnsupportedFormat
from .names import check_backup_name
from .object_lock import bucket_lock, with_locks
from .reader import read_backup
from .store import ObjectStore
from .summary import BackupSummary, CollectionSummary

#: Backups that are looked at at once.
THREADS = 32
#: Objects that are looked at to find out whether they are of a backup.
_ENOUGH = 1000


class Catalog(NamedTuple):
    """Backups, newest first, and what time it was by the store's clock when they were listed."""

    now: datetime
    entries: list[CatalogEntry]


def read_catalog(store: ObjectStore, name_pattern: str | None = None, *, unfinished: bool = False) -> Catalog:
    """Return the backups of a backup root, newest first; damaged ones are among them, and say why.

    A backup that the store does not let be looked at is ``unreadable`` and hides no other.

    :param name_pattern: of the names, with ``*``, ``?`` and ``[…]``; all without one
    :param unfinished: also those without a commit mark. In one of the official tool the data is listed as well, 1,000 objects a request,
        for only the data shows when that tool wrote last
    :raises StorageError: the root cannot be listed, or no backup could be looked at, or the store went away
    """
    if name_pattern is not None and not name_pattern.strip():
        raise ConfigError("name_pattern is empty; leave it out for all backups, or name some, as in 'nightly_*'")
    directories, now = store.directories_now(store.location.root_path)
    names = [name for name in directories if _is_name(name) and fnmatchcase(name, name_pattern or "*")]
    found, errors = [], []
    with ThreadPoolExecutor(THREADS, "catalog") as pool:
        looking = {pool.submit(_look, store, name, unfinished=unfinished): name for name in names}
        try:
            for done in as_completed(looking):
                try:
                    entry = done.result()
                except StorageError as error:
                    errors.append(error)
                    if len(errors) == len(names) or sum(one.passing for one in errors) >= THREADS:
                        raise
                    entry = CatalogEntry(looking[done], UNREADABLE, str(error))
                if entry:
                    found.append(entry)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Catalog(now, newest_first(found))


def newest_first(entries: list[CatalogEntry]) -> list[CatalogEntry]:
    """Return entries by their time, the newest first; those of one moment by name, those without a time last."""
    never = datetime.min.replace(tzinfo=timezone.utc)
    return sorted(sorted(entries, key=lambda entry: entry.name), key=lambda entry: entry.time or never, reverse=True)


def describe(store: ObjectStore, name: str) -> dict[str, Any]:
    """Return everything about one backup: its entry, and from its whole meta what is in it, collection by collection.

    :raises BackupNotFound: nothing of a backup is there under this name
    """
    files = _files(store, check_backup_name(name))
    entry = _entry(store, name, files, unfinished=True)
    if entry is None:
        read_backup(store, name)  # raises, and names those that there are
        raise BackupNotFound(f"backup {name!r} was not in {store.location} until this moment; look again")
    (entry,) = with_locks(store, [entry], None, bucket_lock(store))
    inside: dict[str, Any] = {}
    if entry.state == COMPLETE:
        try:
            backup = read_backup(store, name)
            if (backup.backup_id, backup.name) != (entry.backup_id, name):
                attempt = replacement(store, name, entry.backup_id)
                if attempt is None or (backup.backup_id, backup.name) != (attempt.backup_id, name):
                    other = f"the meta is of backup {backup.name[:128]!r} with another id or name than {layout.COMMIT_MARK} has"
                    raise BackupDamaged(other)
                why = f"replaced by {attempt.owner} but for the commit mark: a restore finds the new backup"
                entry = replace(entry, reason=f"{why}. Run that backup again to finish it")
        except BackupDamaged as error:
            entry = replace(entry, state=DAMAGED, reason=str(error))
        except UnsupportedFormat as error:
            entry = replace(entry, reason=str(error))
        else:
            entry, inside = _with_meta(entry, backup), _contents(backup)
    return {**entry.to_dict(), "has_schemas": SCHEMAS in files, **inside}


def replacement(store: ObjectStore, name: str, marked: str) -> Attempt | None:
    """Return the attempt that was to replace a complete backup and has not been committed, None where there is none.

    Once such an attempt has written its full_meta.json, a restore finds the new backup, of which everything is there but the commit mark.

    :param marked: the id that the commit mark says
    """
    try:
        attempt = Attempt.from_json(store.read(layout.join(store.location.root_path, name, ATTEMPT), MAX_BYTES))
    except (NotInStorage, BackupDamaged):
        return None
    return attempt if attempt.replaces == marked != attempt.backup_id else None


def _with_meta(entry: CatalogEntry, backup: meta.Backup) -> CatalogEntry:
    listed = [CollectionSummary.of(collection) for collection in backup.collections]
    return replace(
        entry,
        collections=[str(collection.name) for collection in backup.collections],
        objects=sum(collection.objects for collection in listed),
        rows=None if backup.format == meta.SNAPSHOT else sum(collection.rows for collection in listed),
    )


def _contents(backup: meta.Backup) -> dict[str, Any]:
    snapshot, users = backup.format == meta.SNAPSHOT, backup.rbac
    return {
        "databases": sorted({*(database.name for database in backup.databases), *(c.name.database for c in backup.collections)}),
        "collections": [
            {
                **CollectionSummary.of(collection).to_dict(),
                # Milvus does not say how many are in what it exports.
                **({"rows": None, "segments": None} if snapshot else {}),
                "collection_id": collection.collection_id,
                "partitions": len(collection.partitions),
                "indexes": len(collection.indexes),
                "load_state": collection.load_state,
                "aliases": len(collection.aliases),
            }
            for collection in backup.collections
        ],
        # Numbers alone: what there is of a user includes the hash of a password.
        "rbac": users
        and {
            "users": len(users.users),
            "roles": len(users.roles),
            "grants": len(users.grants),
            "privilege_groups": len(users.privilege_groups),
        },
        "warnings": backup.warnings,
    }


def record(store: ObjectStore, backup: meta.Backup, summary: BackupSummary) -> None:
    """Write ``provider/catalog.json``, before the commit mark.

    The time of creation is the store's: when the plan was written, or ``summary.seconds`` ago where that is earlier.
    """
    try:
        planned, now = store.times(layout.join(store.location.root_path, backup.name, ATTEMPT))
    except NotInStorage:  # another run has taken over, and the commit is about to find out
        return
    told = summary.to_dict()
    content = {
        "version": FACTS_VERSION,
        "backup_id": backup.backup_id,
        "manifest": True,
        "created": min(planned, now - timedelta(seconds=summary.seconds)).isoformat(timespec="seconds"),
        "collections": [str(collection.name) for collection in backup.collections],
        **{key: told[key] for key in ("strategy", "rows", "objects")},
    }
    store.write(layout.join(store.location.root_path, backup.name, FACTS), json.dumps(content).encode())


def _is_name(name: str) -> bool:
    """Return whether either tool can have written a backup of this name."""
    try:
        return bool(check_backup_name(name))
    except ConfigError:
        return False


def _look(store: ObjectStore, name: str, *, unfinished: bool) -> CatalogEntry | None:
    store.patience.check("the catalog of backups was read")
    return _entry(store, name, _files(store, name), unfinished=unfinished)


def _files(store: ObjectStore, name: str) -> dict[str, File]:
    """Return the files below ``meta/`` and ``provider/``."""
    directory, found = layout.backup_dir(store.location.root_path, name), {}
    # Behind "m", not "meta": SeaweedFS leaves out a directory that has the very name of where to begin, with all that is in it.
    for item, written in store.dated(directory, after=f"{directory}m"):
        key = item.key[len(directory) :]
        if not key.startswith(("meta/", "provider/")):
            # Nothing of a backup, and there may be millions of it, as below the root path of a Milvus.
            return _below(store, directory, "meta", "provider")
        found[key] = File(item.size, written)
    return found


def _below(store: ObjectStore, directory: str, *parts: str) -> dict[str, File]:
    listed = (found for part in parts for found in store.dated(f"{directory}{part}/"))
    return {item.key[len(directory) :]: File(item.size, written) for item, written in listed}


def _entry(store: ObjectStore, name: str, files: dict[str, File], *, unfinished: bool) -> CatalogEntry | None:
    """Return the entry of what is there under a name; None when it is nothing of a backup, or not asked for."""
    if MARK in files:
        contents = _read(store, name, files, MARK, FACTS, VERIFIED, DRILLED)
        if MARK in contents:
            return _guarded(store, files, entry_of(name, files, contents))
        files = {key: file for key, file in files.items() if key != MARK}  # it is being deleted
    if not unfinished:
        return None
    if not WRITTEN & files.keys():
        files = {**files, **_below(store, layout.backup_dir(store.location.root_path, name), "binlogs", "bundle")}
    contents = _read(store, name, files, ATTEMPT, LEASE)
    if not is_backup(files, contents) and not _is_left_over(store, name, files, contents):
        return None
    return _guarded(store, files, unfinished_of(name, files, contents))


def _is_left_over(store: ObjectStore, name: str, files: Mapping[str, File], contents: Mapping[str, bytes]) -> bool:
    """Return whether what is there, without a file that says whose it is, is of a backup all the same; another program may have left it."""
    if is_backup((), _read(store, name, files, *(OWN.keys() - contents.keys()))):
        return True
    if not WRITTEN & files.keys():
        return False  # the data was listed with the files
    directory = layout.backup_dir(store.location.root_path, name)
    data = (item.key[len(directory) :] for part in ("binlogs", "bundle") for item in store.objects(f"{directory}{part}/"))
    return is_backup(islice(data, _ENOUGH), {})


def _guarded(store: ObjectStore, files: Mapping[str, File], entry: CatalogEntry) -> CatalogEntry:
    """Return the entry with what forbids to delete it: who works on it, and a hold. Costs nothing where the listing shows neither."""
    leases, hold = [], None
    for key in files:
        if key in (HOLD, LEASE) or key.startswith("provider/leases/"):
            whole = layout.join(store.location.root_path, entry.name, key)
            for content in _read(store, entry.name, files, key).values():
                try:
                    written, now = store.times(whole)
                except NotInStorage:  # given up meanwhile
                    continue
                if key == HOLD:
                    hold = read_hold(content, now)
                else:
                    leases.append(read_lease(content, (now - written).total_seconds()))
    return replace(entry, hold=hold, leases=[held for held in leases if held])


def _read(store: ObjectStore, name: str, files: Mapping[str, File], *wanted: str) -> dict[str, bytes]:
    """Return the contents of those of the wanted files that are there; one that is too large reads as empty."""
    contents = {}
    for key in wanted:
        if key in files:
            try:
                small = files[key].size <= MAX_BYTES
                contents[key] = store.read(layout.join(store.location.root_path, name, key), MAX_BYTES) if small else b""
            except NotInStorage:
                continue
    return contents
