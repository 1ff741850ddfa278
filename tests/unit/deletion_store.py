"""An S3 in a thread for tests of deleting: conditional writes, a clock, refusals for single keys, and a death after so many requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from xml.sax.saxutils import unescape

from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import DelimitingStore, stored
from benchmarks.collection import BACKUPS, BUCKET, location
from benchmarks.slow_s3 import HTTP_DATE, Answer, in_thread
from tests.unit.test_store_faults import ConditionalStore

DENIED = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
THEN = parsedate_to_datetime(HTTP_DATE)
_LISTED = re.compile(r"<Key>([^<]*)</Key><LastModified>[^<]*<")


class DeletionStore(ConditionalStore, DelimitingStore):
    """Everything by key below the bucket; what is written later is written now, the rest was written in 2026."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        DelimitingStore.__init__(self, stored(contents))
        #: Keys of every request to delete, in order.
        self.deletions: list[list[str]] = []
        #: What is answered for a key instead of deleting it, as ``code: message``.
        self.refused: dict[str, str] = {}
        #: Requests until nothing is answered any more but a refusal.
        self.life = 10**9
        self.when_deleted: Callable[[list[str]], None] = lambda _: None
        self._written: dict[str, datetime] = {}

    @property
    def keys(self) -> set[str]:
        return {name.removeprefix(f"{BUCKET}/") for name in self.objects}

    def put(self, key: str, content: bytes) -> None:
        """Write an object now, as another process would."""
        self._put(f"{BUCKET}/{key}", stored({key: content})[f"{BUCKET}/{key}"])
        self._written[f"{BUCKET}/{key}"] = datetime.now(timezone.utc)

    def answer(self, head: str, body: bytes) -> Answer:
        self.life -= 1
        if self.life < 0:
            return DENIED
        method, target, _ = head.split(" ", 2)
        if method == "POST" and target.partition("?")[2].startswith("delete"):
            return self._delete(head, body)
        answer = super().answer(head, body)
        name = target.partition("?")[0][1:]
        if method == "PUT" and answer.status == 200:
            self._written[name] = datetime.now(timezone.utc)
        if answer.body.startswith(b"<ListBucketResult>"):
            return answer._replace(body=_LISTED.sub(self._dated, answer.body.decode()).encode())
        written = format_datetime(self._written.get(name, THEN).replace(microsecond=0), usegmt=True)
        return answer._replace(headers=answer.headers.replace(HTTP_DATE, written))

    def _dated(self, listed: re.Match[str]) -> str:
        return f"<Key>{listed[1]}</Key><LastModified>{self.written(unescape(listed[1])):%Y-%m-%dT%H:%M:%S}.000Z<"

    def written(self, key: str) -> datetime:
        """Return when an object was written."""
        return self._written.get(f"{BUCKET}/{key}", THEN)

    def age(self, key: str, by: timedelta) -> None:
        """Let an object have been written so much earlier."""
        self._written[f"{BUCKET}/{key}"] = self.written(key) - by

    def _delete(self, head: str, body: bytes) -> Answer:
        assert re.search(r"\r\ncontent-md5: \S{24}\r\n", head, re.IGNORECASE), "older stores want this"
        named = re.findall(r"<Key>([^<]*)</Key>", body.decode())
        refused = {key: self.refused[key] for key in named if key in self.refused}
        gone = [key for key in named if key not in refused]
        self.deletions.append(gone)
        deleted = super().answer(head, "".join(f"<Key>{key}</Key>" for key in gone).encode()).body.decode()
        self.when_deleted(gone)
        errors = "".join(
            f"<Error><Key>{key}</Key><Code>{why.partition(': ')[0]}</Code><Message>{why.partition(': ')[2]}</Message></Error>"
            for key, why in refused.items()
        )
        return Answer(body=deleted.replace("</DeleteResult>", f"{errors}</DeleteResult>").encode(), seconds=0)


@contextmanager
def serving(*backups: Mapping[str, bytes], root: str = BACKUPS) -> Iterator[tuple[ObjectStore, DeletionStore]]:
    """Serve some backups; yields the provider's view of the store, and the store."""
    served = DeletionStore({key: content for one in backups for key, content in one.items()})
    with in_thread(served) as endpoint:
        yield ObjectStore(location(endpoint, ("key", "secret"), root)), served
