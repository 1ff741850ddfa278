"""Import jobs: what they read, their states, and how to ask for them.

Below 2.4 jobs are known to gRPC only. One function, :func:`classify`, says what a state means; the synchronous wait, the trigger and the
sensor all go through it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .errors import ServerError
from .rpc import check_status, explain_rpc_error, open_channel, request_metadata
from .server import MilvusServer
from .settings import MilvusAddress

#: Options of every job. The quota was met when the rows were written first; a restore must not fail on it.
OPTIONS = {"backup": "true", "skip_disk_quota_check": "true"}

FIRST_POLL = 0.2
_POLL_GROWTH = 1.1


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


def classify(job_id: int, answer: Any) -> JobStatus:
    """Return the meaning of a GetImportStateResponse.

    ImportPersisted and ImportFlushed are steps on the way (``internal/rootcoord/import_task.go`` of 2.3); only ImportCompleted makes the
    rows visible.
    """
    infos = {pair.key: pair.value for pair in answer.infos}
    state = {6: JobState.COMPLETED, 1: JobState.FAILED, 7: JobState.FAILED}.get(answer.state, JobState.RUNNING)
    progress = infos.get("progress_percent", "")
    return JobStatus(job_id, state, answer.row_count, int(progress) if progress.isdigit() else 0, infos.get("failed_reason", ""))


def lost(job_id: int, error: ServerError) -> JobStatus:
    """Return UNKNOWN for the error of a job without a record; raises any other error again."""
    text = str(error)
    if "key not found" in text or "job does not exist" in text:
        return JobStatus(job_id, JobState.UNKNOWN, reason="Milvus no longer has a record of this job")
    raise error


def job_status(server: MilvusServer, job_id: int) -> JobStatus:
    """Ask for one job."""
    try:
        return classify(job_id, server.import_state(job_id))
    except ServerError as error:
        return lost(job_id, error)


async def open_async(address: MilvusAddress) -> tuple[Callable[[int], Awaitable[JobStatus]], Callable[[], Awaitable[None]]]:
    """Return (ask for one job, close): the same for an event loop. pymilvus is imported in a thread, for it takes seconds."""
    import asyncio

    def stubs() -> Any:
        import grpc.aio
        from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

        return grpc, milvus_pb2, milvus_pb2_grpc

    grpc, messages, services = await asyncio.to_thread(stubs)
    channel = open_channel(address, grpc.aio)
    stub = services.MilvusServiceStub(channel)

    async def ask(job_id: int) -> JobStatus:
        doing = f"ask for import job {job_id}"
        try:
            answer = await stub.GetImportState(
                messages.GetImportStateRequest(task=job_id), timeout=30, metadata=request_metadata(address, None), wait_for_ready=False
            )
            check_status(answer, doing, address)
        except grpc.RpcError as error:
            raise explain_rpc_error(error, doing, address) from None
        except ServerError as error:
            return lost(job_id, error)
        return classify(job_id, answer)

    return ask, channel.close


def next_poll(pause: float, longest: float) -> float:
    """Return how long to wait before the next look: a little longer each time, never longer than ``longest`` seconds."""
    return min(longest, pause * _POLL_GROWTH)
