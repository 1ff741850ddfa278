"""Import jobs as 2.4 and later have them, each made of imports of 2.3.5.

What this cannot show: 2.3.5 keeps the rows of those imports of a failed job that had ended well, newer servers drop them; it gives rows
the time of the import; and it has no L0 segments, so that ``l0_import`` is refused as 3.0 does it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from pymilvus.grpc_gen import common_pb2, milvus_pb2

from tests.door.refused import PARAMETER_INVALID, PARTITION_NOT_FOUND, UNAVAILABLE, Refused, import_failed
from tests.door.translation import Import, Keys, Segment, imports_of, parents, written
from tests.door.upstream import Caller, Upstream

Release = tuple[int, int, int]

PENDING, IMPORTING, COMPLETED, FAILED = "Pending", "Importing", "Completed", "Failed"
#: The state of one file in a job's details, ``ImportTaskStateV2``.
FILE_STATES = {PENDING: "Pending", IMPORTING: "InProgress", COMPLETED: "Completed", FAILED: "Failed"}
#: How far an import of 2.3.5 is in each of its states, in percent.
STEPS = {"ImportPending": 5, "ImportStarted": 40, "ImportPersisted": 70, "ImportFlushed": 80, "ImportCompleted": 100}
ENDS = {"ImportCompleted": COMPLETED, "ImportFailed": FAILED, "ImportFailedAndCleaned": FAILED}
#: Bits of a hybrid timestamp below its milliseconds.
LOGICAL_BITS = 18
#: The year 2000 as a hybrid timestamp: what is less was milliseconds or seconds.
FIRST_HYBRID = 946_684_800_000 << LOGICAL_BITS


class CreateRequest(NamedTuple):
    """The body of ``jobs/import/create``."""

    collection: str
    partition: str
    files: list[list[str]]
    options: Mapping[str, str]


@dataclass
class Task:
    """One import of the real server."""

    reads: Import
    task_id: int
    state: str = "ImportPending"
    rows: int = 0
    reason: str = ""
    ended: str = ""

    @property
    def outcome(self) -> str:
        """The state of the job if it had no other import."""
        return ENDS.get(self.state, PENDING if self.state == "ImportPending" else IMPORTING)


@dataclass
class Job:
    """One job of the door."""

    job_id: int
    collection: str
    collection_id: int
    created: str
    tasks: list[Task] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def state(self) -> str:
        """What the job's state is called over REST."""
        outcomes = {task.outcome for task in self.tasks}
        if FAILED in outcomes:
            return FAILED
        return outcomes.pop() if len(outcomes) == 1 else IMPORTING

    @property
    def progress(self) -> int:
        """Percent; a failed job has none."""
        return 0 if self.state == FAILED else sum(STEPS[task.state] for task in self.tasks) // len(self.tasks)

    @property
    def reason(self) -> str:
        """Why it failed."""
        return next((task.reason for task in self.tasks if task.outcome == FAILED), "")

    def refresh(self, caller: Caller) -> None:
        """Ask the real server about the imports that have not ended."""
        with self.lock:
            for task in self.tasks:
                if task.outcome in (COMPLETED, FAILED):
                    continue
                try:
                    answer = caller.ask("GetImportState", milvus_pb2.GetImportStateRequest(task=task.task_id))
                except Refused as refused:
                    if refused.code == UNAVAILABLE or "key not found" not in refused.message:
                        raise
                    task.state, task.reason = "ImportFailed", refused.message
                    continue
                infos = {pair.key: pair.value for pair in answer.infos}
                task.rows, task.reason = answer.row_count, infos.get("failed_reason", "")
                task.state = common_pb2.ImportState.Name(answer.state)
                if task.outcome == COMPLETED:
                    task.ended = _now()

    def describe(self, release: Release) -> dict[str, Any]:
        """Return the answer of ``jobs/import/describe``; what a job reads is not told before it has begun."""
        details = [detail for task in self.tasks for detail in _details(task)] if self.state != PENDING else []
        rows = 0 if self.state == FAILED else sum(task.rows for task in self.tasks)
        return {
            "jobId": str(self.job_id),
            "collectionName": self.collection,
            **({"createTime": self.created} if release >= (2, 6, 5) else {}),
            "completeTime": max(task.ended for task in self.tasks) if self.state == COMPLETED else "",
            "state": self.state,
            "progress": self.progress,
            "importedRows": rows,
            "totalRows": rows,
            **self._why(),
            "fileSize": sum(detail["fileSize"] for detail in details),
            "details": details,
        }

    def record(self) -> dict[str, Any]:
        """Return its line in the answer of ``jobs/import/list``."""
        line = {"jobId": str(self.job_id), "collectionName": self.collection, "state": self.state, "progress": self.progress}
        return {**line, **self._why()}

    def _why(self) -> dict[str, str]:
        return {"reason": self.reason} if self.reason else {}


