"""delete_requests, delete_seconds: a backup of 100,000 objects goes from a store that answers a deletion of 1,000 keys after 200 ms.

That store takes 20 ms for everything else. What is left beside the backup is counted as well: nothing else may go.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

from airflow_provider_milvus_backup.core.deleting import delete
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.store import ObjectStore

from . import Result, load, remark, slow_s3
from .catalog import DelimitingStore, backup, stored
from .collection import BACKUPS, Quiet, location
from .slow_s3 import Answer

OBJECTS, SECONDS, DELETION_SECONDS = 100_000, 0.02, 0.2


class DeletingStore(DelimitingStore):
    """Takes its time to delete."""

    def answer(self, head: str, body: bytes) -> Answer:
        answer = super().answer(head, body)
        return answer._replace(seconds=DELETION_SECONDS) if head.startswith("POST ") and "delete" in head.split(" ")[1] else answer


def run() -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        endpoint = f"http://127.0.0.1:{ours.recv()}"
        store, started = ObjectStore(location(endpoint, ("key", "secret"), BACKUPS)), time.monotonic()
        deleted, seconds = delete(store, "gone", Owner(), Quiet()), time.monotonic() - started
        requests = slow_s3.requests(endpoint)
        left = [item.key for item in store.objects(BACKUPS)]
    finally:
        process.kill()
        process.join()
    assert deleted.objects == len(backup("gone")) + OBJECTS
    assert sorted(left) == sorted(backup("stays", data=5))
    remark(f"{deleted.objects:,} objects: {dict(requests)}, {load()}")
    # A listing and a deletion of each thousand, and what it takes to be sure that nobody else works on it.
    yield Result("delete_requests", sum(requests.values()), "requests", f"<= {2 * (OBJECTS // slow_s3.PAGE + 1) + 60}")
    yield Result("delete_seconds", round(seconds, 2), "s", None)


def _serve(port: Any) -> None:
    files = {**backup("gone", data=OBJECTS), **backup("stays", data=5)}

    async def forever() -> None:
        server = await slow_s3._listen(DeletingStore(stored(files), SECONDS))
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())

