"""Deletions that somebody has begun and does not go on with, because the process died: the next retention ends them.

Such a backup looks like an unfinished attempt that was written to a moment ago, which a policy would keep for a long time. The lease that
its deleter left behind says what it really is; it is the last thing to go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import layout
from .catalog_entry import UNFINISHED, CatalogEntry
from .errors import BackupDamaged, NotInStorage
from .lease import MAX_LEASE_BYTES, Holding, Owner, may_take_over
from .retention import Decision
from .store import ObjectStore


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


def _is_begun(store: ObjectStore, entry: CatalogEntry, owner: Owner) -> bool:
    key = layout.lease_key(store.location.root_path, entry.name)
    try:
        held = Holding.from_json(store.read(key, MAX_LEASE_BYTES))
        return held.doing == deletion_of(entry.name) and may_take_over(held, store.age(key), owner)
    except (NotInStorage, BackupDamaged):
        return False
