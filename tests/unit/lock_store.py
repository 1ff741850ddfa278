"""An S3 in a thread that has Object Lock, as far as backups ask for it: what the bucket says of itself, and retentions of objects.

As on S3, a deletion of a locked object succeeds and only hides it, a retention is never made shorter, and HEAD shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone

from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.collection import BACKUPS, BUCKET, location
from benchmarks.slow_s3 import Answer, in_thread
from tests.unit.deletion_store import DENIED, DeletionStore

NONE = Answer(404, b"<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>")
UNKNOWN = Answer(501, b"<Error><Code>NotImplemented</Code></Error>")
ENABLED = Answer(body=b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>")
VERSIONED = Answer(body=b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
UNVERSIONED = Answer(body=b"<VersioningConfiguration/>")
NO_RULES = Answer(404, b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>")
EXPIRING = Answer(
    body=b"<LifecycleConfiguration><Rule><Status>Enabled</Status><NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays>"
    b"</NoncurrentVersionExpiration></Rule></LifecycleConfiguration>"
)


def default(days: int, mode: str = "GOVERNANCE") -> Answer:
    """Return what a bucket says that locks every object for so many days."""
    return Answer(
        body=f"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>{mode}</Mode>"
        f"<Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>".encode()
    )


class LockStore(DeletionStore):
    """Locks by key below the bucket."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        super().__init__(contents)
        #: What the bucket answers to ``?object-lock``, ``?versioning`` and ``?lifecycle``.
        self.says: dict[str, Answer] = {"object-lock": ENABLED, "versioning": VERSIONED, "lifecycle": NO_RULES}
        #: (mode, until) by key.
        self.locks: dict[str, tuple[str, datetime]] = {}
        self.legal_holds: set[str] = set()
        #: Keys in the order in which they were locked.
        self.locked: list[str] = []
        #: What was asked of the bucket, and HEADs.
        self.asked: list[str] = []
        self.when_locking: Callable[[str], Answer | None] = lambda _: None

    def answer(self, head: str, body: bytes) -> Answer:
        """Answer one request."""
        method, target, _ = head.split(" ", 2)
        path, _, query = target.partition("?")
        key = path[1:].removeprefix(f"{BUCKET}/").removeprefix(BUCKET)
        what = query.split("&")[0].rstrip("=")
        if method == "GET" and not key and what in self.says:
            self.asked.append(what)
            return self.says[what]
        if method == "PUT" and what == "retention":
            return self._lock(key, body)
        answer = super().answer(head, body)
        if method == "HEAD" and answer.status == 200:
            self.asked.append(f"HEAD {key}")
            mode, until = self.locks.get(key, ("", None))
            end = f"x-amz-object-lock-retain-until-date: {until:%Y-%m-%dT%H:%M:%SZ}\r\n" if until else ""
            found = f"x-amz-object-lock-mode: {mode}\r\n{end}" if until else ""
            held = "x-amz-object-lock-legal-hold: ON\r\n" if key in self.legal_holds else ""
            return answer._replace(headers=answer.headers + found + held)
        return answer

    def _lock(self, key: str, body: bytes) -> Answer:
        if (instead := self.when_locking(key)) is not None:
            return instead
        mode = re.search(rb"<Mode>(\w+)</Mode>", body)
        until = re.search(rb"<RetainUntilDate>([^<]+)</RetainUntilDate>", body)
        assert mode
        assert until
        wanted = mode[1].decode(), datetime.fromisoformat(until[1].decode().replace("Z", "+00:00"))
        assert wanted[1] > datetime.now(timezone.utc), "S3 refuses an end that is over"
        there = self.locks.get(key)
        if there and (there[1] > wanted[1] or (there[0] != wanted[0])):
            return DENIED
        if f"{BUCKET}/{key}" not in self.objects:
            return Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        self.locks[key] = wanted
        self.locked.append(key)
        return Answer()


@contextmanager
def locking(*backups: Mapping[str, bytes], root: str = BACKUPS) -> Iterator[tuple[ObjectStore, LockStore]]:
    """Serve some backups; yields the provider's view of the store, and the store."""
    served = LockStore({key: content for one in backups for key, content in one.items()})
    with in_thread(served) as endpoint:
        yield ObjectStore(location(endpoint, ("key", "secret"), root)), served
