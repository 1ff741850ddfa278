"""A proxy in front of an S3 that loses, refuses, delays and cuts off what a schedule tells it to."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from demo.servers import LOOPBACK
from tests.breaking.faults import Fault, Schedule

REFUSALS = {Fault.ERROR: ("500 Internal Server Error", "InternalError"), Fault.THROTTLE: ("503 Slow Down", "SlowDown")}
# What asyncio reads ahead: as much as a part of an upload, so that large bodies need few turns of the loop.
READ_AHEAD = 1 << 24
BLOCKING_HOOKS = 32
# Closing a socket with this option resets the connection, as a server or a network does that dies.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Message(NamedTuple):
    """One HTTP request or answer as it was on the wire."""

    #: With the empty line that ends it.
    head: bytes
    #: With the frames of a chunked body.
    body: bytes = b""

    @property
    def start(self) -> list[str]:
        """The words of the first line."""
        return self.head.partition(b"\r\n")[0].decode("latin-1").split(" ")

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}

    @property
    def path(self) -> str:
        """A request's path, decoded and without its query."""
        return unquote(urlsplit(self.start[1]).path)

    @property
    def keeps_alive(self) -> bool:
        """Whether more may follow on the connection."""
        return self.headers.get("connection", "").lower() != "close" and "HTTP/1.0" not in self.start


def operation_of(request: Message) -> str:
    """Return list, get, head, put, put-if, copy, delete, multipart or other; every part of a multipart upload is multipart."""
    method, target = request.start[:2]
    headers, url = request.headers, urlsplit(target)
    asked = parse_qs(url.query, keep_blank_values=True)
    key = url.path.strip("/").partition("/")[2]
    if asked.keys() & {"uploads", "uploadId", "partNumber"}:
        return "multipart"
    if method == "DELETE" or (method == "POST" and "delete" in asked):
        return "delete"
    if method == "HEAD":
        return "head"
    if method == "GET":
        lists = "list-type" in asked or "prefix" in asked or (url.path != "/" and not key and not url.query)
        return "get" if key else "list" if lists else "other"
    if method == "PUT" and key:
        if "x-amz-copy-source" in headers:
            return "copy"
        return "put-if" if headers.keys() & {"if-none-match", "if-match"} else "put"
    return "other"


