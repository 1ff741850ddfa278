"""Copying a backup's objects into Milvus's bucket, for the time of a restore."""

from __future__ import annotations

from collections.abc import Sequence

from . import layout, meta
from .copier import Copy, Progress, copy_objects, make_way
from .ends import Ends
from .errors import RestoreError
from .job_planning import folded_copies
from .report import duration
from .report import size as written
from .restore_plan import expected_objects
from .restore_state import RestoreState, Target


def stage(ends: Ends, state: RestoreState, collections: Sequence[tuple[Target, meta.Collection]]) -> None:
    """Copy the objects of these collections to where Milvus can read them, as far as they are not there yet.

    Where Milvus reads the backup itself, that is only the delta logs of collections whose L0 segments are folded into them.

    :raises RestoreError: an object did not arrive
    """
    source = layout.binlogs_dir(ends.backups.location.root_path, state.backup_name)
    staging = state.staging
    wanted: list[Copy] = []
    for target, collection in collections:
        if ends.staged:
            wanted += (Copy(key, staging + key[len(source) :], size) for key, size in expected_objects(collection, source))
        if target.folded:
            wanted += folded_copies(collection, source, f"{staging}folded/")
    there = {item.key: item.size for item in ends.milvus_store.objects(staging)}
    copies = [copy for copy in wanted if there.get(copy.destination) != copy.size]
    progress = Progress(len(copies), sum(copy.size for copy in copies))
    ends.reporter.line(
        f"staging {len(copies):,} objects, {written(progress.total_bytes)}, in s3://{ends.milvus_store.location.bucket}/{staging}"
        + (f"; {len(wanted) - len(copies):,} are there already" if len(copies) < len(wanted) else "")
    )
    copy_objects(
        ends.backups,
        ends.milvus_store,
        copies,
        progress,
        report=ends.reporter.copying,
        patience=ends.patience,
        **ends.settings.copying,
    )
    there = {item.key: item.size for item in ends.milvus_store.objects(staging)}
    wrong = [copy.destination for copy in wanted if there.get(copy.destination) != copy.size]
    if wrong:
        make_way(ends.milvus_store, wrong)
        raise RestoreError(f"{len(wrong):,} staged objects are missing or have another size ({', '.join(wrong[:3])}); try again")
    ends.reporter.line(
        f"staged {progress.objects:,} objects in {duration(progress.seconds)} "
        f"({written(progress.bytes / max(progress.seconds, 1e-9))}/s, {progress.mode})"
    )
