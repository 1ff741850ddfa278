"""Restore: plan → create → import → finish.

Everything that can be refused is refused before the first change. The state is written beside the backup (or into Milvus's bucket, when
the backup cannot be written to) before the first job is submitted, so that whoever waits for the jobs can finish the restore, and a retry
goes on where this try stopped: every step looks at what is there before it does anything.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from . import finishing, imports, layout, snapshots, submitting, undoing
from .ends import Ends
from .errors import BackupInUse, Cancelled, ImportFailed, MilvusBackupError, RestoreError, StorageDenied, TakenOver
from .imports import Failure, JobState
from .lease import Lease, Owner, end_waiting
from .names import check_backup_name, check_restore_id, short_id
from .patience import Patience
from .reader import read_backup
from .reconciling import reconcile
from .report import Reporter, counted, listed
from .restore_plan import RestoreOptions
from .restore_planning import plan
from .restore_state import Job, RestoreState, Target
from .settings import Settings
from .state_store import Mirror, StateStore
from .store import ObjectStore

#: How often a job is submitted again, and a collection begun anew, before the restore gives up.
MAX_AGAIN = 3
#: Seconds for which the leases of an unfinished restore hold when no process works on it.
HAND_OVER = 24 * 3600.0


@dataclass(slots=True)
class RestoreRun:
    """The two ends of one restore, and what it knows about who asked for it.

    :param owner: who restores
    :param resumable: somebody will come back with the same restore id, so an error that passes leaves what was done
    :param cancel_on_kill: whether a kill undoes the restore
    """

    ends: Ends
    states: StateStore
    owner: Owner = field(default_factory=Owner)
    resumable: bool = True
    cancel_on_kill: bool = True
    _leases: list[Lease] = field(default_factory=list, init=False)
    _kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _state: RestoreState | None = field(default=None, init=False)

    @classmethod
    def open(
        cls,
        settings: Settings,
        reporter: Reporter | None = None,
        patience: Patience | None = None,
        owner: Owner | None = None,
        *,
        mirror: Mirror | None = None,
        resumable: bool = True,
        cancel_on_kill: bool = True,
    ) -> RestoreRun:
        """Return a run for these settings; nothing is connected yet."""
        ends = Ends.open(settings, reporter, patience)
        states = StateStore(ends.backups, ends.milvus_store, mirror)
        return cls(ends, states, owner or Owner(), resumable, cancel_on_kill)

    @property
    def state(self) -> RestoreState | None:
        """The restore that it works on, None before it has begun."""
        return self._state

    def close(self) -> None:
        """Close the channel; the leases of a restore that is not over yet are left to whoever goes on with it."""
        self._kept.close()
        state = self._state
        over = state is None or not state.token or bool(state.summary or state.undone)
        for lease in self._leases:
            if over and state and state.left:
                lease.hand_over(0)  # it proves to a later restore that what is left may be dropped
            elif over:
                lease.give_up()
            else:
                lease.hand_over(HAND_OVER)
        self._leases.clear()
        self.ends.server.close()

    # ---- start -------------------------------------------------------------------------------------------------------------

    def start(self, backup_name: str, restore_id: str, options: RestoreOptions | None = None) -> RestoreState:
        """Plan, create and submit; returns when Milvus has all import jobs. Call :meth:`wait` or poll, then :meth:`finish`.

        A restore with this id that was begun with the same options is continued.

        :raises BackupNotFound, BackupDamaged, UnsupportedFormat: the backup cannot be restored
        :raises ConfigError, TargetExists, SchemaMismatch, UnsupportedServer: it cannot be restored like this, here
        """
        options = options or RestoreOptions()
        check_backup_name(backup_name)
        check_restore_id(restore_id)
        options.check()
        while True:
            try:
                state = self._begin(backup_name, restore_id, options)
                break
            except TakenOver:
                # The trigger of a task that was cleared may be undoing, in this moment, the restore that was to be continued.
                other = self.states.find(backup_name, restore_id)
                if other and not other.undone:
                    raise
        if not state.summary:
            with self.ends.reporter.phase("Create and submit"), self._undoing(state):
                self._submit(state)
        return state

    def _begin(self, backup_name: str, restore_id: str, options: RestoreOptions) -> RestoreState:
        """Return the state to go on with, a new one or that of an earlier try, which is this process's from now on."""
        with self.ends.reporter.phase("Plan"):
            earlier = self.states.find(backup_name, restore_id)
            if earlier and earlier.summary and (earlier.round, earlier.options) == (self.owner.round, options.to_text()):
                self.ends.reporter.line(f"restore {restore_id} of backup {backup_name!r} is finished; nothing is left to do")
                self._work_on(earlier)  # takes away the leases that a try which died at the very end has left
                return earlier
            state = self._resumed(earlier, options)
            if state is None:
                state = plan(self.ends, backup_name, restore_id, options, self.owner.round)
                if earlier:
                    self._follow(state, earlier)
            self._work_on(state)
            # From here on nobody removes objects of the backup.
            if read_backup(self.ends.backups, backup_name).backup_id != state.backup_id:
                raise BackupInUse(f"backup {backup_name!r} was replaced while its restore was being planned; try again")
            state.token, state.deadline = uuid.uuid4().hex, self.ends.patience.deadline
            try:
                self.states.save(state)
            except MilvusBackupError:
                state.token = ""  # it has not begun
                raise
        return state

    def _resumed(self, earlier: RestoreState | None, options: RestoreOptions) -> RestoreState | None:
        """Return the state to go on with, None when there is nothing to go on with."""
        if earlier is None or earlier.summary or earlier.undone:
            return None
        if earlier.options != options.to_text() or earlier.backup_id != read_backup(self.ends.backups, earlier.backup_name).backup_id:
            self.ends.reporter.line("the earlier try of this restore had other arguments or another backup; what it made is undone")
            undoing.undo(self.ends, self.states, earlier, "a later try had other arguments or another backup")
            self.ends.be(self.ends.patience)
            return None
        done = sum(1 for _, job in earlier.jobs() if job.state == JobState.COMPLETED.value)
        self.ends.reporter.line(
            f"going on with restore {earlier.restore_id} of backup {earlier.backup_name!r}: "
            f"{done} of {counted(sum(1 for _ in earlier.jobs()), 'import job')} were seen to be done"
        )
        return earlier

    @staticmethod
    def _follow(state: RestoreState, earlier: RestoreState) -> None:
        """Let a new restore take the place of an earlier one of the same id, and keep clear of what that one could not drop."""
        state.place, state.etag, state.left = earlier.place, earlier.etag, earlier.left
        for target in state.targets:
            while target.building in state.left:
                target.begin_anew(state.restore_id)

    # ---- wait --------------------------------------------------------------------------------------------------------------

    def wait(self, state: RestoreState, poll_interval: float) -> None:
        """Wait until every job has ended.

        :raises ImportFailed: a job failed for good; what this restore created is dropped again
        :raises WaitTimeout: jobs are still running; nothing is undone
        """
        pause = imports.FIRST_POLL
        with self.ends.reporter.phase("Import"):
            while not self.poll(state):
                with self._undoing(state):
                    self.ends.patience.pause(pause, f"{_still_running(state)}. {self._how_to_go_on(state)}")
                pause = imports.next_poll(pause, poll_interval)

    def poll(self, state: RestoreState) -> bool:
        """Look once at every job that has not ended, and see to those that failed; returns whether all are done.

        :raises ImportFailed: a job failed for good; what this restore created is dropped again
        """
        if state.undone:
            raise RestoreError(f"restore {state.restore_id} of backup {state.backup_name!r} was undone: {state.undone}; restore again")
        if state.summary:
            return True
        self._work_on(state)
        with self._undoing(state):
            # Whoever began it died while submitting, Milvus took no more jobs, or L0 segments had to wait for the data.
            if any(target.due for target in state.targets if not target.done):
                self._submit(state)
            news, failed = False, []
            for target in [target for target in state.targets if not target.done]:
                jobs = {job.job_id: job for job in target.jobs if job.job_id and not job.ended}
                if any(job.snapshot for job in jobs.values()):
                    statuses = [snapshots.snapshot_state(self.ends.server, job_id, target.building) for job_id in jobs]
                else:
                    statuses = list(self.ends.door.statuses(target.building, list(jobs)))
                for status in statuses:
                    job = jobs[status.job_id]
                    job.state, job.imported, job.reason = status.state.value, status.rows, status.reason
                    if status.state is JobState.COMPLETED:
                        news = True
                        self.ends.reporter.line(f"job {job.job_id}: {job.what} into {target.name}, {job.where}")
                    elif status.state is not JobState.RUNNING:
                        failed.append((target, job))
            if failed:
                self._see_to(state, failed)
            elif news:
                self.states.save(state)
            if news and any(target.due for target in state.targets if not target.done):
                self._submit(state)
        total = sum(job.rows for _, job in state.jobs())
        imported = sum(job.imported for _, job in state.jobs() if job.completed and not job.l0)
        self.ends.reporter.progress(f"imported {imported:,} of {total:,} rows, {counted(len(state.pending()), 'job')} running")
        return state.imported

    def _see_to(self, state: RestoreState, failed: Sequence[tuple[Target, Job]]) -> None:
        """Submit failed jobs again or begin their collections anew, where that can help; otherwise raise ImportFailed."""
        whole = [target for target in {id(target): target for target, _ in failed}.values() if reconcile(self.ends, target)]
        # What a collection must hold is only known when none of its jobs runs any more; until then jobs without a record wait.
        busy = [target for target, _ in failed if any(job.state == JobState.RUNNING.value for job in target.jobs)]
        failed = [(t, job) for t, job in failed if t not in whole and not (job.state == JobState.UNKNOWN.value and t in busy)]
        for target, job in failed:
            lost = job.state == JobState.UNKNOWN.value
            kind = Failure.RESTARTED if lost else imports.failure(job.reason)
            if lost and target.append:
                raise RestoreError(
                    f"Milvus has no record of import job {job.job_id} into {target.name} any more, and its rows may be there or not: "
                    "nothing is imported again. Compare the rows, then restore under another name or delete what is there twice"
                )
            if kind is Failure.PERMANENT or job.again >= MAX_AGAIN or target.generation >= MAX_AGAIN:
                self._fail(state, target, job)
            if kind is Failure.PASSING or target.append:
                self.ends.reporter.warn(f"import job {job.job_id} into {target.name} failed ({job.reason}); it is submitted again")
                job.again += 1
                job.submit_again()
        for target in {id(target): target for target, job in failed if job.job_id}.values():
            self.ends.reporter.warn(f"{target.name} is begun anew: {next(job.reason for t, job in failed if t is target)}")
            state.left.append(target.building)
            target.begin_anew(state.restore_id)
        self._submit(state)

    def _submit(self, state: RestoreState) -> None:
        submitting.submit(self.ends, self.states, state, self._how_to_go_on(state))

    def _fail(self, state: RestoreState, target: Target, job: Job) -> None:
        undoing.undo(self.ends, self.states, state, f"import job {job.job_id} failed: {job.reason}")
        files = listed([path for paths in job.files for path in paths if path])
        bucket = self.ends.milvus_store.location.bucket
        raise ImportFailed(
            f"import job {job.job_id} into {target.name}, partition {job.partition!r}, failed: {job.reason or 'no reason'} "
            f"(files: {files} in bucket {bucket!r}). {undoing.what_is_left(state)}"
        )

    # ---- finish ------------------------------------------------------------------------------------------------------------

    def finish(self, state: RestoreState) -> dict[str, object]:
        """Check the rows, load, give the collections their names, remove staged objects; returns the summary.

        Finishing twice does nothing the second time.

        :raises RowsMissing: fewer rows arrived than were backed up; what this restore created is dropped again
        :raises RestoreError: import jobs are still running
        """
        if not self.poll(state):
            raise RestoreError(f"nothing can be finished yet: {_still_running(state)}")
        if state.summary:
            return state.summary
        with self.ends.reporter.phase("Finish"), self._undoing(state):
            self.ends.patience.check(f"all rows were imported. {self._how_to_go_on(state)}")
            seconds = finishing.finish(self.ends, self.states, state)
        for line in state.table(seconds):
            self.ends.reporter.line(line)
        return state.summary

    def cancel(self, state: RestoreState, why: str, grace: float) -> None:
        """Undo a restore on somebody's behalf, unless another process has gone on with it.

        :param grace: seconds to wait for running imports to end
        """
        if not state.summary and not state.undone and undoing.undo(self.ends, self.states, state, why, grace):
            for store, key in self._lease_keys(state):
                end_waiting(store, key, remove=not state.left)

    def abandon(self, state: RestoreState, why: str) -> None:
        """Undo a restore that an earlier process has left; a process that still lives loses its lease, and stops.

        :raises BackupInUse: several want to do so at once
        """
        self._work_on(state)
        if state.undone:
            undoing.complete(self.ends, self.states, state)
        else:
            undoing.undo(self.ends, self.states, state, why)

    # ---- what happens when it does not work --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _undoing(self, state: RestoreState) -> Iterator[None]:
        """Undo the restore when an error passes through that a further try would meet again."""
        try:
            yield
        except TakenOver:
            raise
        except MilvusBackupError as error:
            killed = isinstance(error, Cancelled)
            if self.resumable and (error.retryable or (killed and not self.cancel_on_kill)):
                self.ends.reporter.line(f"what restore {state.restore_id} has done stays; a retry goes on with it")
            else:
                undoing.undo(self.ends, self.states, state, str(error), 2 if killed else undoing.GRACE)
            raise
        except BaseException as error:
            if not self.resumable:
                undoing.undo(self.ends, self.states, state, type(error).__name__, 2)
            raise

    def _how_to_go_on(self, state: RestoreState) -> str:
        if not self.resumable:
            return "What was created is dropped again"
        sensor = f"MilvusImportSensor(backup_name={state.backup_name!r}, restore_id={state.restore_id!r})"
        return f"A retry goes on with restore {state.restore_id} of backup {state.backup_name!r}, and so does {sensor}"

    def _work_on(self, state: RestoreState) -> None:
        """Take the leases of a restore, once, and keep them until :meth:`close`."""
        self._state = state
        if self._leases:
            return
        owner, doing = Owner(f"restore {state.restore_id}", 0, 0), f"restore backup {state.backup_name!r}"
        for store, key in self._lease_keys(state):
            lease = Lease(store, key, owner, doing, self.ends.reporter)
            try:
                lease.take()
            except StorageDenied as error:
                self.ends.reporter.warn(f"nobody can see that this restore is under way, for its lease cannot be written: {error}")
                continue
            self._leases.append(lease)
            self._kept.enter_context(lease.kept(self.ends.patience))

    def _lease_keys(self, state: RestoreState) -> list[tuple[ObjectStore, str]]:
        short, root = short_id(state.restore_id), self.ends.backups.location.root_path
        return [
            (self.ends.milvus_store, undoing.lease_of(short)),
            (self.ends.backups, layout.lease_key(root, state.backup_name, short)),
        ]


def _still_running(state: RestoreState) -> str:
    if pending := state.pending():
        return f"import jobs {listed(pending)} are still running in Milvus"
    return "Milvus has as many import jobs as it takes, and jobs of this restore wait until it takes more"
