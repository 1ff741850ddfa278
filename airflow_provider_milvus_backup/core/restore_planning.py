"""Planning a restore: what is in the backup, what is in Milvus, and what will be made of it. Changes nothing."""

from __future__ import annotations

import time

from . import layout, targets
from .ends import Ends
from .names import building_name, parse_selection, select
from .names import targets as rename
from .reader import read_backup
from .report import counted
from .report import size as written
from .restore_plan import APPEND, RestoreOptions, alias_targets, check_objects, check_server, partitions_to_load, plan_jobs
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
    check_server(backup, collections, ends.server.version)
    existing = targets.existing(ends.server, names.values())
    targets.check_targets(ends.server, names, by_name, existing, options.if_exists)
    if options.restore_aliases:
        targets.check_aliases(ends.server, alias_targets([(by_name[s], t) for s, t in names.items()]), existing)

    staged = ends.staged and not options.meta_only
    state = RestoreState(
        restore_id, backup_name, [], backup.backup_id, staged=staged, started=time.time(), options=options.to_text(), round=round_
    )
    binlogs = layout.binlogs_dir(ends.backups.location.root_path, backup_name)
    for source, name in names.items():
        collection = by_name[source]
        jobs = []
        if not options.meta_only:
            listed = {
                item.key: item.size
                for kind in (layout.INSERT, layout.DELTA)
                for item in ends.backups.objects(layout.join(binlogs, kind, collection.collection_id))
            }
            strays = check_objects(collection, binlogs, listed)
            jobs = plan_jobs(collection, binlogs, ends.settings.max_job_bytes, strays, state.staging if state.staged else None)
        append = options.if_exists == APPEND and name in existing
        state.targets.append(
            Target(
                source,
                name,
                name if append else building_name(name, restore_id),
                append,
                load=partitions_to_load(collection, options.load),
                aliases=collection.aliases if options.restore_aliases else [],
                jobs=jobs,
            )
        )
    size = sum(job.bytes for _, job in state.jobs())
    rows = sum(job.rows for _, job in state.jobs())
    ends.reporter.line(
        f"backup {backup_name!r} of Milvus {backup.server_version}: {len(collections)} of {counted(len(by_name), 'collection')}, "
        f"{rows:,} rows, {written(size)} in {counted(sum(1 for _ in state.jobs()), 'import job')}"
    )
    return state
