"""Restore: plan → create → import → finish.

Everything that can be refused is refused before the first change. The state is written beside the backup (or into Milvus's bucket, when
the backup cannot be written to) before the first job is submitted, so that whoever waits for the jobs can finish the restore.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import imports, layout, meta, targets
from .backup import read_backup
from .binlog import count_rows
from .copier import Copy, Progress, copy_objects
from .errors import Cancelled, ImportFailed, MilvusBackupError, RestoreError, RowsMissing, WaitTimeout
from .imports import JobState
from .names import CollectionName, parse_selection, select
from .names import targets as rename
from .report import Reporter, counted, duration
from .report import size as written
from .restore_plan import (
    RestoreOptions,
    alias_targets,
    check_objects,
    check_server,
    expected_objects,
    partitions_to_load,
    plan_jobs,
)
from .restore_state import Job, RestoreState, Target
from .server import MilvusServer
from .settings import Settings
from .state_store import StateStore
from .store import ObjectStore


@dataclass(slots=True)
class Planned:
    """A restore that was checked and has changed nothing yet."""

    state: RestoreState
    options: RestoreOptions
    backup: meta.Backup
    collections: dict[CollectionName, meta.Collection]


@dataclass(slots=True)
class RestoreRun:
    """The two ends of one restore, and how to report and stop it."""

    settings: Settings
    server: MilvusServer
    #: Where backups are.
    backups: ObjectStore
    #: The bucket that Milvus reads.
    milvus_store: ObjectStore
    states: StateStore
    reporter: Reporter
    stop: threading.Event

    @classmethod
    def open(cls, settings: Settings, reporter: Reporter | None = None, stop: threading.Event | None = None) -> RestoreRun:
        """Return a run for these settings; nothing is connected yet."""
        backups, milvus_store = ObjectStore(settings.backup_storage), ObjectStore(settings.milvus_storage)
        return cls(
            settings,
            MilvusServer(settings.milvus),
            backups,
            milvus_store,
            StateStore(backups, milvus_store),
            reporter or Reporter(),
            stop or threading.Event(),
        )

    def start(self, backup_name: str, restore_id: str, options: RestoreOptions | None = None) -> RestoreState:
        """Plan, create and submit; returns when Milvus has all import jobs. Call :meth:`wait` or poll, then :meth:`finish`."""
        with self.reporter.phase("Plan"):
            planned = self.plan(backup_name, restore_id, options or RestoreOptions())
        with self.reporter.phase("Create and submit"):
            return self.submit(planned)

    # ---- plan --------------------------------------------------------------------------------------------------------------

    def plan(self, backup_name: str, restore_id: str, options: RestoreOptions) -> Planned:
        """Check everything that can be checked; changes nothing.

        :raises BackupNotFound, BackupDamaged, UnsupportedFormat: the backup cannot be restored
        :raises ConfigError, TargetExists, SchemaMismatch, UnsupportedServer: it cannot be restored like this, here
        """
        options.check()
        backup = read_backup(self.backups, backup_name)
        for warning in backup.warnings:
            self.reporter.warn(warning)
        by_name = {collection.name: collection for collection in backup.collections}
        database = self.settings.milvus.database
        chosen = select(by_name, parse_selection(options.collections), database)
        names = rename(chosen, options.suffix, options.rename, database)
        collections = [by_name[source] for source in chosen]
        self.server.check_release()
        check_server(backup, collections, self.server.version)
        existing = targets.existing(self.server, names.values())
        targets.check_targets(self.server, names, by_name, existing, options.if_exists)
        if options.restore_aliases:
            targets.check_aliases(self.server, alias_targets([(by_name[s], t) for s, t in names.items()]), existing)

        here, there = self.backups, self.milvus_store
        staged = (here.location.bucket, here.endpoint) != (there.location.bucket, there.endpoint)
        state = RestoreState(restore_id, backup_name, [], staged=staged and not options.meta_only, started=time.time())
        binlogs = layout.binlogs_dir(here.location.root_path, backup_name)
        for source, name in names.items():
            collection = by_name[source]
            jobs = []
            if not options.meta_only:
                listed = {
                    item.key: item.size
                    for kind in (layout.INSERT, layout.DELTA)
                    for item in here.objects(layout.join(binlogs, kind, collection.collection_id))
                }
                strays = check_objects(collection, binlogs, listed)
                staging = layout.staging_dir(restore_id) + "binlogs/" if state.staged else None
                jobs = plan_jobs(collection, binlogs, self.settings.max_job_bytes, strays, staging)
            state.targets.append(
                Target(
                    source,
                    name,
                    load=partitions_to_load(collection, options.load),
                    aliases=collection.aliases if options.restore_aliases else [],
                    jobs=jobs,
                )
            )
        size = sum(job.bytes for _, job in state.jobs())
        rows = sum(job.rows for _, job in state.jobs())
        self.reporter.line(
            f"backup {backup_name!r} of Milvus {backup.server_version}: {len(collections)} of {counted(len(by_name), 'collection')}, "
            f"{rows:,} rows, {written(size)} in {counted(sum(1 for _ in state.jobs()), 'import job')}"
        )
        return Planned(state, options, backup, by_name)

    # ---- create, stage, submit ---------------------------------------------------------------------------------------------

    def submit(self, planned: Planned) -> RestoreState:
        """Stage the data where Milvus can read it, create the collections, and submit the import jobs.

        On failure every collection that this restore created is dropped again and the staged objects are removed.
        """
        state, options = planned.state, planned.options
        try:
            if state.staged:
                self._stage(planned)
            databases = set(self.server.databases())
            for target in state.targets:
                if target.name.database not in databases:
                    self.server.create_database(target.name.database)
                    databases.add(target.name.database)
                    self.reporter.line(f"created database {target.name.database!r}")
            existing = targets.existing(self.server, [target.name for target in state.targets])
            for target in state.targets:
                collection = planned.collections[target.source]
                targets.create(self.server, target, collection, options, self.reporter, exists=target.name in existing)
            self.states.save(state)
            for target, job in state.jobs():
                if self.stop.is_set():
                    raise Cancelled("stopped while import jobs were being submitted")
                files = [job.inserts, job.deltas]
                job.job_id = self.server.submit_import(target.name, job.partition, files, imports.OPTIONS)
            self.states.save(state)
        except BaseException:
            self.abandon(state)
            appending = [job.job_id for target, job in state.jobs() if job.job_id and not target.created]
            if appending:
                self.reporter.warn(f"import jobs {_listed(appending)} were submitted before the error and go on appending rows")
            raise
        self.reporter.line(f"submitted {counted(sum(1 for _ in state.jobs()), 'import job')}")
        return state

    def _stage(self, planned: Planned) -> None:
        source = layout.binlogs_dir(self.backups.location.root_path, planned.state.backup_name)
        staging = layout.staging_dir(planned.state.restore_id) + "binlogs/"
        copies = [
            Copy(key, staging + key[len(source) :], size)
            for target in planned.state.targets
            for key, size in expected_objects(planned.collections[target.source], source)
        ]
        progress = Progress(len(copies), sum(copy.size for copy in copies))
        self.reporter.line(
            f"staging {len(copies):,} objects, {written(progress.total_bytes)}, in s3://{self.milvus_store.location.bucket}/{staging}"
        )
        copy_objects(
            self.backups,
            self.milvus_store,
            copies,
            progress,
            concurrency=self.settings.concurrency,
            streaming=self.settings.streaming,
            multipart_threshold=self.settings.multipart_threshold,
            report=self.reporter.copying,
            stop=self.stop,
        )
        there = {item.key: item.size for item in self.milvus_store.objects(staging)}
        wrong = [copy.destination for copy in copies if there.get(copy.destination) != copy.size]
        if wrong:
            raise RestoreError(f"{len(wrong):,} staged objects are missing or have another size ({', '.join(wrong[:3])}); try again")
        self.reporter.line(
            f"staged {progress.objects:,} objects in {duration(progress.seconds)} "
            f"({written(progress.bytes / max(progress.seconds, 1e-9))}/s, {progress.mode})"
        )

    # ---- wait --------------------------------------------------------------------------------------------------------------

    def wait(self, state: RestoreState, timeout: float | None, poll_interval: float) -> None:
        """Wait until every job has ended; ``timeout`` counts seconds from now.

        :raises ImportFailed: a job failed; what this restore created is dropped again
        :raises WaitTimeout: jobs are still running; nothing is undone
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = imports.FIRST_POLL
        with self.reporter.phase("Import"):
            while not self.poll(state):
                if deadline is not None and time.monotonic() >= deadline:
                    raise timed_out(state, timeout or 0)
                if self.stop.wait(pause):
                    raise Cancelled(f"stopped; import jobs {_listed(state.pending())} are still running in Milvus")
                pause = imports.next_poll(pause, poll_interval)

    def poll(self, state: RestoreState) -> bool:
        """Look once at every job that has not ended; returns whether all have.

        :raises ImportFailed: a job failed or its record is gone; what this restore created is dropped again
        """
        news = False
        for target, job in state.jobs():
            if job.state in (JobState.COMPLETED.value, JobState.FAILED.value):
                continue
            status = imports.job_status(self.server, job.job_id)
            job.state, job.imported, job.reason = status.state.value, status.rows, status.reason
            if status.state is JobState.COMPLETED:
                news = True
                self.reporter.line(
                    f"job {job.job_id}: {job.imported:,} rows of {counted(job.segments, 'segment')} "
                    f"into {target.name}, partition {job.partition}"
                )
            elif status.state is not JobState.RUNNING:
                self.abandon(state)
                ended = "failed" if status.state is JobState.FAILED else "is lost"
                files = f"{job.inserts}, {job.deltas}".rstrip(", ")
                raise ImportFailed(
                    f"import job {job.job_id} into {target.name}, partition {job.partition!r}, {ended}: {status.reason or 'no reason'} "
                    f"(files: {files} in bucket {self.milvus_store.location.bucket!r}). {self._what_is_left(state)}"
                )
        if news:
            self.states.save(state)
        done = [job for _, job in state.jobs() if job.state == JobState.COMPLETED.value]
        total = sum(job.rows for _, job in state.jobs())
        self.reporter.progress(f"imported {sum(job.imported for job in done):,} of {total:,} rows, {len(state.pending())} jobs running")
        return not state.pending()

    # ---- finish ------------------------------------------------------------------------------------------------------------

    def finish(self, state: RestoreState) -> dict[str, object]:
        """Check the rows, set aliases, load, remove staged objects; returns the summary. Finishing twice does nothing the second time.

        :raises RowsMissing: fewer rows arrived than were backed up; what this restore created is dropped again
        """
        if state.summary:
            return state.summary
        if self.stop.is_set():
            raise Cancelled("stopped after the import; restore again, or let MilvusImportSensor finish it")
        with self.reporter.phase("Finish"):
            self._check_rows(state)
            for target in state.targets:
                for alias in target.aliases:
                    self.server.create_alias(target.name, alias)
                if target.refresh:
                    self.server.load(target.name, refresh=True)
                elif target.load != []:
                    self.server.load(target.name, partitions=target.load)
            self._until_loaded([target for target in state.targets if target.load != [] or target.refresh])
            self._clean(state)
            seconds = max(0.0, time.time() - state.started)
            state.summary = state.finished(seconds)
            self.states.save(state, finished=True)
        for line in state.table(seconds):
            self.reporter.line(line)
        return state.summary

    def _check_rows(self, state: RestoreState) -> None:
        left_out = sum(max(0, job.rows - job.imported) for _, job in state.jobs())
        for target, job in state.jobs():
            short = job.rows - job.imported
            if short <= 0:
                continue
            deleted = self._count_deletes(job)
            if short > deleted:
                self.abandon(state)
                raise RowsMissing(
                    f"import job {job.job_id} into {target.name}, partition {job.partition!r}, ended as completed with {job.imported:,} of "
                    f"{job.rows:,} rows, and only {deleted:,} were deleted before the backup; Milvus may read another bucket than "
                    f"{self.milvus_store.location}. {self._what_is_left(state)}"
                )
        if left_out:
            self.reporter.line(f"{left_out:,} rows were deleted before the backup and stay deleted")

    def _count_deletes(self, job: Job) -> int:
        if not job.deltas:
            return 0
        below = job.deltas.rpartition("/")[0]
        keys = [item.key for item in self.milvus_store.objects(below) if item.key.startswith(job.deltas)]
        return sum(count_rows(self.milvus_store.read(key), key) for key in keys)

    def _until_loaded(self, waiting: list[Target]) -> None:
        pause = 0.1
        while waiting := [target for target in waiting if not self._is_loaded(target)]:
            if self.stop.wait(pause):
                raise Cancelled(
                    f"stopped while Milvus was loading {', '.join(str(target.name) for target in waiting[:5])}; the data is restored"
                )
            self.reporter.progress(f"waiting for Milvus to load {', '.join(str(target.name) for target in waiting[:5])}")
            pause = min(1.0, pause * 1.5)

    def _is_loaded(self, target: Target) -> bool:
        # A collection that is told to refresh stays loaded meanwhile, and its new rows are not found yet.
        return self.server.refreshed(target.name) if target.refresh else self.server.load_state(target.name) == "Loaded"

    def abandon(self, state: RestoreState) -> None:
        """Undo: drop the collections this restore created, remove what it staged. Never raises, for it runs while another error does."""
        for target in state.targets:
            if target.created:
                self._try(f"drop {target.name}", lambda name=target.name: self.server.drop_collection(name))  # type: ignore[misc]
        self._try("remove staged objects", lambda: self._clean(state))

    def _clean(self, state: RestoreState) -> None:
        if state.staged:
            binlogs = layout.staging_dir(state.restore_id) + "binlogs/"
            removed = self.milvus_store.delete(item.key for item in self.milvus_store.objects(binlogs))
            self.reporter.line(f"removed {removed:,} staged objects")

    def _try(self, doing: str, action: Callable[[], object]) -> None:
        try:
            action()
        except MilvusBackupError as error:
            self.reporter.warn(f"could not {doing}: {error}")

    def _what_is_left(self, state: RestoreState) -> str:
        kept = [f"{target.name} ({target.rows:,} rows of this restore)" for target in state.targets if not target.created and target.rows]
        if kept:
            return f"Rows were already appended to {', '.join(kept[:5])}; they stay"
        return "What this restore had created was dropped again"


def timed_out(state: RestoreState, timeout: float) -> WaitTimeout:
    """Return the error for a wait that took too long."""
    return WaitTimeout(
        f"restore {state.restore_id} of backup {state.backup_name!r} was not done after {duration(timeout)}: import jobs "
        f"{_listed(state.pending())} are still running in Milvus. Wait for them with MilvusImportSensor(backup_name={state.backup_name!r}, "
        f"restore_id={state.restore_id!r}), which also finishes the restore"
    )


def _listed(job_ids: Sequence[int]) -> str:
    return ", ".join(map(str, job_ids[:10])) + (f" and {len(job_ids) - 10} more" if len(job_ids) > 10 else "")
