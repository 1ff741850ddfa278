"""Deletions that somebody has begun and does not go on with, because the process died: the next retention ends them.

Such a backup looks like an unfinished attempt that was written to a moment ago, which a policy would keep for a long time. The lease that
its deleter left behind says what it really is; it is the last thing to go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from . import layout
from .catalog_entry import OFFICIAL, UNFINISHED, CatalogEntry
from .errors import BackupDamaged, NotInStorage
from .lease import MAX_LEASE_BYTES, Holding, Owner, may_take_over
from .retention import Decision
from .store import ObjectStore

#: HEAD answers in whole seconds, a listing is finer.
_SECOND = timedelta(seconds=1)


def deletion_of(name: str) -> str:
    """Return what the lease of whoever deletes a backup says that it does."""
    return f"delete backup {name!r}"


def with_begun(store: ObjectStore, decisions: Iterable[Decision[CatalogEntry]], owner: Owner) -> list[Decision[CatalogEntry]]:
    """Return the decisions, with every backup to be removed whose deletion has lost its mark and its deleter.

    :param owner: who decides; what an earlier try of the same task instance has begun is ended at once, what others have when their lease
        has run out. One that still has its commit mark is for the policy to judge, and a hold holds
    """
    return [
        replace(decision, keep=False, reasons=["its deletion was begun"])
        if decision.keep and decision.backup.state == UNFINISHED and not decision.backup.held and _is_begun(store, decision.backup, owner)
        else decision
        for decision in decisions
    ]


def begun(store: ObjectStore, entry: CatalogEntry) -> Holding | None:
    """Return who has begun to delete an unfinished backup; None when nobody has, or milvus-backup has written to it since.

    That tool knows no lease, and may be making the backup anew under the same name.
    """
    key = layout.lease_key(store.location.root_path, entry.name)
    try:
        held = Holding.from_json(store.read(key, MAX_LEASE_BYTES))
        if held.doing != deletion_of(entry.name):
            return None
        since = store.times(key)[0] + _SECOND
        return None if entry.tool == OFFICIAL and entry.written and entry.written > since else held
    except (NotInStorage, BackupDamaged):
        return None


def _is_begun(store: ObjectStore, entry: CatalogEntry, owner: Owner) -> bool:
    held = begun(store, entry)
    try:
        return held is not None and may_take_over(held, store.age(layout.lease_key(store.location.root_path, entry.name)), owner)
    except NotInStorage:
        return False