class Jobs:
    """All import jobs since the door opened.

    :param release: of the server that it looks like
    """

    def __init__(self, upstream: Upstream, release: Release) -> None:
        self._upstream, self._release = upstream, release
        #: Jobs that may be unfinished at the same time, ``dataCoord.import.maxImportJobNum``.
        self.most = 1024
        #: Pairs in one request, and segments in one job, ``dataCoord.import.maxImportFileNumPerReq``.
        self.most_files = 1024
        self._jobs: dict[int, Job] = {}
        self._ids = itertools.count(time.time_ns() // 1_000_000 << LOGICAL_BITS)

    def forget(self) -> None:
        """Lose every record, as a server does three hours after the end of a job."""
        self._jobs.clear()

    def imports_of(self, job_id: str) -> list[Import]:
        """Return the imports of 2.3.5 that a job is made of."""
        return [task.reads for task in self._jobs[int(job_id)].tasks]

    def create(self, caller: Caller, request: CreateRequest) -> dict[str, Any]:
        """Check a request as ``internal/proxy/task_import.go`` and ``internal/datacoord`` do, and start its imports."""
        described = caller.collection(request.collection)
        self._check(caller, request)
        keys: dict[str, int] = {}
        for parent in parents(request.files):
            keys |= self._upstream.objects(parent)
        imports = imports_of(request.files, Keys(keys))
        if not imports:
            raise self._import_failed(f"no binlog to import, input={written(request.files)}")
        if (count := sum(len(one.segments) for one in imports)) > self.most_files:
            raise self._import_failed(f"The max number of import files should not exceed {self.most_files}, but got {count}")
        self._check_limit(caller)
        job = Job(next(self._ids), request.collection, described.collectionID, _now())
        for one in imports:
            job.tasks.append(self._start(caller, request, one))
        self._jobs[job.job_id] = job
        return {"jobId": str(job.job_id)}

    def describe(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """Answer ``jobs/import/describe``."""
        if not job_id.lstrip("-").isdecimal():
            raise import_failed(f'parse job id failed, err=%wstrconv.ParseInt: parsing "{job_id}": invalid syntax')
        job = self._jobs.get(int(job_id))
        if job is None:
            raise import_failed(f"import job does not exist, jobID={int(job_id)}")
        job.refresh(caller)
        return job.describe(self._release)

    def list(self, caller: Caller, collection: str) -> dict[str, Any]:
        """Answer ``jobs/import/list``: the jobs of one collection, or all of all databases without a name."""
        wanted = caller.collection(collection).collectionID if collection else None
        jobs = [job for job in list(self._jobs.values()) if wanted in (None, job.collection_id)]
        for job in jobs:
            job.refresh(caller)
        return {"records": [job.record() for job in jobs]}

    def _check(self, caller: Caller, request: CreateRequest) -> None:
        if _flag(request.options, "l0_import"):
            raise self._import_failed("l0 import is disabled (dataCoord.import.enableL0Import=false); the server behind the door has no L0")
        if not _flag(request.options, "backup"):
            raise self._import_failed(f"unexpected file type, files={request.files}")
        if not request.partition:
            raise Refused(PARAMETER_INVALID, "partition not specified: invalid parameter")
        partitions = caller.ask("ShowPartitions", milvus_pb2.ShowPartitionsRequest(collection_name=request.collection))
        if request.partition not in partitions.partition_names:
            raise Refused(PARTITION_NOT_FOUND, f"partition not found[partition={request.partition}]")
        files = [paths for paths in request.files if paths]
        if not files:
            raise Refused(PARAMETER_INVALID, "import request is empty: invalid parameter")
        if len(files) > self.most_files:
            raise import_failed(f"The max number of import files should not exceed {self.most_files}, but got {len(files)}")
        for paths in files:
            if len(paths) > 2:
                listed = " ".join(paths)
                message = f"too many input paths for binlog import. Valid paths length should be one or two, but got paths:[{listed}]"
                raise self._import_failed(message)
        self._options(request.options)

    def _check_limit(self, caller: Caller) -> None:
        running = [job for job in list(self._jobs.values()) if job.state not in (COMPLETED, FAILED)]
        if len(running) >= self.most:
            for job in running:
                job.refresh(caller)
        if sum(1 for job in running if job.state not in (COMPLETED, FAILED)) >= self.most:
            raise self._import_failed(
                "The number of jobs has reached the limit, please try again later. If your request is set to only import a single file, "
                "please consider importing multiple files in one request for better efficiency."
            )

    def _start(self, caller: Caller, request: CreateRequest, one: Import) -> Task:
        """Start one import; one that the real server does not take is one that failed, as the job is there already."""
        message = milvus_pb2.ImportRequest(
            collection_name=request.collection, partition_name=request.partition, files=[one.insert, one.delta]
        )
        for key, value in self._options(request.options).items():
            message.options.add(key=key, value=value)
        try:
            return Task(one, caller.ask("Import", message).tasks[0])
        except Refused as refused:
            return Task(one, 0, "ImportFailed", reason=refused.message)

    def _options(self, options: Mapping[str, str]) -> dict[str, str]:
        """Return the options as 2.3.5 takes them: timestamps in milliseconds; raises Refused when this release would not take them."""
        taken = dict(options)
        for key in [key for key in options if key.lower() in ("start_ts", "startts", "end_ts", "endts")]:
            value = options[key]
            if not value.isdecimal():
                raise self._import_failed(f"parse {key} failed, value={value}, err=invalid syntax")
            if self._release >= (2, 5, 6) or (2, 4, 24) <= self._release < (2, 5, 0):
                if int(value) < FIRST_HYBRID:
                    raise self._import_failed(f"{key} is not a valid hybrid timestamp, value={value}")
                taken[key] = str(int(value) >> LOGICAL_BITS)
        return taken

    def _import_failed(self, reason: str) -> Refused:
        within = "failed to broadcast import: failed to validate import request: " if self._release >= (2, 6, 0) else ""
        return import_failed(within + reason)


def _details(task: Task) -> list[dict[str, Any]]:
    """Return a line for each segment. How many rows each has 2.3.5 does not say: they are shared out by bytes."""
    total, lines, given, behind = sum(segment.size for segment in task.reads.segments) or 1, [], 0, 0
    for segment in task.reads.segments:
        behind += segment.size
        rows = task.rows * behind // total - given
        given += rows
        line = {"fileName": f"[{_paths(segment)}]", "fileSize": segment.size, "progress": 100 if task.outcome == COMPLETED else 0}
        line |= {"completeTime": task.ended, "state": FILE_STATES[task.outcome], "importedRows": rows, "totalRows": rows}
        lines.append({**line, **({"reason": task.reason} if task.reason else {})})
    return lines


def _paths(segment: Segment) -> str:
    return f"{segment.insert} {segment.delta}".rstrip()


def _flag(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "").lower() == "true"


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
