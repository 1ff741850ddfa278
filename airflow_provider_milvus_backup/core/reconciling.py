"""What became of import jobs that Milvus keeps no record of any more: it forgets them three hours after their end (24 on 2.3).

Nothing is guessed. The collection is ours alone, so when nothing works on it any more and it holds exactly the rows that it must, the
jobs have done their work. Where rows may have been deleted on the way in, the number does not tell, and the collection is begun anew.
"""

from __future__ import annotations

from .ends import Ends
from .imports import JobState
from .restore_state import Target


def expected_rows(target: Target) -> int | None:
    """Return how many rows the collection holds if all jobs without a record have completed; None when that cannot be known.

    Pure.
    """
    rows = 0
    for job in target.jobs:
        if job.completed:
            rows += 0 if job.l0 else job.imported
        elif job.state == JobState.UNKNOWN.value and not (job.l0 or job.snapshot or job.delta_prefixes or target.end_ts):
            rows += job.rows
        elif job.job_id:
            return None
    return None if target.append else rows


def reconcile(ends: Ends, target: Target) -> bool:
    """Mark the jobs without a record as completed where the collection proves that they are; return whether it does."""
    expected = expected_rows(target)
    if expected is None or ends.door.running(target.building):
        return False
    if sum(segment.rows for segment in ends.server.segments(target.building)) != expected:
        return False
    for job in target.jobs:
        if job.state == JobState.UNKNOWN.value:
            job.state, job.imported, job.reason = JobState.COMPLETED.value, job.rows, ""
            ends.reporter.line(f"job {job.job_id}: Milvus has no record of it any more, and all its rows are in {target.name}")
    return True
