"""Reading many objects of a backup: at a pace, in bounded memory, and each compared with what is known of its content.

An object that cannot be read although the store answers is damage; when the store does not answer either, nothing was found out. A store
that is busy refuses some of many requests for a while, so objects are taken for unreadable only after they were tried again at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from . import digests, layout
from .copier import ATTEMPTS, MIB
from .errors import Cancelled, NotInStorage, StorageDenied, StorageError
from .pacing import Pace
from .report import Reporter, sizes
from .storage_errors import storage_error, throttled, transient
from .store import ObjectStore
from .verification import CONTENT, MISSING, UNREADABLE
from .workers import run_workers

#: Objects that are read at once, bytes of one request, and bytes of the objects that are held as a whole.
STREAMS, RANGE, HELD = 64, 4 * MIB, 256 * MIB
#: Objects that cannot be read until it is said that the store cannot, and how many of them are tried again at once.
MAX_UNREADABLE, AGAIN = 32, 4


T = TypeVar("T")


class Target(NamedTuple):
    """One object to read: its key below the backup's directory, its size, and what is known of its content."""

    key: str
    size: int
    etag: str = ""
    checksum: str = ""


@dataclass(slots=True)
class Outcome:
    """What reading one object showed: the ``kind`` of a finding and its ``detail``, or nothing wrong.

    ``proven`` is whether the content is known to be right. ``content`` is there where it was asked for.
    """

    target: Target
    kind: str = ""
    detail: str = ""
    proven: bool = False
    content: bytes | None = None
    #: Of an object that was written in parts, their size; whether its ETag means anything then, only the others can tell.
    part: int = 0
    #: Whether what kept it from being read may be the load: it is tried again when all others have been read.
    passing: bool = False