class FaultyS3:
    """The running proxy; :func:`faulty_s3` makes it."""

    def __init__(self, endpoint_url: str, schedule: Schedule) -> None:
        url = urlsplit(endpoint_url)
        self._upstream = (url.hostname or LOOPBACK, url.port or 80)
        self._schedule = schedule
        #: Where clients find it.
        self.endpoint_url = ""
        #: How long SLOW delays an answer.
        self.slow_seconds = 0.3
        #: How long HANG keeps a connection open.
        self.hang_seconds = 20.0
        #: Called with the operation and the path before a request is forwarded; it may block, and what it raises fails the test.
        self.before: Callable[[str, str], None] | None = None
        #: Called with the operation and the path of a request for which the schedule has no fault.
        self.by_path: Callable[[str, str], Fault | None] | None = None
        #: How many requests of each operation came, whatever became of them.
        self.requests: Counter[str] = Counter()
        #: What went wrong in the schedule, the hook or the proxy itself; the first is raised when the proxy ends.
        self.errors: list[Exception] = []
        self._down = False
        self._clients: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._hooks = ThreadPoolExecutor(BLOCKING_HOOKS, thread_name_prefix="faulty-s3-hook")
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="faulty-s3", daemon=True)

    @property
    def down(self) -> bool:
        """Whether an outage is played: all connections are closed at once, and nothing more is forwarded."""
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        self._down = value
        if not value:
            return
        if threading.current_thread() is self._thread:  # a schedule that starts the outage
            self._abort_clients()
        else:
            asyncio.run_coroutine_threadsafe(self._abort_all(), self._loop).result()

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Close everything and return when the thread has ended."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._hooks.shutdown(cancel_futures=True)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, LOOPBACK, 0, limit=READ_AHEAD, backlog=1024)
        self.endpoint_url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stopping.wait()
        server.close()
        running = [*self._running]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._abort_clients()
        await asyncio.sleep(0.01)  # transports close in the loop's next turns

    def _abort_clients(self) -> None:
        while self._clients:
            self._clients.pop().transport.abort()

    async def _abort_all(self) -> None:
        self._abort_clients()

    def _connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._down:
            client.transport.abort()
            return
        self._clients.add(client)
        # A task of our own: asyncio's would log it as an error that it was cancelled.
        task = asyncio.get_running_loop().create_task(self._converse(reader, client))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _converse(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            with suppress(OSError, EOFError):  # one of the sides went away
                while client in self._clients and await self._exchange(reader, client):
                    await client.drain()
        except Exception as error:  # noqa: BLE001 (raised again in the test's thread)
            self.errors.append(error)
        finally:
            self._clients.discard(client)
            client.close()

    async def _exchange(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> bool:
        """Answer one request and return whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        request = Message(head)
        if request.headers.get("expect", "").lower() == "100-continue":
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Message(head, await _body(reader, request.headers, unframed=False))
        operation = operation_of(request)
        self.requests[operation] += 1
        fault = self._schedule(operation, self.requests[operation])
        if fault is None and self.by_path:
            fault = self.by_path(operation, request.path)

        if fault is Fault.RESET:
            return _reset(client)
        if fault is Fault.HANG:
            await asyncio.sleep(self.hang_seconds)
            return False
        if fault in REFUSALS:
            client.write(_refusal(fault, request))
            return request.keeps_alive
        if fault not in (None, Fault.LOST, Fault.TRUNCATED, Fault.SLOW):
            raise ValueError(f"{fault} is no fault of S3")

        if self.before:
            await self._loop.run_in_executor(self._hooks, self.before, operation, request.path)
        if client not in self._clients:  # an outage began meanwhile, and may already be over
            return False
        answer = await self._forward(request)
        if fault is Fault.LOST or (fault is Fault.TRUNCATED and not answer.body):
            return False
        if fault is Fault.TRUNCATED:
            client.write(answer.head + answer.body[: len(answer.body) // 2])
            return False
        if fault is Fault.SLOW:
            await asyncio.sleep(self.slow_seconds)
        client.write(answer.head + answer.body)
        return request.keeps_alive and answer.keeps_alive and _framed(answer, request)

    async def _forward(self, request: Message) -> Message:
        """Return the real server's answer; a connection for each request, as one that is kept may have ended meanwhile."""
        reader, upstream = await asyncio.open_connection(*self._upstream, limit=READ_AHEAD)
        try:
            upstream.write(request.head + request.body)
            while True:
                answer = Message(await reader.readuntil(b"\r\n\r\n"))
                status = int(answer.start[1])
                if status >= 200:  # before that there may be a 100 Continue, which the proxy has sent itself
                    break
            if request.start[0] == "HEAD" or status in (204, 304):
                return answer
            return Message(answer.head, await _body(reader, answer.headers, unframed=True))
        finally:
            upstream.close()


@contextmanager
def faulty_s3(endpoint_url: str, schedule: Schedule) -> Iterator[FaultyS3]:
    """Run a proxy in front of an S3 endpoint; requests arrive there with the Host that the client signed."""
    proxy = FaultyS3(endpoint_url, schedule)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
    if proxy.errors:
        raise proxy.errors[0]


def _reset(client: asyncio.StreamWriter) -> bool:
    client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.transport.abort()
    return False


def _refusal(fault: Fault, request: Message) -> bytes:
    status, code = REFUSALS[fault]
    body = f"<Error><Code>{code}</Code><Message>injected {fault.value}</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if request.start[0] == "HEAD" else body)


def _framed(answer: Message, request: Message) -> bool:
    """Return whether an answer says where it ends; otherwise the end of the connection does."""
    bare = request.start[0] == "HEAD" or answer.start[1] in ("204", "304")
    return bare or "content-length" in answer.headers or "transfer-encoding" in answer.headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], *, unframed: bool) -> bytes:
    """Read a body with its frames; ``unframed`` says that one without a length ends with the connection."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read() if unframed else b""


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        parts += [line, await reader.readexactly(size + 2)] if size else [line]
        if size == 0:
            break
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":  # trailers
        parts.append(line)
    return b"".join([*parts, b"\r\n"])
