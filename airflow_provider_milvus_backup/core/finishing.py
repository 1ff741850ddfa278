"""The end of a restore: compare rows, load, give the collections their names, remove what is no longer needed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from . import layout, targets, undoing
from .binlog import count_rows
from .ends import Ends
from .errors import ImportFailed, RowsMissing, ServerError
from .names import CollectionName, replaced_name
from .rbac_transfer import restore_rbac
from .reader import read_backup
from .restore_plan import REPLACE, RestoreOptions
from .restore_state import Job, RestoreState, Target
from .state_store import StateStore
from .submitting import known_jobs

#: Looks in a row, some seconds, at a collection that is neither loaded nor loading, after which Milvus is taken to have given it up.
IDLE_LOOKS = 10


def finish(ends: Ends, states: StateStore, state: RestoreState) -> float:
    """Finish a restore all of whose jobs are done; returns the seconds since it began. Each step may be repeated by a further try.

    :raises RowsMissing, ImportFailed: the rows are not those of the backup
    :raises TargetExists: somebody else has taken a name meanwhile
    """
    waiting = [target for target in state.targets if not target.done]
    check_twice(ends, state, waiting)
    check_rows(ends, waiting)
    load(ends, waiting)
    options = RestoreOptions.from_text(state.options)
    for target in waiting:
        if not target.append:
            old = replaced_name(target.name, state.restore_id)
            targets.give_name(ends.server, target, old, replace=options.if_exists == REPLACE, reporter=ends.reporter)
        for alias in target.aliases:
            ends.server.create_alias(target.name, alias)
        target.done = True
        states.save(state)
    if options.restore_rbac and (users := read_backup(ends.backups, state.backup_name).rbac):
        # Last, for grants follow the name of a collection, and go with it when it is dropped.
        ends.reporter.line(f"restored {restore_rbac(ends.server, users, ends.reporter)}")
    undoing.drop_left(ends, state)
    undoing.remove_staged(ends, state, f"{layout.staging_dir(state.restore_id)}binlogs/")
    undoing.sweep(ends, state)
    seconds = max(0.0, time.time() - state.started)
    state.summary = state.finished(seconds)
    states.save(state)
    return seconds


def check_twice(ends: Ends, state: RestoreState, waiting: Sequence[Target]) -> None:
    """Raise ImportFailed where a job that was submitted again, because its submission was not answered, has begun all the same.

    Over gRPC this is seen when it is submitted.
    """
    for target in [target for target in waiting if target.unanswered and ends.door.per_job > 1]:
        wanted = {state.tag(target, job): job.files for job in target.jobs}
        if twice := ends.door.find(target.building, wanted, known_jobs(state, target.building)):
            rest = "rows were appended twice: delete them" if target.append else "what this restore had created is dropped again"
            raise ImportFailed(
                f"Milvus did not answer when import jobs into {target.name} were submitted, and has begun both them and those that were "
                f"submitted instead ({sorted(twice.values())}); {rest}, and restore again"
            )


def check_rows(ends: Ends, waiting: Sequence[Target]) -> None:
    """Compare the rows that the import jobs of these targets brought with those of the backup, and with what is there.

    :raises RowsMissing, ImportFailed: they are not the same
    """
    for target in waiting:
        for job in target.jobs:
            short = 0 if job.l0 else job.rows - job.imported
            if short <= 0 or (target.end_ts and job.imported):
                continue
            if short > (deleted := count_deletes(ends, job)):
                raise RowsMissing(
                    f"import job {job.job_id} into {target.name}, partition {job.partition!r}, ended as completed with {job.imported:,} of "
                    f"{job.rows:,} rows, and only {deleted:,} were deleted before the backup; Milvus may read another bucket than "
                    f"{ends.milvus_store.location}. What this restore had created is dropped again"
                )
        if not target.append and (there := sum(segment.rows for segment in ends.server.segments(_now(ends, target)))) > target.rows:
            raise ImportFailed(
                f"{target.building} holds {there:,} rows, but the import jobs of this restore brought {target.rows:,}: somebody else "
                "wrote into it. What this restore had created is dropped again; restore again"
            )
    if left_out := sum(max(0, job.rows - job.imported) for target in waiting for job in target.jobs if not job.l0):
        cut = any(target.end_ts for target in waiting)
        why = (
            "deleted before the backup or written after its flush, and are left out"
            if cut
            else "deleted before the backup and stay deleted"
        )
        ends.reporter.line(f"{left_out:,} rows were {why}")


def count_deletes(ends: Ends, job: Job) -> int:
    """Return how many deletes the delta logs of a job hold; one that is folded into many segments counts once."""
    counted: dict[str, int] = {}  # by name: a log that is folded into many segments is read once
    deleted = 0
    for prefix in job.delta_prefixes:
        for item in ends.milvus_store.objects(prefix.rpartition("/")[0]):
            if item.key.startswith(prefix):
                name = item.key.rpartition("/")[2]
                if name not in counted:
                    counted[name] = count_rows(ends.milvus_store.read(item.key), item.key)
                deleted += counted[name]
    return deleted


def load(ends: Ends, waiting: Sequence[Target]) -> None:
    """Load what is to be loaded of these targets, and return when it is; nothing has its name before.

    :raises ServerError: Milvus has given up loading one (2.3: after ``queryCoord.loadTimeoutSeconds``, 600 by default)
    """
    loading = [target for target in waiting if target.refresh or target.load != []]
    for target in loading:
        if target.refresh:
            ends.server.load(_now(ends, target), refresh=True)
        else:
            ends.server.load(_now(ends, target), partitions=target.load)
    pause, idle = 0.1, Counter[CollectionName]()
    while True:
        states = {target.building: _load_state(ends, target) for target in loading}
        loading = [target for target in loading if states[target.building] != "Loaded"]
        if not loading:
            return
        for target in loading:
            idle[target.building] = idle[target.building] + 1 if states[target.building] == "NotLoad" else 0
            if idle[target.building] >= IDLE_LOOKS:
                raise ServerError(
                    f"Milvus has given up loading {target.name}, whose rows are all imported; do its query nodes have the memory? "
                    "Its logs say why"
                )
        names = ", ".join(str(target.name) for target in loading[:5])
        ends.patience.pause(pause, f"Milvus was loading {names}; all rows are imported, and a retry goes on from here")
        ends.reporter.progress(f"waiting for Milvus to load {names}")
        pause = min(1.0, pause * 1.5)


def _now(ends: Ends, target: Target) -> CollectionName:
    """Return the name the collection has now: a try before this one may have given it its own already."""
    return target.name if ends.server.collection_id(target.name) == target.collection_id else target.building


def _load_state(ends: Ends, target: Target) -> str:
    name = _now(ends, target)
    if target.refresh:  # it stays loaded meanwhile, and its new rows are not found yet
        return "Loaded" if ends.server.refreshed(name) else "Loading"
    return ends.server.load_state(name)
