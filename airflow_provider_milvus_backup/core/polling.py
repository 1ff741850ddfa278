"""Asking for import jobs in an event loop: one client for all triggers of a loop that ask the same Milvus; the last one closes it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from . import imports, snapshot_plan
from .errors import MilvusBackupError, ServerError, ServerUnreachable, UnsupportedServer
from .imports import JobStatus
from .rest import ASK_SECONDS, CONNECTIONS, DESCRIBE, LIST, client_options, data_of, explain_http_error, path_of, request_options
from .rpc import REQUEST_SECONDS, check_status, explain_rpc_error, open_channel, request_metadata
from .settings import MilvusAddress

#: More jobs than these, asked for within so many seconds, are looked up in a list, and a list is believed for as long.
_FEW, _FRESH = 8, 1.0

Ask = Callable[[int, str], Awaitable[JobStatus]]
Close = Callable[[], Awaitable[None]]


class _Poller(Protocol):
    async def job_status(self, job_id: int, database: str) -> JobStatus:
        """Ask for one job."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass(slots=True)
class _Shared:
    poller: asyncio.Future[_Poller]
    users: int = 0


_open: dict[tuple[asyncio.AbstractEventLoop, MilvusAddress, bool], _Shared] = {}


async def open_async(address: MilvusAddress, *, rest: bool = False) -> tuple[Ask, Close]:
    """Return (ask for one job of a database, give the client back), for the running event loop.

    :param rest: ask over REST, as whoever submitted the jobs did
    """
    key = (asyncio.get_running_loop(), address, rest)
    if key not in _open:
        _open[key] = _Shared(asyncio.ensure_future(_made(address, rest=rest)))
    shared = _open[key]
    shared.users += 1

    async def close() -> None:
        shared.users -= 1
        if not shared.users:
            _open.pop(key, None)
            with contextlib.suppress(MilvusBackupError):
                await (await shared.poller).close()

    try:
        poller = await asyncio.shield(shared.poller)
    except BaseException:
        await close()
        raise
    return poller.job_status, close


async def _made(address: MilvusAddress, *, rest: bool) -> _Poller:
    # In a thread, for importing takes seconds and certificates are read from files; once, though a thousand triggers may start at a time.
    make = await asyncio.to_thread(_prepare_rest if rest else _prepare_grpc, address)
    return make()


def _prepare_grpc(address: MilvusAddress) -> Callable[[], _Poller]:
    import grpc.aio
    from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc

    def make() -> _Poller:
        channel = open_channel(address, grpc.aio)
        return _GrpcPoller(address, channel, milvus_pb2_grpc.MilvusServiceStub(channel), milvus_pb2)  # type: ignore[no-untyped-call]

    return make


def _prepare_rest(address: MilvusAddress) -> Callable[[], _Poller]:
    import httpx

    return partial(_RestPoller, address, httpx.AsyncClient(**client_options(address)))


