"""Import jobs: what they read, their states, and how to ask for them.

Below 2.4 jobs are known to gRPC only. One function, :func:`classify`, says what a state means; the synchronous wait, the trigger and the
sensor all go through it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from .errors import ServerError, ServerUnreachable
from .rpc import REQUEST_SECONDS, check_status, explain_rpc_error, open_channel, request_metadata
from .server import MilvusServer
from .settings import MilvusAddress

#: Options of every job. The quota was met when the rows were written first; a restore must not fail on it.
OPTIONS = {"backup": "true", "skip_disk_quota_check": "true"}

#: The option by which a job is found again. Milvus ignores what it does not know, and shows it in ListImportTasks.
TAG = "restore_job"

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


def job_status(server: MilvusServer, job_id: int) -> JobStatus:
    """Ask for one job."""
    try:
        return classify(job_id, server.import_state(job_id))
    except ServerError as error:
        return lost(job_id, error)


class SharedChannel:
    """One channel for all triggers of one event loop that ask the same Milvus; the last one closes it."""

    _open: ClassVar[dict[tuple[Any, MilvusAddress], SharedChannel]] = {}

    def __init__(self, channel: Any, stub: Any, messages: Any) -> None:
        self.channel, self.stub, self.messages = channel, stub, messages
        self.users = 0
        self.asked: set[asyncio.Future[Any]] = set()

    @classmethod
    async def of(cls, address: MilvusAddress) -> SharedChannel:
        """Return the channel to a Milvus. pymilvus is imported in a thread, for it takes seconds."""

        def stubs() -> Any:
            import grpc.aio
            from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

            return grpc, milvus_pb2, milvus_pb2_grpc

        grpc, messages, services = await asyncio.to_thread(stubs)
        key = (asyncio.get_running_loop(), address)
        if key not in cls._open:
            channel = open_channel(address, grpc.aio)
            cls._open[key] = cls(channel, services.MilvusServiceStub(channel), messages)
        shared = cls._open[key]
        shared.users += 1
        return shared

    async def job_status(self, job_id: int, address: MilvusAddress) -> JobStatus:
        """Ask for one job. The request is never cancelled, whoever stops waiting for it: see :meth:`.rpc.MilvusRpc._answer_of`."""
        import grpc

        doing = f"ask for import job {job_id}"

        async def ask() -> Any:
            return await self.stub.GetImportState(
                self.messages.GetImportStateRequest(task=job_id), metadata=request_metadata(address, None), wait_for_ready=False
            )

        asked = asyncio.ensure_future(ask())
        self.asked.add(asked)
        asked.add_done_callback(self._answered)
        done, _ = await asyncio.wait([asked], timeout=REQUEST_SECONDS)
        if not done:
            raise ServerUnreachable(f"Milvus at {address} did not {doing} within {REQUEST_SECONDS:.0f} s")
        try:
            answer = asked.result()
            check_status(answer, doing, address)
        except grpc.RpcError as error:
            raise explain_rpc_error(error, doing, address) from None
        except ServerError as error:
            return lost(job_id, error)
        return classify(job_id, answer)

    def _answered(self, asked: asyncio.Future[Any]) -> None:
        self.asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # whoever has stopped waiting does not want to know

    async def close(self, address: MilvusAddress) -> None:
        """Give the channel back; the last user closes it, when Milvus has answered what it was asked."""
        self.users -= 1
        if self.users:
            return
        self._open.pop((asyncio.get_running_loop(), address), None)
        if self.asked:
            await asyncio.wait(self.asked, timeout=5)
        await self.channel.close()


async def open_async(address: MilvusAddress) -> tuple[Callable[[int], Awaitable[JobStatus]], Callable[[], Awaitable[None]]]:
    """Return (ask for one job, give the channel back), for an event loop."""
    shared = await SharedChannel.of(address)
    return functools.partial(shared.job_status, address=address), functools.partial(shared.close, address)


def next_poll(pause: float, longest: float) -> float:
    """Return how long to wait before the next look: a little longer each time, never longer than ``longest`` seconds."""
    return min(longest, pause * _POLL_GROWTH)
