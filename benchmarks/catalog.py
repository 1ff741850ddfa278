"""catalog_requests, catalog_seconds: the list of 1,000 backups from a store that answers after 20 ms.

Half of them are ours, a tenth verified; of those of the official tool only the commit mark can be read cheaply.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.store import ObjectStore

from . import Result, load, remark, slow_s3
from .collection import BACKUPS, BUCKET, location
from .slow_s3 import Answer, Store, Stored

COUNT, SECONDS = 1000, 0.02
#: Objects of data in each; the real ones have thousands, and a listing that touched them would show.
DATA = 200


class DelimitingStore(Store):
    """Lists with a delimiter, too, and takes the same time for everything."""

    def __init__(self, objects: Mapping[str, Stored], seconds: float = 0.0) -> None:
        super().__init__(objects)
        self.seconds = seconds

    def answer(self, head: str, body: bytes) -> Answer:
        return super().answer(head, body)._replace(seconds=self.seconds)

    def _list(self, bucket: str, asked: dict[str, str]) -> Answer:
        if "delimiter" not in asked:
            return super()._list(bucket, asked)
        names, below = sorted(self.objects), f"{bucket}/{asked.get('prefix', '')}"
        # "0" follows "/", so all of a directory lies before its name with a 0.
        at, found = bisect_left(names, asked.get("continuation-token", below)), []
        while at < len(names) and names[at].startswith(below) and len(found) < slow_s3.PAGE:
            directory, slash, _ = names[at][len(below) :].partition("/")
            found.extend([directory] if slash else [])
            at = bisect_right(names, f"{below}{directory}0") if slash else at + 1
        more = at < len(names) and names[at].startswith(below)
        token = f"<NextContinuationToken>{names[at]}</NextContinuationToken>" if more else ""
        prefixes = "".join(f"<CommonPrefixes><Prefix>{below[len(bucket) + 1 :]}{name}/</Prefix></CommonPrefixes>" for name in found)
        return Answer(body=f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{prefixes}</ListBucketResult>".encode())


def backup(name: str, *, ours: bool = True, verified: bool = False, data: int = 0) -> dict[str, bytes]:
    """Return the files of a backup by key below the bucket; those that no list reads are empty but for a byte."""
    mark = {"id": f"id-of-{name}", "state_code": 0, "name": name, "size": 10 * data, "milvus_version": "2.5.20"}
    files: dict[str, Any] = {f"binlogs/insert_log/1/2/3/3/{field}/4": b"x" for field in range(data)}
    files |= dict.fromkeys((f"meta/{level}_meta.json" for level in ("collection", "partition", "segment", "full")), b"x")
    files["meta/backup_meta.json"] = mark
    if ours:
        facts = {"version": 1, "backup_id": mark["id"], "created": "2025-12-31T23:00:00+00:00", "collections": ["default.docs"]}
        files |= dict.fromkeys((f"provider/{file}.json" for file in ("attempt", "plan", "schemas", "summary")), b"x")
        files["provider/catalog.json"] = {**facts, "strategy": "flush", "rows": 5, "objects": data}
    if verified:
        found = {"version": 1, "backup_id": mark["id"], "level": "objects", "time": "2026-01-02T00:00:00+00:00", "ok": True}
        files["provider/verified.json"] = found
    return {f"{BACKUPS}/{name}/{key}": value if isinstance(value, bytes) else json.dumps(value).encode() for key, value in files.items()}


def stored(files: Mapping[str, bytes]) -> dict[str, Stored]:
    """Return objects of the bucket for their contents."""
    return {f"{BUCKET}/{key}": Stored(len(content), "etag", content) for key, content in files.items()}


def run() -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        endpoint = f"http://127.0.0.1:{ours.recv()}"
        store, started = ObjectStore(location(endpoint, ("key", "secret"), BACKUPS)), time.monotonic()
        found, seconds = read_catalog(store).entries, time.monotonic() - started
        requests = slow_s3.requests(endpoint)
    finally:
        process.kill()
        process.join()
    assert [entry.state for entry in found] == ["complete"] * COUNT
    remark(f"{COUNT:,} backups with {DATA} objects of data each: {dict(requests)}, {load()}")
    expected = 1 + COUNT * (1 + 1) + COUNT // 2 + COUNT // 10
    yield Result("catalog_requests", sum(requests.values()), "requests", f"<= {expected}")
    yield Result("catalog_seconds", round(seconds, 2), "s", None)


def _serve(port: Any) -> None:
    files: dict[str, bytes] = {}
    for number in range(COUNT):
        files |= backup(f"nightly_{number}", ours=number % 2 == 0, verified=number % 10 == 0, data=DATA)

    async def forever() -> None:
        server = await slow_s3._listen(DelimitingStore(stored(files), SECONDS))
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())
