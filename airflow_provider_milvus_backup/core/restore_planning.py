"""Planning a restore: what is in the backup, what is in Milvus, and what will be made of it. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from . import layout, meta, snapshots, targets
from .creating import check_creatable
from .databases import is_encrypted
from .ends import Ends
from .errors import ConfigError, UnsupportedFormat
from .flushing import point_in_time
from .job_planning import JobRules, Places, is_folded, plan_jobs
from .names import building_name, parse_selection, select
from .names import targets as rename
from .rbac_transfer import backup_rbac
from .reader import read_backup, read_schemas
from .report import counted
from .report import size as written
from .restore_plan import APPEND, RestoreOptions, alias_targets, check_objects, check_server, partitions_to_load
from .restore_state import Job, RestoreState, Target


def plan(ends: Ends, backup_name: str, restore_id: str, options: RestoreOptions, round_: int = 0) -> RestoreState:
    """Check everything that can be checked, and return what the restore will do; changes nothing.

    :raises BackupNotFound, BackupDamaged, UnsupportedFormat: the backup cannot be restored
    :raises ConfigError, TargetExists, SchemaMismatch, UnsupportedServer: it cannot be restored like this, here
    """
    backup = read_backup(ends.backups, backup_name)
    for warning in backup.warnings:
        ends.reporter.warn(warning)
    by_name = {collection.name: collection for collection in backup.collections}
    database = ends.settings.milvus.database
    chosen = select(by_name, parse_selection(options.collections), database)
    names = rename(chosen, options.suffix, options.rename, database)
    collections = [by_name[source] for source in chosen]
    ends.server.check_release()
    if backup.format == meta.SNAPSHOT:
        snapshots.check_snapshot_restore(backup, collections, options, ends)
    check_server(backup, collections, ends.server.capabilities, allow_downgrade=options.allow_downgrade)
    _check_databases(backup, collections)
    if options.restore_rbac:
        _check_rbac(ends, backup)
    existing = targets.existing(ends.server, names.values())
    targets.check_targets(ends.server, names, by_name, existing, options.if_exists)
    if options.restore_aliases:
        targets.check_aliases(ends.server, alias_targets([(by_name[s], t) for s, t in names.items()]), existing)

    state = RestoreState(restore_id, backup_name, [], backup.backup_id, started=time.time(), options=options.to_text(), round=round_)
    binlogs = layout.binlogs_dir(ends.backups.location.root_path, backup_name)
    rules = JobRules.of(ends.server.capabilities, ends.door.per_job, ends.settings.max_job_bytes)
    schemas = read_schemas(ends.backups, backup, ends.reporter)
    for source, name in names.items():
        collection = by_name[source]
        append = options.if_exists == APPEND and name in existing
        if not append and not collection.snapshot:
            check_creatable(ends.server, collection, schemas.get(collection.collection_id))
        target = Target(
            source,
            name,
            name if append else building_name(name, restore_id),
            append,
            load=partitions_to_load(collection, options.load),
            aliases=collection.aliases if options.restore_aliases else [],
            end_ts=_end_ts(backup, collection, options),
        )
        if collection.snapshot:
            metadata = layout.join(ends.backups.location.root_path, backup_name, collection.snapshot.metadata_path)
            target.jobs = [Job("", metadata, "", 0, collection.size, 0, snapshot=True)]
        elif not options.meta_only:
            listed = {
                item.key: item.size
                for kind in (layout.INSERT, layout.DELTA)
                for item in ends.backups.objects(layout.join(binlogs, kind, collection.collection_id))
            }
            strays = check_objects(collection, binlogs, listed)
            target.folded = is_folded(collection, rules, append=append, cut=bool(target.end_ts))
            places = Places(binlogs, state.staging if ends.staged else None, f"{state.staging}folded/" if target.folded else None)
            target.jobs = plan_jobs(collection, places, rules, strays)
        state.targets.append(target)
    copied = not options.meta_only and backup.format != meta.SNAPSHOT
    state.staged = copied and (ends.staged or any(target.folded for target in state.targets))
    size = sum(job.bytes for _, job in state.jobs())
    rows = sum(job.rows for _, job in state.jobs())
    ends.reporter.line(
        f"backup {backup_name!r} of Milvus {backup.server_version}: {len(collections)} of {counted(len(by_name), 'collection')}, "
        f"{rows:,} rows, {written(size)} in {counted(sum(1 for _ in state.jobs()), 'import job')}"
    )
    return state


def _end_ts(backup: meta.Backup, collection: meta.Collection, options: RestoreOptions) -> int:
    if not options.cut_at_flush:
        return 0
    # A collection that was planned again has a flush of its own.
    moment = collection.backup_timestamp or (point_in_time(backup.flush_all) if backup.flush_all else 0)
    if not moment:
        raise ConfigError(
            f"cut_at_flush: backup {backup.name!r} does not say when {collection.name} was flushed, because it was made without a flush; "
            "restore without cut_at_flush"
        )
    return moment


def _check_databases(backup: meta.Backup, collections: Sequence[meta.Collection]) -> None:
    used = {collection.name.database for collection in collections}
    if encrypted := [database.name for database in backup.databases if database.name in used and is_encrypted(database)]:
        raise UnsupportedFormat(
            f"database {encrypted[0]!r} of backup {backup.name!r} is encrypted, and its files can only be read with a key that is not "
            "in the backup; restore collections of other databases, or use milvus-backup"
        )


def _check_rbac(ends: Ends, backup: meta.Backup) -> None:
    """Raise what would keep users and roles from being restored at the end, before anything was changed."""
    if backup.rbac is None:
        raise ConfigError(
            f"restore_rbac: backup {backup.name!r} has no users and roles, because it was made without include_rbac; restore without it"
        )
    backup_rbac(ends.server)
