"""An S3 on loopback that takes its time: enough of the protocol for a backup, as cheap as Python allows.

One event loop holds everything, so a listing shows what was really copied. It checks no signatures. A copy costs it about 0.1 ms of CPU,
so that the client under test has the other core for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import re
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote
from urllib.request import urlopen
from xml.sax.saxutils import escape, unescape

COPY_SECONDS = 0.04
OTHER_SECONDS = 0.005
PAGE = 1000
DATE = "2026-01-01T00:00:00.000Z"
HTTP_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_COPY_SOURCE = re.compile(r"\r\nx-amz-copy-source: */?([^\r]+)", re.IGNORECASE)


class Stored(NamedTuple):
    """One object; those that the store was started with have a size and no content."""

    size: int
    etag: str
    content: bytes = b""


class Answer(NamedTuple):
    """One answer, and how long it takes."""

    status: int = 200
    body: bytes = b""
    headers: str = ""
    seconds: float = OTHER_SECONDS


def seeded(sizes: Mapping[str, int]) -> dict[str, Stored]:
    """Return objects for ``{bucket/key: size}``."""
    return {key: Stored(size, hashlib.md5(key.encode()).hexdigest()) for key, size in sizes.items()}


class Store:
    """All objects by ``bucket/key``, and a count of the requests of each kind."""

    def __init__(self, objects: Mapping[str, Stored], copy_seconds: float = COPY_SECONDS) -> None:
        self.objects = dict(objects)
        self.copy_seconds = copy_seconds
        self.requests: Counter[str] = Counter()
        self.connections: set[asyncio.Transport] = set()
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._sorted: list[str] | None = None

    def answer(self, head: str, body: bytes) -> Answer:
        """Answer one request."""
        method, target, _ = head.split(" ", 2)
        path, _, query = target.partition("?")
        name = unquote(path[1:])
        if method == "PUT" and (source := _COPY_SOURCE.search(head)):
            self.requests["copy"] += 1
            return self.copy(unquote(source[1]), name)
        asked = {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()}
        if "list-type" in asked:
            self.requests["list"] += 1
            return self._list(name.strip("/"), asked)
        if name == "-/requests":
            return Answer(body=" ".join(f"{kind}={count}" for kind, count in self.requests.items()).encode())
        self.requests[method.lower()] += 1
        if method in ("GET", "HEAD"):
            return self._read(name)
        if method == "DELETE":
            self.objects.pop(name, None)
            self._sorted = None
            return Answer(204)
        return self._write(name, asked, body)

    def copy(self, source: str, destination: str) -> Answer:
        """Copy one object."""
        found = self.objects.get(source)
        if found is None:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        self._put(destination, found)
        xml = f'<CopyObjectResult><ETag>"{found.etag}"</ETag><LastModified>{DATE}</LastModified></CopyObjectResult>'
        return Answer(body=xml.encode(), seconds=self.copy_seconds)

    def _put(self, name: str, stored: Stored) -> None:
        self.objects[name] = stored
        self._sorted = None

    def _read(self, name: str) -> Answer:
        found = self.objects.get(name)
        if found is None:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        return Answer(body=found.content, headers=f'ETag: "{found.etag}"\r\nLast-Modified: {HTTP_DATE}\r\n')

    def _write(self, name: str, asked: dict[str, str], body: bytes) -> Answer:
        if "uploads" in asked:
            self._uploads[name] = {}
            return Answer(body=b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>")
        if "partNumber" in asked:
            self._uploads[name][int(asked["partNumber"])] = body
            return Answer(headers='ETag: "part"\r\n')
        if "delete" in asked:
            gone = re.findall(rb"<Key>([^<]*)</Key>", body)
            for key in gone:
                self.objects.pop(f"{name.strip('/')}/{unescape(key.decode())}", None)
            self._sorted = None
            deleted = b"".join(b"<Deleted><Key>" + key + b"</Key></Deleted>" for key in gone)
            return Answer(body=b"<DeleteResult>" + deleted + b"</DeleteResult>")
        xml = b""
        if "uploadId" in asked:
            parts = self._uploads.pop(name)
            body = b"".join(parts[number] for number in sorted(parts))
            xml = b'<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>'
        etag = hashlib.md5(body).hexdigest()
        self._put(name, Stored(len(body), etag, body))
        return Answer(body=xml, headers=f'ETag: "{etag}"\r\n')

    def _list(self, bucket: str, asked: dict[str, str]) -> Answer:
        if self._sorted is None:
            self._sorted = sorted(self.objects)
        prefix = f"{bucket}/{asked.get('prefix', '')}"
        after = f"{bucket}/{asked['start-after']}" if "start-after" in asked else ""
        begin = bisect_right(self._sorted, asked.get("continuation-token") or max(prefix, after))
        page = []
        for name in islice(self._sorted, begin, begin + PAGE + 1):
            if not name.startswith(prefix):
                break
            page.append(name)
        more = f"<NextContinuationToken>{escape(page[PAGE - 1])}</NextContinuationToken>" if len(page) > PAGE else ""
        contents = [
            f"<Contents><Key>{escape(name[len(bucket) + 1 :])}</Key><LastModified>{DATE}</LastModified>"
            f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{stored.size}</Size></Contents>"
            for name, stored in ((name, self.objects[name]) for name in page[:PAGE])
        ]
        truncated = "true" if more else "false"
        return Answer(body=f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{''.join(contents)}</ListBucketResult>".encode())


class _Connection(asyncio.Protocol):
    """One keep-alive connection; clients of S3 wait for an answer before they send the next request."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.received = b""
        self.wanted = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.store.connections.add(transport)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        self.store.connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        if len(self.received) < self.wanted or (end := self.received.find(b"\r\n\r\n")) < 0:
            return
        head = self.received[:end]
        length = _LENGTH.search(head)
        self.wanted = end + 4 + (int(length[1]) if length else 0)
        if len(self.received) < self.wanted:
            return
        answer = self.store.answer(head.decode("latin-1"), self.received[end + 4 :])
        self.received, self.wanted = b"", 0
        status = f"HTTP/1.1 {answer.status} -\r\n{answer.headers}Content-Length: {len(answer.body)}\r\n\r\n"
        body = b"" if head.startswith(b"HEAD") else answer.body
        self.loop.call_later(answer.seconds, self.transport.write, status.encode() + body)


@contextlib.contextmanager
def in_thread(store: Store) -> Iterator[str]:
    """Serve a store from a thread of this process; yields the endpoint."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(_listen(store), loop).result()

    async def end() -> None:
        server.close()
        for connection in [*store.connections]:
            connection.abort()
        await asyncio.sleep(0)  # for what these have put off

    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def in_process(sizes: Mapping[str, int], copy_seconds: float = COPY_SECONDS) -> Iterator[str]:
    """Serve a store of ``{bucket/key: size}`` from a process of its own; yields the endpoint."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(sizes, copy_seconds, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def requests(endpoint: str) -> Counter[str]:
    """Return how many requests of each kind a store in another process has answered."""
    with urlopen(f"{endpoint}/-/requests") as answer:
        return Counter({kind: int(count) for kind, _, count in (word.partition("=") for word in answer.read().decode().split())})


def _serve(sizes: Mapping[str, int], copy_seconds: float, port: Any) -> None:
    async def forever() -> None:
        server = await _listen(Store(seeded(sizes), copy_seconds))
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


async def _listen(store: Store) -> asyncio.Server:
    return await asyncio.get_running_loop().create_server(lambda: _Connection(store), "127.0.0.1", 0, backlog=1024)