class _Unusable(Exception):
    """An object cannot be read; what that means is its outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


@dataclass(slots=True)
class Reading:
    """How to read, and what was read so far.

    :param whole: whether :attr:`Outcome.content` is wanted
    :param md5: whether ETags without a dash are MD5s
    """

    store: ObjectStore
    name: str
    pace: Pace
    reporter: Reporter
    whole: bool = False
    md5: bool = False
    read_objects: int = 0
    read_bytes: int = 0
    stopped: bool = False
    _unreadable: int = field(default=0, init=False)
    #: What is tried again at the end; None when this is the end.
    _again: list[Target] | None = field(default_factory=list, init=False)
    _held: int = field(default=0, init=False)
    _client: Any = field(default=None, init=False)
    _freed: Any = field(default=None, init=False)
    _threads: Any = field(default=None, init=False)

    def run(self, targets: Iterable[Target], seen: Callable[[Outcome], None], total: tuple[int, int]) -> None:
        """Read every target and hand over what that showed, in a thread of its own and in any order.

        :param total: how many objects and bytes there are to read
        :raises StorageError: the store is away, or lets too many objects not be read
        """
        patience, doing = self.store.patience, "a backup was verified; nothing of the result is kept, verify again"
        with ThreadPoolExecutor(1, "verify") as thread:
            try:
                running = thread.submit(asyncio.run, self._all(iter(targets), seen))
                while not wait([running], timeout=0.25).done:
                    self.reporter.progress(f"read {self.read_objects:,} / {total[0]:,} objects, {sizes(self.read_bytes, total[1])}")
                    self.stopped = patience.over()
                running.result()
            except Cancelled:
                patience.check(doing)
                raise
            finally:
                # Also when a signal or a task timeout interrupts the wait.
                self.stopped = True

    async def _all(self, targets: Iterator[Target], seen: Callable[[Outcome], None]) -> None:
        # Repeated here, so that a kill does not have to wait for it.
        self._client = self.store.open(f"{self.store.endpoint}/{self.store.location.bucket}", {"max_retries": 0})
        self._freed = asyncio.Condition()
        with ThreadPoolExecutor(4, "digest") as self._threads:
            await run_workers((self._worker(targets, seen) for _ in range(STREAMS)), self._check_stopped)
            targets, self._again, self._unreadable = iter(self._again or ()), None, 0
            await run_workers((self._worker(targets, seen) for _ in range(AGAIN)), self._check_stopped)

    async def _worker(self, targets: Iterator[Target], seen: Callable[[Outcome], None]) -> None:
        for target in targets:
            async with self._room(target.size if self.whole else 0):
                outcome = await self._one(target)
                if outcome.passing and self._again is not None:
                    self._again.append(target)
                    continue
                self.read_objects += 1
                seen(outcome)
                outcome.content = None

    @contextlib.asynccontextmanager
    async def _room(self, wanted: int) -> Any:
        """Wait until so many bytes can be held; an object larger than what is allowed is held alone."""
        async with self._freed:
            await self._freed.wait_for(lambda: not self._held or self._held + wanted <= HELD)
            self._held += wanted
        try:
            yield
        finally:
            async with self._freed:
                self._held -= wanted
                self._freed.notify_all()

    async def _one(self, target: Target) -> Outcome:
        try:
            return await self._read(target)
        except _Unusable as found:
            return found.outcome

    async def _attempted(self, target: Target, action: Callable[[], Awaitable[T]]) -> T:
        """Return what ``action`` returns; repeat it while that may help.

        :raises _Unusable: it cannot be, and the store answers otherwise
        """
        for attempt in range(ATTEMPTS):
            self._check_stopped()
            try:
                return await action()
            except (Cancelled, MemoryError):
                raise
            except Exception as error:
                explained = self._explained(error, target)
                if explained is None:
                    raise
                if isinstance(explained, NotInStorage) and "bucket" not in str(explained).rpartition(": ")[2]:
                    raise _Unusable(Outcome(target, MISSING, "is missing: it vanished while the backup was verified")) from None
                passing = throttled(error) or transient(error)
                if not passing or attempt == ATTEMPTS - 1:
                    raise _Unusable(await self._unread(target, explained, passing=passing)) from None
            await asyncio.sleep(random.uniform(0.5, 1) * min(10, 0.2 * 2**attempt))  # noqa: S311 (jitter)
        raise AssertionError("the last attempt returns or raises")

    async def _unread(self, target: Target, error: StorageError, *, passing: bool) -> Outcome:
        """Return the finding that an object cannot be read; raises its error when nothing else can be read either."""
        mark = layout.meta_key(self.store.location.root_path, self.name, layout.COMMIT_MARK)
        self._unreadable += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self.store.head, mark)
        except StorageError:
            raise error from None
        if self._unreadable > MAX_UNREADABLE:
            kind = StorageDenied if isinstance(error, StorageDenied) else StorageError
            raise kind(f"more than {MAX_UNREADABLE} objects of backup {self.name!r} cannot be read, so it cannot be verified: {error}")
        return Outcome(target, UNREADABLE, f"cannot be read: {error}", passing=passing)

    def _explained(self, error: Exception, target: Target) -> StorageError | None:
        from obstore.exceptions import BaseError

        if isinstance(error, (BaseError, StorageError, OSError)):
            return storage_error(error, f"cannot read {target.key!r} of backup {self.name!r} from {self.store.location}")
        return None

    def _check_stopped(self) -> None:
        if self.stopped:
            raise Cancelled  # whoever set the flag knows why

    # ---- one object --------------------------------------------------------------------------------------------------------

    async def _read(self, target: Target) -> Outcome:
        key = f"{layout.backup_dir(self.store.location.root_path, self.name)}{target.key}"
        expected, digest, part = await self._known(target, key)
        held = io.BytesIO()  # gives its content away without a copy: a large object must not be there twice
        # In ranges, each with a time limit of its own: a large object that is read slowly on purpose is not one that hangs.
        for start in range(0, max(1, target.size), RANGE):
            end = min(start + RANGE, target.size)
            await self._paced(end - start)
            content, whole = await self._attempted(target, partial(self._get, key, start, end, target.size))
            if whole != target.size or len(content) != end - start:
                return Outcome(target, CONTENT, f"has {whole if whole != target.size else len(content):,} bytes instead of {target.size:,}")
            self.read_bytes += len(content)
            if self.whole:
                held.write(content)
            if digest:
                await self._digested(digest, content)
        outcome = Outcome(target, content=held.getvalue() if self.whole else None, part=part)
        outcome.proven = digest is not None and digest.value() == expected
        if digest and not outcome.proven:
            outcome.kind, outcome.detail = CONTENT, f"its content is not what was backed up: {digest.value()} instead of {expected}"
        return outcome

    async def _get(self, key: str, start: int, end: int, of: int) -> tuple[bytes, int]:
        """Return a range of an object, and the size that the object has."""
        import obstore

        options: Any = {} if (start, end) == (0, of) else {"range": (start, end)}
        got = await obstore.get_async(self._client, key, options=options)
        return bytes(await got.bytes_async()), got.meta["size"]

    async def _known(self, target: Target, key: str) -> tuple[str, digests.Digest | None, int]:
        """Return what the content must amount to, what computes that, and the size of the parts if there are any."""
        if target.checksum and (found := digests.digest(target.checksum)):
            return target.checksum, found, 0
        if self.md5 and digests.is_plain(target.etag):
            return target.etag.lower(), digests.Md5(), 0
        parts = digests.parts_of(target.etag)
        if self.md5 and parts:
            loop = asyncio.get_running_loop()
            head = partial(loop.run_in_executor, self._threads, self.store.head_with_checksum, key, 1)
            part = int((await self._attempted(target, head)).get("ContentLength", 0))
            if part and -(-target.size // part) == parts:
                return target.etag.lower(), digests.PartsMd5(part), part
        return "", None, 0

    async def _digested(self, digest: digests.Digest, content: bytes) -> None:
        if len(content) < MIB // 4:
            digest.update(content)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, digest.update, content)

    async def _paced(self, count: int) -> None:
        pause = self.pace.take(count, time.monotonic())
        while pause > 0:
            await asyncio.sleep(min(pause, 0.5))
            self._check_stopped()
            pause -= 0.5
