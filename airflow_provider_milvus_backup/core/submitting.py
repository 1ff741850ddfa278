"""Bringing a restore as far as submitted jobs; what is there already stays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from . import databases, imports, meta, snapshots, targets
from .ends import Ends
from .errors import MilvusBackupError, RestoreError, RowsMissing, ServerError, ServerUnreachable
from .imports import JobState
from .names import CollectionName
from .patience import Backoff
from .reader import read_backup, read_schemas
from .report import counted
from .restore_plan import RestoreOptions
from .restore_state import Job, RestoreState, Target
from .staging import stage
from .state_store import StateStore

#: The part of "Create and submit" in which objects are copied.
STAGE = "Stage"
#: Seconds between two writes of the state while jobs are submitted.
_SAVE = 1.0
#: Seconds in which a job may still begin whose submission was not answered: Milvus lists all prefixes before, and from 2.6 on takes jobs
#: out of its log (``internal/datacoord/services.go``, ImportV2, broadcastImport).
_SETTLE = 30.0
#: Seconds for which a job is certainly found again, less than Milvus keeps records of ended ones (``dataCoord.import.taskRetention``).
_RECORDS = 2 * 3600.0


def submit(ends: Ends, states: StateStore, state: RestoreState, go_on: str) -> None:
    """Make the collections, stage, and submit all jobs that are due and that Milvus takes; those that it does not take stay due.

    :param go_on: how to go on with the restore, for the error when it is stopped in between
    """
    for target in state.targets:
        _look_at(ends, state, target)
    todo = [target for target in state.targets if not target.done and (target.due or not target.ready)]
    if unmade := [target for target in todo if not target.ready]:
        _make(ends, states, state, unmade, go_on)
        states.save(state)
    # REST shows the jobs of snapshots elsewhere; gRPC tells them from the others.
    state.rest = ends.door.per_job > 1 and not any(job.snapshot for _, job in state.jobs())
    count, saved = 0, time.monotonic()
    for target in todo:
        found = {} if any(job.snapshot for job in target.jobs) else _find_lost(ends, state, target)
        for job in target.due:
            ends.patience.check(f"import jobs were being submitted. {go_on}")
            if job.snapshot:
                job.job_id = _restore_snapshot(ends, state, target)
                states.save(state)
                count += 1
                continue
            job_id = found.get(state.tag(target, job), 0)
            try:
                if not job_id and target.append:
                    _say_so(states, state, target)
                job_id = job_id or _submit_job(ends, state, target, job)
            except ServerError as error:
                target.asked = target.asked if error.unclear else 0
                with contextlib.suppress(MilvusBackupError):
                    states.save(state)  # what was submitted before, and whether this job may be running
                raise
            target.asked = 0
            if not job_id:
                states.save(state)
                running = f"{counted(len(state.pending()), 'job')} of this restore running"
                ends.reporter.progress(f"Milvus takes no more import jobs now, {running}; the others follow")
                return
            job.job_id = job_id
            count += 1
            if target.append or time.monotonic() - saved > _SAVE:  # what was appended cannot be dropped and begun anew
                states.save(state)
                saved = time.monotonic()
    states.save(state)
    if count:
        ends.reporter.line(f"submitted {counted(count, 'import job')}")


def _look_at(ends: Ends, state: RestoreState, target: Target) -> None:
    """Find out what became of a collection that an earlier try had made."""
    if target.done or not target.ready:
        return
    if ends.server.collection_id(target.building) == target.collection_id:
        return
    if not target.append and ends.server.collection_id(target.name) == target.collection_id:
        return  # it has its name already; finish() does the rest
    if target.append:
        raise RestoreError(
            f"{target.name} was dropped or replaced while rows were being appended to it; decide what should be in it and restore again"
        )
    ends.reporter.warn(f"{target.building}, which was being built, is gone; it is begun anew")
    target.begin_anew(state.restore_id)


def _make(ends: Ends, states: StateStore, state: RestoreState, unmade: Sequence[Target], go_on: str) -> None:
    backup = read_backup(ends.backups, state.backup_name)
    collections = {collection.name: collection for collection in backup.collections}
    if state.staged:
        with ends.reporter.part(STAGE):
            stage(ends, state, [(target, collections[target.source]) for target in unmade])
    there = set(ends.server.databases())
    backed_up = {database.name: database for database in backup.databases}
    for database, source in sorted({target.name.database: target.source.database for target in unmade}.items()):
        if database not in there:
            properties, left_out = databases.to_create(backed_up.get(source, meta.Database(source)))
            state.databases.append(database)
            states.save(state)  # before it is there: a process that dies in between cannot write down that it is its own
            try:
                ends.server.create_database(database, properties)
            except ServerError as error:
                if not error.unclear:
                    state.databases.remove(database)  # somebody else's, then
                raise
            ends.reporter.line(f"created database {database!r}")
            for line in left_out:
                ends.reporter.warn(line)
    options, schemas = RestoreOptions.from_text(state.options), read_schemas(ends.backups, backup, ends.reporter)
    for target in unmade:
        ends.patience.check(f"collections were being created. {go_on}")
        collection = collections[target.source]
        if collection.snapshot:
            continue  # Milvus makes it when the job is submitted
        targets.make(ends.server, target, collection, options, ends.reporter, raw=schemas.get(collection.collection_id))
        if target.append:
            target.before = ends.door.ids(target.building)


def _restore_snapshot(ends: Ends, state: RestoreState, target: Target) -> int:
    """Let Milvus make a collection of its snapshot and return the id of the job that fills it."""
    collections = {collection.name: collection for collection in read_backup(ends.backups, state.backup_name).collections}
    bundle = snapshots.source(ends, state.backup_name, collections[target.source])
    job_id = snapshots.restore_snapshot(ends.server, target.building, bundle)
    target.collection_id, target.ready = ends.server.collection_id(target.building) or 0, True
    return job_id


def known_jobs(state: RestoreState, building: CollectionName) -> set[int]:
    """Return the ids of jobs that need not be found; over gRPC their number counts, so failed ones are not among them."""
    alike = [target for target in state.targets if target.building == building]
    failed = JobState.FAILED.value
    ours = {job.job_id for target in alike for job in target.jobs if job.job_id and job.state != failed}
    return ours.union(*(target.before for target in alike))


def _find_lost(ends: Ends, state: RestoreState, target: Target) -> dict[str, int]:
    """Return the ids of due jobs that an earlier try, or a request whose answer was lost, has submitted already, by tag."""
    wanted = {state.tag(target, job): job.files for job in target.due}
    return ends.door.find(target.building, wanted, known_jobs(state, target.building))


def _say_so(states: StateStore, state: RestoreState, target: Target) -> None:
    """Write down that a job is about to be submitted whose rows could not be dropped again.

    :raises RestoreError: an earlier try has died at this point, and Milvus may have had that job and forgotten it since
    """
    if target.asked and time.time() - target.asked > _RECORDS:
        raise RestoreError(
            f"an earlier try died while it submitted an import job into {target.name}, too long ago for Milvus to have a record of it for "
            "certain, and its rows may be there or not: nothing is imported again. Compare the rows, then restore under another name or "
            "delete what is there twice"
        )
    target.asked = time.time()
    states.save(state)


def _appearing(ends: Ends, state: RestoreState, target: Target, job: Job, seconds: float) -> int:
    """Return the id of a job whose submission was not answered, when it shows up within so many seconds, else 0."""
    tag, until = state.tag(target, job), time.monotonic() + seconds
    while True:
        if found := ends.door.find(target.building, {tag: job.files}, known_jobs(state, target.building)).get(tag):
            return found
        if time.monotonic() >= until:
            return 0
        ends.patience.pause(1.0, f"Milvus was asked to import into {target.name} and has not answered")


def _submit_job(ends: Ends, state: RestoreState, target: Target, job: Job) -> int:
    """Submit a job and return its id, 0 when Milvus takes no more now."""
    tag = state.tag(target, job)
    given = imports.options(
        ends.server.capabilities, l0=job.l0, storage_version=job.storage_version, end_ts=0 if job.l0 else target.end_ts, tag=tag
    )
    backoff = Backoff(120, ends.patience, first=1)
    while True:
        try:
            return ends.door.submit(target.building, job.partition, job.files, given)
        except ServerUnreachable as error:
            target.unanswered |= error.unclear
            if not backoff.again(str(error)):
                raise
            if found := _appearing(ends, state, target, job, _SETTLE if error.unclear and ends.door.per_job else 0):
                return found
        except ServerError as error:
            if imports.full(error):
                return 0
            if "no binlog to import" in str(error):
                raise RowsMissing(
                    f"Milvus does not find what it shall import into {target.name}, and may read another bucket than "
                    f"{ends.milvus_store.location}: {error}. What this restore had created is dropped again"
                ) from None
            raise
