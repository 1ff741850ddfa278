"""Import jobs: their options and what their states mean. Pure functions.

Jobs are submitted and asked for over gRPC or REST (:mod:`.doors`, and :mod:`.polling` for the triggerer). One function, :func:`classify`,
says what a state means; the synchronous wait, the trigger and the sensor all go through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .capabilities import Capabilities, Capability
from .errors import ConfigError, ServerError
from .patience import is_seconds

#: The option by which a job is found again. Milvus ignores what it does not know, and before 2.4 shows it in ListImportTasks.
TAG = "restore_job"

FIRST_POLL = 0.2
_POLL_GROWTH = 1.1


def options(capabilities: Capabilities, *, l0: bool, storage_version: int, end_ts: int, tag: str) -> dict[str, str]:
    """Return the options of one job (``internal/util/importutilv2/option.go``).

    The quota was met when the rows were written first; a restore must not fail on it.

    :param storage_version: of its segments; Milvus takes them for version 1 unless told
    :param end_ts: hybrid timestamp after which rows are left out, 0 for none. Releases that want milliseconds get the next full one, so
        that no row before it is lost
    """
    given = {"l0_import" if l0 else "backup": "true", "skip_disk_quota_check": "true"}
    if storage_version > 1:
        given["storage_version"] = str(storage_version)
    if end_ts:
        given["end_ts"] = str(end_ts if capabilities.has(Capability.HYBRID_END_TS) else (end_ts >> 18) + 1)
    return given if capabilities.has(Capability.IMPORT_V2) else {**given, TAG: tag}


def check_poll_interval(value: object) -> None:
    """Raise ConfigError unless this is a number of seconds above 0."""
    if not is_seconds(value):
        raise ConfigError(f"poll_interval {value!r} is not a number of seconds above 0")


def full(error: ServerError) -> bool:
    """Return whether Milvus refuses a job only because it has as many as it takes."""
    return "reached the limit" in str(error) and "number of jobs" in str(error).lower()


class JobState(str, Enum):
    """What a job's state means for whoever waits."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    #: Milvus no longer keeps a record of the job; it may have ended either way.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job as Milvus reports it."""

    job_id: int
    state: JobState
    rows: int = 0
    progress: int = 0
    reason: str = ""


#: States that are an end; all others are steps on the way, also those that a later release may bring. gRPC's ImportPersisted and
#: ImportFlushed do not make the rows visible (``internal/rootcoord/import_task.go`` of 2.3), nor do REST's Uncommitted and Committing.
_ENDS = {
    "ImportCompleted": JobState.COMPLETED,
    "ImportFailed": JobState.FAILED,
    "ImportFailedAndCleaned": JobState.FAILED,
    "Completed": JobState.COMPLETED,
    "Failed": JobState.FAILED,
}
_GRPC_STATES = {1: "ImportFailed", 6: "ImportCompleted", 7: "ImportFailedAndCleaned"}


def classify(job_id: int, state: str, rows: object = 0, progress: object = 0, reason: str = "") -> JobStatus:
    """Return what a state means, by the name it has in gRPC or in REST; numbers may be texts."""
    return JobStatus(job_id, _ENDS.get(state, JobState.RUNNING), _number(rows), _number(progress), reason)


def of_grpc(job_id: int, answer: Any) -> JobStatus:
    """Return the meaning of a GetImportStateResponse."""
    infos = {pair.key: pair.value for pair in answer.infos}
    reason = infos.get("failed_reason", "")
    return classify(job_id, _GRPC_STATES.get(answer.state, ""), answer.row_count, infos.get("progress_percent", ""), reason)


def of_rest(job_id: int, data: Mapping[str, Any]) -> JobStatus:
    """Return the meaning of what REST says about one job, asked for or in a list."""
    return classify(job_id, str(data.get("state")), data.get("importedRows"), data.get("progress"), str(data.get("reason") or ""))


def of_list(data: Mapping[str, Any]) -> list[JobStatus]:
    """Return the jobs that REST lists; it does not tell how many rows they have brought."""
    return [of_rest(int(record["jobId"]), record) for record in data.get("records") or []]


def _number(value: object) -> int:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0


def lost(job_id: int, error: ServerError) -> JobStatus:
    """Return UNKNOWN for the error of a job without a record; raises any other error again."""
    text = str(error)
    if "key not found" in text or "job does not exist" in text:
        return JobStatus(job_id, JobState.UNKNOWN, reason="Milvus no longer has a record of this job")
    raise error


class Failure(Enum):
    """What can be done about a failed job."""

    #: Submit it again: no node was there for it, or it took too long.
    PASSING = "passing"
    #: Begin the collection anew. A Milvus that is killed while it writes imported segments may never end another import into that
    #: collection (measured on 2.3.5).
    RESTARTED = "restarted"
    PERMANENT = "permanent"


def failure(reason: str) -> Failure:
    """Return what the reason of a failed job means (``internal/rootcoord/import_manager.go`` of 2.3)."""
    if "service restarted" in reason:
        return Failure.RESTARTED
    passing = ("timed out", "timeout", "deadline exceeded", "unavailable", "no datanode", "not ready", "connection re", "try again")
    return Failure.PASSING if any(sign in reason.lower() for sign in passing) else Failure.PERMANENT


def tagged(answers: Iterable[Any]) -> dict[str, int]:
    """Return the job ids of ListImportTasks' answers by their tag."""
    return {pair.value: int(answer.id) for answer in answers for pair in answer.infos if pair.key == TAG}


def next_poll(pause: float, longest: float) -> float:
    """Return how long to wait before the next look: a little longer each time, never longer than ``longest`` seconds."""
    return min(longest, pause * _POLL_GROWTH)
