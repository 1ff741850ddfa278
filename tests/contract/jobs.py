"""Import jobs: DataCoord's engine since 2.4, which REST and gRPC share.

Requests are checked as in ``internal/proxy/task_import.go`` and ``internal/datacoord/services.go`` (ImportV2); states are those of
``internal/datacoord/import_checker.go``, and what clients see of them of ``import_util.go`` (GetJobProgress).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .binlogs import BadObject, Delete
from .compaction import Compaction
from .importing import ImportFile, Options, check_count, parse_options, read_l0, read_segment, segment_files, timeout
from .profiles import Phase
from .refusals import Refusal, import_failed, invalid
from .state import ALL_PARTITIONS, DROPPED, FLUSHED, L0, L1, Collection, Name, Row, Segment

COMPLETED, FAILED = "Completed", "Failed"
UNCOMMITTED, COMMITTING = "Uncommitted", "Committing"


@dataclass(frozen=True, slots=True)
class Fate:
    """What shall become of one job. Put it into :attr:`Jobs.fates`; each job takes the first."""

    #: The reason it fails with.
    fail: str = ""
    #: It stays in the phase of this name (``Importing`` for example) until :attr:`Job.fate` is replaced.
    hang: str = ""
    #: The job is made, and the connection ends without an answer.
    lose_answer: bool = False
    #: Nobody may ask for it once it has ended.
    forget: bool = False


@dataclass(slots=True)
class Job:
    """One import job."""

    id: int
    collection_id: int
    collection: Name
    partition_id: int
    files: list[ImportFile]
    options: Options
    created: float
    #: When it is over at the latest, in the model's monotonic seconds.
    until: float
    fate: Fate
    auto_commit: bool
    #: The phase it is in, by number; one more than there are is the end.
    phase: int = 0
    since: float = 0.0
    state: str = ""
    reason: str = ""
    ended: float = 0.0
    #: What it has written; no query sees it before the job is completed.
    segments: list[Segment] = field(default_factory=list)
    imported_by: dict[str, int] = field(default_factory=dict)
    row_count: int = 0

    @property
    def over(self) -> bool:
        """Whether it is completed or failed."""
        return self.state in (COMPLETED, FAILED)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a client sees of a job."""

    state: str
    progress: int
    reason: str
    imported: int


