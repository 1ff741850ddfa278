"""Asking for import jobs in an event loop: one client for all triggers of a loop that ask the same Milvus; the last one closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from . import imports
from .errors import ServerError, ServerUnreachable, UnsupportedServer
from .imports import JobStatus
from .rest import ASK_SECONDS, DESCRIBE, client_options, data_of, explain_http_error, path_of, request_options
from .rpc import REQUEST_SECONDS, check_status, explain_rpc_error, open_channel, request_metadata
from .settings import MilvusAddress

Ask = Callable[[int, str], Awaitable[JobStatus]]
Close = Callable[[], Awaitable[None]]


class _Poller(Protocol):
    async def job_status(self, job_id: int, database: str) -> JobStatus:
        """Ask for one job."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass(slots=True)
class _Shared:
    poller: _Poller
    users: int = 0


_open: dict[tuple[asyncio.AbstractEventLoop, MilvusAddress, bool], _Shared] = {}


async def open_async(address: MilvusAddress, *, rest: bool = False) -> tuple[Ask, Close]:
    """Return (ask for one job of a database, give the client back), for the running event loop.

    :param rest: ask over REST, as whoever submitted the jobs did
    """
    # In a thread, for importing takes seconds and certificates are read from files.
    make = await asyncio.to_thread(_prepare_rest if rest else _prepare_grpc, address)
    key = (asyncio.get_running_loop(), address, rest)
    if key not in _open:
        _open[key] = _Shared(make())
    shared = _open[key]
    shared.users += 1

    async def close() -> None:
        shared.users -= 1
        if not shared.users:
            _open.pop(key, None)
            await shared.poller.close()

    return shared.poller.job_status, close


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
            return imports.lost(job_id, error)
        return imports.of_grpc(job_id, answer)

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

    async def job_status(self, job_id: int, database: str) -> JobStatus:
        """Ask for one job."""
        import httpx

        doing, options = f"ask for import job {job_id}", request_options(self.address, database, ASK_SECONDS)
        while True:
            path = self.paths[0]
            try:
                response = await self.client.post(path_of(path), json={"jobId": str(job_id)}, **options)
                return imports.of_rest(job_id, data_of(response.status_code, response.content, doing, self.address))
            except httpx.HTTPError as error:
                raise explain_http_error(error, doing, self.address) from None
            except UnsupportedServer:
                if path == DESCRIBE[-1]:
                    raise
                self.paths = DESCRIBE[1:]
            except ServerError as error:
                return imports.lost(job_id, error)

    async def close(self) -> None:
        """Close all connections."""
        await self.client.aclose()
