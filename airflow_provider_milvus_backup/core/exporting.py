"""The copy phase of a backup in snapshot format: Milvus exports one collection after the other.

The plan beside the backup is written again after each, with what Milvus has written of it; so a further try exports only the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import layout, meta, snapshot_plan, snapshots
from .errors import BackupDamaged, BackupError, ConfigError, NotInStorage, UnsupportedFormat
from .names import CollectionName
from .plan import META_ONLY, PLAN_FILE, BackupPlan
from .reader import MAX_META_BYTES
from .report import Reporter, counted
from .report import size as written
from .server import MilvusServer
from .store import ObjectStore

BINLOG = "binlog"
FORMATS = (BINLOG, meta.SNAPSHOT)


def check_format(server: MilvusServer, source: ObjectStore, backups: ObjectStore, name: str, format_: str, strategy: str) -> None:
    """Refuse a format that does not exist, or that this Milvus cannot make here.

    :param source: the bucket that Milvus uses
    :raises ConfigError, UnsupportedServer: it cannot be made
    """
    if format_ not in FORMATS:
        raise ConfigError(f"format {format_!r} is not one of {', '.join(FORMATS)}")
    if format_ != meta.SNAPSHOT:
        return
    if strategy == META_ONLY:
        raise ConfigError("format 'snapshot' cannot be used with strategy 'meta_only', for there is no snapshot without data")
    snapshots.check_server(server, "format 'snapshot'", f"Use format {BINLOG!r}, which every Milvus can")
    snapshots.target(source, backups, name)


def exported(store: ObjectStore, name: str, backup_id: str) -> dict[CollectionName, meta.Collection]:
    """Return the collections that an earlier try of this attempt has had exported, and of which everything is there."""
    try:
        backup = BackupPlan.from_json(store.read(layout.provider_key(store.location.root_path, name, PLAN_FILE), MAX_META_BYTES)).backup
    except (NotInStorage, BackupDamaged, UnsupportedFormat):
        return {}
    if backup.backup_id != backup_id or backup.format != meta.SNAPSHOT:
        return {}
    there, found = snapshots.bundle_objects(store, name), {}
    for collection in backup.collections:
        try:
            snapshot_plan.check_bundles(backup, [collection], there)
        except BackupDamaged:
            continue
        if collection.snapshot:
            found[collection.name] = collection
    return found


def reused(store: ObjectStore, name: str, backup_id: str, described: Mapping[CollectionName, Any]) -> dict[CollectionName, meta.Collection]:
    """Return those of :func:`exported` that are still the same collections in Milvus.

    :param described: DescribeCollectionResponse of each collection to back up
    """
    done = exported(store, name, backup_id)
    return {c: kept for c, kept in done.items() if c in described and described[c].collectionID == kept.collection_id}


def export(server: MilvusServer, source: ObjectStore, backups: ObjectStore, plan: BackupPlan, reporter: Reporter) -> BackupPlan:
    """Let Milvus export every collection of the plan that is not exported yet, and write down what it wrote.

    :raises SourceChanged: a collection was dropped and created anew
    """
    backup, place = plan.backup, snapshots.target(source, backups, plan.backup.name)
    for index, collection in enumerate(backup.collections):
        if collection.snapshot:
            continue
        server.patience.check("collections were being exported; a retry goes on with the others")
        bundle, moment = snapshots.export_snapshot(server, collection.name, collection.collection_id, backup.name, place, reporter)
        done = replace(collection, snapshot=bundle, backup_timestamp=moment)
        backup = replace(backup, collections=[*backup.collections[:index], done, *backup.collections[index + 1 :]])
        plan = replace(plan, backup=backup)
        backups.write(layout.provider_key(backups.location.root_path, backup.name, PLAN_FILE), plan.to_json())
        reporter.line(f"{collection.name}: Milvus exported {counted(bundle.total_files, 'file')}, {written(bundle.total_bytes)}")
    return plan


def latest(store: ObjectStore, plan: BackupPlan) -> BackupPlan:
    """Return the plan as :func:`export` has left it, for whoever only has the one from before."""
    if plan.backup.format != meta.SNAPSHOT or all(collection.snapshot for collection in plan.backup.collections):
        return plan
    done = exported(store, plan.backup.name, plan.backup.backup_id)
    missing = [collection.name for collection in plan.backup.collections if collection.name not in done]
    if missing:
        raise BackupError(f"{missing[0]} of backup {plan.backup.name!r} is not exported yet, or not completely; copy before you commit")
    return replace(plan, backup=replace(plan.backup, collections=[done[collection.name] for collection in plan.backup.collections]))


def remove_strays(store: ObjectStore, backup: meta.Backup, reporter: Reporter) -> None:
    """Remove what exports that failed, or a replaced backup, have left below ``bundle/``."""
    directory = layout.backup_dir(store.location.root_path, backup.name)
    keys = [f"{directory}{key}" for key in snapshot_plan.strays(backup, snapshots.bundle_objects(store, backup.name))]
    if keys:
        reporter.line(f"removed {counted(store.delete(keys), 'object')} of exports that are no part of the backup")