class Jobs(Compaction):
    """A model that imports."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.jobs: dict[int, Job] = {}
        self._running: dict[int, Job] = {}
        self.fates: deque[Fate] = deque()
        #: Seconds a job spends in each of its phases; the real checker ticks every 2 s.
        self.phase_seconds = 0.01
        #: Whether quotaAndLimits.limitWriting.diskProtection has no room for another import.
        self.quota_exceeded = False

    # ---- requests ----------------------------------------------------------------------------------------------------------

    def import_job(self, name: Name, files: Sequence[Sequence[str]], options: Mapping[str, str], partition: str = "") -> Job:
        """Create a job; raises Refusal for what the server would not take."""
        with self.lock:
            collection = self._settled(name)
            self._advance_all()
            parsed = parse_options(options, self.profile)
            partition_id = self._partition_id(collection, parsed, partition)
            pairs = [tuple(paths) for paths in files if paths]
            if not pairs:
                raise invalid("import request is empty")
            check_count(len(pairs), self.profile)
            if not (parsed.backup or parsed.l0_import):
                raise import_failed(f"unexpected file type, files=[{' '.join(' '.join(paths) for paths in pairs)}]")
            if self.profile.l0_disabled and parsed.l0_import:
                raise import_failed(
                    "l0 import is disabled (dataCoord.import.enableL0Import=false); "
                    "fold L0 deletes into data segment deltalogs before restore"
                )
            found = self._validated(pairs, parsed)
            auto_commit = not (self.profile.two_phase and options.get("auto_commit", "true").lower() == "false")
            fate = self.fates.popleft() if self.fates else Fate()
            now = self.monotonic()
            number, until = self.next_id(), now + timeout(options)
            job = Job(
                number, collection.id, collection.full_name, partition_id, found, parsed, self.clock(), until, fate, auto_commit, since=now
            )
            self.jobs[job.id] = self._running[job.id] = job
            return job

    def _partition_id(self, collection: Collection, options: Options, partition: str) -> int:
        if options.backup:
            if not partition:
                raise invalid("partition not specified")
            return self.partition(collection, partition).id
        if options.l0_import:
            number = self.partition(collection, partition).id if partition else ALL_PARTITIONS
            if collection.loaded:
                raise import_failed("for l0 import, collection cannot be loaded, please release it first")
            return number
        return self.partition(collection, partition or collection.partitions[0].name).id

    def _validated(self, pairs: Sequence[Sequence[str]], options: Options) -> list[ImportFile]:
        """Return what the job will read; from 2.6 on the refusals of this step are wrapped."""
        try:
            timeout(options.raw)
            if self.profile.max_jobs is not None and len(self._running) >= self.profile.max_jobs:
                raise import_failed(
                    "The number of jobs has reached the limit, please try again later. If your request is set to only import a single "
                    "file, please consider importing multiple files in one request for better efficiency.",
                    self.profile.import_sys_code,
                )
            if options.backup:
                return segment_files(self.bucket, pairs, self.profile)
            return [ImportFile(tuple(paths)) for paths in pairs]
        except Refusal as refusal:
            raise Refusal(refusal.code, self.profile.refusal_prefix + refusal.reason) from None

    def job(self, number: int) -> Job:
        """Return a job as it is now; raises Refusal when there is no record of it."""
        with self.lock:
            if number in self._running:
                self._advance(self._running[number])
            if number not in self.jobs or self._gone(self.jobs[number]):
                raise import_failed(f"import job does not exist, jobID={number}", self.profile.import_sys_code)
            return self.jobs[number]

    def jobs_of(self, name: Name | None) -> list[Job]:
        """Return the jobs into a collection, or all there are in all databases."""
        with self.lock:
            self._advance_all()
            wanted = None if name is None else self.collection(name).id
            return [job for job in self.jobs.values() if wanted in (None, job.collection_id) and not self._gone(job)]

    def commit_job(self, number: int) -> None:
        """Make the rows of an uncommitted job visible; one that is committed already stays so."""
        with self.lock:
            job = self.job(number)
            if job.state in (COMMITTING, COMPLETED):
                return
            if job.state != UNCOMMITTED:
                raise import_failed(f"import job {number} is in state {self._phase(job)[0]}, only Uncommitted can be committed")
            job.state = COMMITTING

    def abort_job(self, number: int) -> None:
        """End a job without its rows."""
        with self.lock:
            job = self.job(number)
            if job.state in (COMMITTING, COMPLETED):
                raise import_failed(f"import job {number} is in state {job.state} and cannot be aborted")
            if not job.over:
                self._fail(job, "aborted by user")

    def forget_job(self, number: int) -> None:
        """Remove the record of a job, as the GC does after dataCoord.import.taskRetention."""
        with self.lock:
            self._advance_all()
            self.jobs.pop(number, None)
            self._running.pop(number, None)

    def finish_jobs(self) -> None:
        """Let time pass until every job that can end has ended."""
        with self.lock:
            for job in list(self._running.values()):
                while self._step(job, self.monotonic()):
                    pass

    # ---- states ------------------------------------------------------------------------------------------------------------

    def progress(self, job: Job) -> Progress:
        """Return what a client sees of a job."""
        with self.lock:
            if job.state == COMPLETED:
                return Progress(COMPLETED, 100, "", job.row_count)
            if job.state == FAILED:
                return Progress(FAILED, 0, job.reason, 0)
            if job.state in (UNCOMMITTED, COMMITTING):
                return Progress(job.state, 99, "", job.row_count)
            _, shown, start, end = self._phase(job)
            share = min(1.0, max(0.0, (self.monotonic() - job.since) / max(self.phase_seconds, 1e-9)))
            return Progress(shown, start + int(share * (end - start)), "", job.row_count)

    def _phase(self, job: Job) -> Phase:
        return self.profile.phases[min(job.phase, len(self.profile.phases) - 1)]

    def _settled(self, name: Name) -> Collection:
        # Whoever looks at a collection sees what its jobs have done by now.
        self._advance_all()
        return super()._settled(name)

    def _advance_all(self) -> None:
        for job in list(self._running.values()):
            self._advance(job)

    def _advance(self, job: Job) -> None:
        now = self.monotonic()
        while not job.over and now - job.since >= self.phase_seconds and self._step(job, job.since + self.phase_seconds):
            pass
        if not job.over and now > job.until:
            self._fail(job, "import timeout")

    def _gone(self, job: Job) -> bool:
        return job.over and (job.fate.forget or self.monotonic() - job.ended > self.profile.retention)

    def _step(self, job: Job, now: float) -> bool:
        """Take a job to its next phase; return whether it went on."""
        if job.over or job.state == UNCOMMITTED:
            return False
        phase = self._phase(job)
        if job.fate.hang and job.fate.hang in phase[:2]:
            return False
        if self.collection_by_id(job.collection_id) is None:
            self._fail(job, f"collection {job.collection_id} dropped")
            return False
        if phase[0] == "PreImporting" and self.quota_exceeded and not job.options.skips_quota:
            self._fail(job, "quota exceeded[reason=disk quota exceeded, please allocate more resources]")
            return False
        if phase[0] == "Importing" and not self._read(job):
            return False
        job.phase, job.since = job.phase + 1, now
        if phase[0] == UNCOMMITTED and not job.auto_commit and job.state != COMMITTING:
            job.phase, job.state = job.phase - 1, UNCOMMITTED
            return False
        if job.phase >= len(self.profile.phases) or (phase[0] == "Importing" and not job.row_count and job.auto_commit):
            self._commit(job)
        return True

    def fail_job(self, job: Job, reason: str) -> None:
        """Let a job fail; what it has written is dropped."""
        with self.lock:
            self._fail(job, reason)

    def _fail(self, job: Job, reason: str) -> None:
        job.state, job.reason, job.ended = FAILED, reason, self.monotonic()
        for segment in job.segments:
            segment.state = DROPPED
        self._running.pop(job.id, None)

    def _commit(self, job: Job) -> None:
        commit_ts = self.next_ts() if self.profile.commit_ts else 0
        for segment in job.segments:
            segment.importing, segment.commit_ts = False, commit_ts
        job.state, job.ended = COMPLETED, self.monotonic()
        self._running.pop(job.id, None)

    # ---- work --------------------------------------------------------------------------------------------------------------

    def _read(self, job: Job) -> bool:
        collection = self.collection_by_id(job.collection_id)
        assert collection is not None
        rows: list[Row] = []
        deletes: list[Delete] = []
        try:
            if job.fate.fail:
                raise BadObject(job.fate.fail)
            if job.options.backup:
                for file in job.files:
                    found = read_segment(self.bucket, collection.schema, file, job.options, self.profile)
                    job.imported_by[file.name] = len(found)
                    rows += found
            else:
                deletes = read_l0(self.bucket, job.files, job.options, self.profile)
        except BadObject as error:
            self._fail(job, str(error) if job.fate.fail else f"{error}: importing data failed")
            return False
        job.row_count = len(rows) + len(deletes)
        version = self.profile.storage_version
        for vchannel, some in self._by_channel(collection, rows):
            self._write(job, collection, Segment(self.next_id(), job.partition_id, vchannel, L1, FLUSHED, version, rows=some))
        for vchannel, some in self._by_channel(collection, deletes):
            self._write(job, collection, Segment(self.next_id(), job.partition_id, vchannel, L0, FLUSHED, 0, deletes=some))
        return True

    def _write(self, job: Job, collection: Collection, segment: Segment) -> None:
        segment.importing, segment.sorted = True, self.profile.lists_sorted and segment.level != L0
        self.write_segment(collection, segment)
        collection.segments.append(segment)
        job.segments.append(segment)

    @staticmethod
    def _by_channel(collection: Collection, entries: Iterable[Any]) -> Iterable[tuple[str, list[Any]]]:
        hashed: dict[str, list[Any]] = {}
        for entry in entries:
            hashed.setdefault(collection.vchannel_of(entry.pk), []).append(entry)
        return sorted(hashed.items())
