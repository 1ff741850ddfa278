"""Copying many objects: server-side inside one endpoint, streamed through this process otherwise.

The number of copies in flight starts at the maximum, is halved when the store asks for fewer requests (503, 429) and grows by one
for every ``limit`` copies that succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from .errors import Cancelled, NotInStorage, SourceChanged, StorageDenied
from .patience import Patience
from .settings import DEFAULT_MULTIPART_THRESHOLD
from .storage_errors import storage_error, throttled, transient
from .store import ObjectStore
from .workers import run_workers

MIB = 1024**2
PART = 128 * MIB
LARGEST_COPY = 5 * 1024 * MIB
STREAM_PART = 8 * MIB
STREAMS = 16
#: Attempts at one object; with the pauses between them about a minute.
ATTEMPTS = 12


class Copy(NamedTuple):
    """One object to copy; ``etag`` is what the source had when it was listed."""

    source: str
    destination: str
    size: int
    etag: str = ""


@dataclass(slots=True)
class Progress:
    """What was copied so far; read from any thread."""

    total_objects: int
    total_bytes: int
    started: float = field(default_factory=time.monotonic)
    objects: int = 0
    bytes: int = 0
    #: Copies that were repeated because the store was busy or the connection broke.
    retries: int = 0
    #: How the bytes travelled: ``server-side`` or ``streamed``.
    mode: str = "server-side"

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


class Limit:
    """How many copies may be in flight: halved on throttling, at most once a second, and slowly raised on success."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.value = maximum
        self._successes = 0
        self._halved = -math.inf
        self.raised = asyncio.Event()

    def throttle(self) -> None:
        """Halve the limit."""
        now = time.monotonic()
        if now - self._halved >= 1:
            self._halved = now
            self.value = max(1, self.value // 2)

    def success(self) -> None:
        """Count a success; after ``value`` of them the limit grows by one."""
        if self.value == self.maximum:
            return
        self._successes += 1
        if self._successes >= self.value:
            self._successes = 0
            self.value += 1
            self.raised.set()


def copy_objects(
    source: ObjectStore,
    destination: ObjectStore,
    copies: Iterable[Copy],
    progress: Progress,
    *,
    concurrency: int = 256,
    streaming: bool = False,
    multipart_threshold: int = DEFAULT_MULTIPART_THRESHOLD,
    report: Callable[[Progress], None] | None = None,
    patience: Patience | None = None,
) -> None:
    """Copy every object; returns when all are there, raises at the first that cannot be copied.

    Inside one endpoint the store copies by itself, with the destination's credentials. Where those may not read the source,
    and between endpoints, the bytes are streamed through this process, with bounded memory.

    :param multipart_threshold: objects of more bytes are copied in parts of 128 MiB
    :param report: called about four times a second while copying
    :param patience: when it is over, no further copy is started and what ended it is raised
    :raises SourceChanged: a source object does not exist
    """
    patience = patience or Patience()
    run = _Run(source, destination, progress, concurrency, server_side=source.endpoint == destination.endpoint and not streaming)
    run.multipart_threshold = min(multipart_threshold, LARGEST_COPY)
    # A thread of its own: the caller may itself run inside an event loop.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="copy") as thread:
        try:
            copying = thread.submit(asyncio.run, run.all(iter(copies)))
            while not wait([copying], timeout=0.25).done:
                if report:
                    report(progress)
                run.stopped = patience.over()
            copying.result()
        except Cancelled:
            patience.check(f"copying: {progress.objects:,} of {progress.total_objects:,} objects are there, and a retry goes on from here")
            raise
        finally:
            # Also when a signal or a task timeout interrupts the wait: what is in flight ends, nothing new starts.
            run.stopped = True
    if report:
        report(progress)


def make_way(store: ObjectStore, keys: Iterable[str]) -> None:
    """Delete what the store may hold under keys that its listing leaves out, so that the next try's copies are listed.

    A SeaweedFS that was killed can be left with such objects: they can be read, writing over them succeeds and does not bring them
    into the listing, deleting and writing them does (measured). Where deleting is not allowed, they stay as they are.
    """
    with contextlib.suppress(StorageDenied):
        store.delete(keys)


class _Run:
    """One call of :func:`copy_objects`; everything but ``stopped`` belongs to its event loop."""

    def __init__(self, source: ObjectStore, destination: ObjectStore, progress: Progress, concurrency: int, *, server_side: bool) -> None:
        self.source, self.destination, self.progress = source, destination, progress
        self.concurrency = max(1, concurrency)
        self.server_side = server_side
        self.multipart_threshold = DEFAULT_MULTIPART_THRESHOLD
        self.stopped = False
        self.exhausted = False
        self.client = source.client
        if server_side:
            url = f"{destination.endpoint}/{destination.location.bucket}"
            # The destination's credentials write; they must read the source as well. Retries are ours, to see throttling.
            as_source = ObjectStore(replace(destination.location, bucket=source.location.bucket))
            self.client = as_source.open(url, {"max_retries": 0})
        self.threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="multipart-copy")
        self._boto3: Any = None

    async def all(self, copies: Iterator[Copy]) -> None:
        self.limit = Limit(self.concurrency)
        if self.server_side:
            copies = await self._probe(copies)
        if not self.server_side:
            self.limit = Limit(min(self.concurrency, STREAMS))
            self.progress.mode = "streamed"
        try:
            await run_workers((self._worker(rank, copies) for rank in range(self.limit.maximum)), self._check_stopped)
        finally:
            self.threads.shutdown(wait=False, cancel_futures=True)

    async def _probe(self, copies: Iterator[Copy]) -> Iterator[Copy]:
        """Copy the first object; when the destination's credentials may not read the source, stream from here on."""
        first = next(copies, None)
        if first is None:
            return copies
        try:
            await self._one(first)
        except StorageDenied:
            self.server_side = False
            self.client = self.source.client
            return _chain(first, copies)
        return copies

    async def _worker(self, rank: int, copies: Iterator[Copy]) -> None:
        while not self.exhausted:
            if rank >= self.limit.value:
                self.limit.raised.clear()
                await self.limit.raised.wait()
            elif (copy := next(copies, None)) is not None:
                await self._one(copy)
            else:
                self.exhausted = True
                self.limit.raised.set()

    async def _one(self, copy: Copy) -> None:
        way = self._server_side if self.server_side else self._stream
        for attempt in range(ATTEMPTS):
            self._check_stopped()
            try:
                await way(copy)
                break
            except Exception as error:  # noqa: BLE001 (obstore's errors have no root of their own below Exception)
                if throttled(error):
                    self.limit.throttle()
                elif not transient(error):
                    raise self._explained(error, copy) from None
                if attempt == ATTEMPTS - 1:
                    raise self._explained(error, copy) from None
                self.progress.retries += 1
                await asyncio.sleep(random.uniform(0.5, 1) * min(10, 0.2 * 2**attempt))  # noqa: S311 (jitter)
        self.limit.success()
        self.progress.objects += 1
        self.progress.bytes += copy.size

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Cancelled  # whoever set the flag knows why

    async def _server_side(self, copy: Copy) -> None:
        import obstore

        if copy.size > self.multipart_threshold:
            await asyncio.get_running_loop().run_in_executor(self.threads, self._multipart, copy)
        else:
            await obstore.copy_async(self.client, copy.source, copy.destination)

    def _multipart(self, copy: Copy) -> None:
        from boto3.s3.transfer import TransferConfig

        if self._boto3 is None:
            self._boto3 = self.destination.boto3_client(max_pool_connections=64, read_timeout=300)
        self._boto3.copy(
            {"Bucket": self.source.location.bucket, "Key": copy.source},
            self.destination.location.bucket,
            copy.destination,
            Config=TransferConfig(multipart_threshold=self.multipart_threshold, multipart_chunksize=PART, max_concurrency=8),
        )

    async def _stream(self, copy: Copy) -> None:
        import obstore

        got = await obstore.get_async(self.client, copy.source)
        if copy.size <= STREAM_PART:
            await obstore.put_async(self.destination.client, copy.destination, await got.bytes_async())
        else:
            chunks = got.stream(min_chunk_size=MIB)
            await obstore.put_async(self.destination.client, copy.destination, chunks, chunk_size=STREAM_PART, max_concurrency=2)

    def _explained(self, error: Exception, copy: Copy) -> Exception:
        explained = storage_error(error, f"cannot copy {copy.source!r} from {self.source.location} to {self.destination.location}")
        if isinstance(explained, NotInStorage) and "the bucket does not exist" not in str(explained):
            return SourceChanged(f"{copy.source!r} vanished from {self.source.location} before it was copied")
        return explained


def _chain(first: Copy, rest: Iterator[Copy]) -> Iterator[Copy]:
    yield first
    yield from rest