@dataclass(slots=True)
class _GrpcPoller:
    address: MilvusAddress
    channel: Any
    stub: Any
    messages: Any
    asked: set[asyncio.Future[Any]] = field(default_factory=set)

    async def job_status(self, job_id: int, database: str) -> JobStatus:  # noqa: ARG002 (gRPC does not ask for it)
        """Ask for one job. The request is never cancelled, whoever stops waiting for it: see :meth:`.rpc.MilvusRpc._answer_of`."""
        import grpc

        doing = f"ask for import job {job_id}"

        async def ask() -> Any:
            return await self.stub.GetImportState(
                self.messages.GetImportStateRequest(task=job_id), metadata=request_metadata(self.address, None), wait_for_ready=False
            )

        asked = asyncio.ensure_future(ask())
        self.asked.add(asked)
        asked.add_done_callback(self._answered)
        done, _ = await asyncio.wait([asked], timeout=REQUEST_SECONDS)
        if not done:
            raise ServerUnreachable(f"Milvus at {self.address} did not {doing} within {REQUEST_SECONDS:.0f} s")
        try:
            answer = asked.result()
            check_status(answer, doing, self.address)
        except grpc.RpcError as error:
            raise explain_rpc_error(error, doing, self.address) from None
        except ServerError as error:
            return await self._of_snapshot(imports.lost(job_id, error))
        return imports.of_grpc(job_id, answer)

    async def _of_snapshot(self, lost: JobStatus) -> JobStatus:
        """Ask for a job that is none of the imports: restores of snapshots have ids out of the same sequence."""
        import grpc

        doing = f"ask for snapshot job {lost.job_id}"
        try:
            request = self.messages.GetRestoreSnapshotStateRequest(job_id=lost.job_id)
            answer = await self.stub.GetRestoreSnapshotState(
                request, timeout=REQUEST_SECONDS, metadata=request_metadata(self.address, None), wait_for_ready=False
            )
            check_status(answer, doing, self.address)
        except AttributeError:  # a pymilvus that knows no snapshots
            return lost
        except grpc.RpcError as error:
            problem = explain_rpc_error(error, doing, self.address)
            if isinstance(problem, UnsupportedServer):
                return lost
            raise problem from None
        except ServerError as error:
            return snapshot_plan.lost(lost.job_id, error)
        return snapshot_plan.of_answer(lost.job_id, answer)

    def _answered(self, asked: asyncio.Future[Any]) -> None:
        self.asked.discard(asked)
        if not asked.cancelled():
            asked.exception()  # whoever has stopped waiting does not want to know

    async def close(self) -> None:
        """Close the channel, when Milvus has answered what it was asked."""
        if self.asked:
            await asyncio.wait(self.asked, timeout=5)
        await self.channel.close()


@dataclass(slots=True)
class _RestPoller:
    address: MilvusAddress
    client: Any
    paths: tuple[str, ...] = DESCRIBE
    # What waits for a connection waits here, for httpx looks through all that wait whenever a connection is free.
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))
    #: When jobs were asked for last.
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_FEW))
    lists: dict[str, tuple[float, asyncio.Future[dict[int, JobStatus]]]] = field(default_factory=dict)
    can_list: bool = True

    async def job_status(self, job_id: int, database: str) -> JobStatus:
        """Ask for one job: in one list with many others where many are asked for, for that costs both ends a thousandth."""
        now = time.monotonic()
        many = len(self.recent) == _FEW and now - self.recent[0] < _FRESH
        self.recent.append(now)
        if many and (listed := (await self._listed(database)).get(job_id)) and listed.state is imports.JobState.RUNNING:
            return listed
        return await self._ask(job_id, database)  # a list does not tell how many rows came, nor of all jobs to all users

    async def _listed(self, database: str) -> dict[int, JobStatus]:
        since, jobs = self.lists.get(database, (0.0, None))
        if jobs is None or time.monotonic() - since > _FRESH or (jobs.done() and (jobs.cancelled() or jobs.exception())):
            jobs = asyncio.ensure_future(self._list(database))
            self.lists[database] = time.monotonic(), jobs
        return await asyncio.shield(jobs)

    async def _list(self, database: str) -> dict[int, JobStatus]:
        if not self.can_list:
            return {}
        try:
            data = await self._send(LIST, {}, "list import jobs", database)
        except ServerError as error:
            self.can_list = error.retryable
            return {}
        return {status.job_id: status for status in imports.of_list(data)}

    async def _send(self, path: str, body: dict[str, str], doing: str, database: str) -> dict[str, Any]:
        import httpx

        async with self.gate:
            try:
                response = await self.client.post(path_of(path), json=body, **request_options(self.address, database, ASK_SECONDS))
            except httpx.HTTPError as error:
                raise explain_http_error(error, doing, self.address) from None
        return data_of(response.status_code, response.content, doing, self.address)

    async def _ask(self, job_id: int, database: str) -> JobStatus:
        while True:
            path = self.paths[0]
            try:
                return imports.of_rest(job_id, await self._send(path, {"jobId": str(job_id)}, f"ask for import job {job_id}", database))
            except UnsupportedServer:
                if path == DESCRIBE[-1]:
                    raise
                self.paths = DESCRIBE[1:]
            except ServerError as error:
                return imports.lost(job_id, error)

    async def close(self) -> None:
        """Close all connections."""
        for _, jobs in self.lists.values():
            jobs.cancel()
        await self.client.aclose()
