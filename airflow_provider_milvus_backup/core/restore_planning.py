"""Planning a restore: what is in the backup, what is in Milvus, and what will be made of it. Changes nothing."""

from __future__ import annotations

import time

from . import layout, meta, targets
from .ends import Ends
from .errors import ConfigError
from .job_planning import JobRules, Places, is_folded, plan_jobs
from .names import building_name, parse_selection, select
from .names import targets as rename
from .reader import read_backup
from .report import counted
from .report import size as written
from .restore_plan import APPEND, RestoreOptions, alias_targets, check_objects, check_server, partitions_to_load
from .restore_state import RestoreState, Target


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
    check_server(backup, collections, ends.server.capabilities, allow_downgrade=options.allow_downgrade)
    existing = targets.existing(ends.server, names.values())
    targets.check_targets(ends.server, names, by_name, existing, options.if_exists)
    if options.restore_aliases:
        targets.check_aliases(ends.server, alias_targets([(by_name[s], t) for s, t in names.items()]), existing)

    state = RestoreState(restore_id, backup_name, [], backup.backup_id, started=time.time(), options=options.to_text(), round=round_)
    binlogs = layout.binlogs_dir(ends.backups.location.root_path, backup_name)
    rules = JobRules.of(ends.server.capabilities, ends.door.per_job, ends.settings.max_job_bytes)
    for source, name in names.items():
        collection = by_name[source]
        append = options.if_exists == APPEND and name in existing
        target = Target(
            source,
            name,
            name if append else building_name(name, restore_id),
            append,
            load=partitions_to_load(collection, options.load),
            aliases=collection.aliases if options.restore_aliases else [],
            end_ts=_end_ts(collection, options),
        )
        if not options.meta_only:
            listed = {
                item.key: item.size
                for kind in (layout.INSERT, layout.DELTA)
                for item in ends.backups.objects(layout.join(binlogs, kind, collection.collection_id))
            }
            strays = check_objects(collection, binlogs, listed)
            target.folded = is_folded(collection, rules, append=append)
            places = Places(binlogs, state.staging if ends.staged else None, f"{state.staging}folded/" if target.folded else None)
            target.jobs = plan_jobs(collection, places, rules, strays)
        state.targets.append(target)
    state.staged = not options.meta_only and (ends.staged or any(target.folded for target in state.targets))
    size = sum(job.bytes for _, job in state.jobs())
    rows = sum(job.rows for _, job in state.jobs())
    ends.reporter.line(
        f"backup {backup_name!r} of Milvus {backup.server_version}: {len(collections)} of {counted(len(by_name), 'collection')}, "
        f"{rows:,} rows, {written(size)} in {counted(sum(1 for _ in state.jobs()), 'import job')}"
    )
    return state


def _end_ts(collection: meta.Collection, options: RestoreOptions) -> int:
    if not options.cut_at_flush:
        return 0
    if not collection.backup_timestamp:
        raise ConfigError(
            f"cut_at_flush: the backup does not say when {collection.name} was flushed, because it was made with strategy skip_flush or "
            "by a bulk flush; restore without it"
        )
    return collection.backup_timestamp
