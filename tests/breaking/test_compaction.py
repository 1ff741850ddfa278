"""Milvus compacts segments and removes the old ones' files while a backup is under way: the backup notices, and is whole in the end.

Milvus 2.3.5 keeps the files of compacted segments for hours, so these tests remove them as its garbage collector would.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import layout, store
from airflow_provider_milvus_backup.core.backup import REPLANS, BackupRun
from airflow_provider_milvus_backup.core.errors import BackupNotFound, SourceChanged
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.settings import Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo.servers import LOOPBACK
from tests.breaking.faults import Script
from tests.breaking.faulty_grpc import faulty_grpc
from tests.breaking.faulty_s3 import faulty_s3
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, Lines, admin, listing, location, moved

#: Milvus merges three small ones by itself, and two when it is told to.
SEGMENTS = 2
#: Seconds after which Milvus is told again: it may have looked before the last segment's index was built.
ASK_AGAIN = 12.0
#: The first in order; nothing happens to it, for without an index Milvus compacts nothing.
STEADY = replace(data.docs("compact_a_steady"), index=None)
DURING, BEFORE = (data.docs(f"compact_{name}") for name in ("during", "before"))


@dataclass
class Bench:
    """A cluster, and backups of it through a proxy that calls back before each request."""

    cluster: Cluster
    log: Lines = field(default_factory=Lines)

    def make(self, *shapes: data.Collection) -> None:
        """Create collections of several segments."""
        for shape in shapes:
            self.cluster.create(shape)
        for number in range(SEGMENTS):
            for shape in shapes:
                shape.insert(self.cluster.client(), range(100 * number, 100 * number + 30))
            data.flush(self.cluster.server, shapes)

    def segments(self, name: CollectionName) -> set[int]:
        return {segment.segment_id for segment in self.cluster.server.segments(name)}

    def compact(self, name: CollectionName, gone: set[int]) -> None:
        """Make Milvus merge all segments, and remove the files of those, and of the ones that were there before."""
        old = gone | self.segments(name)
        client, asked = self.cluster.client(), -ASK_AGAIN

        def done() -> bool:
            nonlocal asked
            if time.monotonic() - asked > ASK_AGAIN:
                asked = time.monotonic()
                client.compact(name.collection)
            now = self.segments(name)
            return len(now) == 1 and not now & old

        data.wait_until(done, seconds=600)
        self.remove_files(name, old)

    def files(self, name: CollectionName, segments: set[int]) -> list[str]:
        root, cid = self.cluster.milvus.root_path, self.cluster.server.describe(name).collectionID
        prefixes = [layout.source_dir(root, kind, cid) for kind in (layout.INSERT, layout.DELTA)]
        keys = [key for prefix in prefixes for key in listing(self.cluster.s3, A_BUCKET, prefix)]
        return [key for key in keys if int(key.removeprefix(f"{root}/").split("/")[3]) in segments]

    def remove_files(self, name: CollectionName, segments: set[int]) -> list[str]:
        """Remove all files of some segments."""
        keys = self.files(name, segments)
        assert keys
        for key in keys:
            admin(self.cluster.s3).delete_object(Bucket=A_BUCKET, Key=key)
        return keys

    def backup(self, name: str, collections: list[str], before: Callable[..., None]) -> dict[str, Any]:
        """Back up into another bucket, object by object."""
        c = self.cluster
        with ExitStack() as stack:
            proxy = stack.enter_context(faulty_s3(c.s3.endpoint_url, Script({})))
            milvus = stack.enter_context(faulty_grpc(c.milvus.host, c.milvus.port, Script({})))
            proxy.before = milvus.before = before
            backups = moved(location(c.s3, VAULT), proxy.endpoint_url)
            settings = Settings(
                replace(c.address, host=LOOPBACK, port=milvus.port), moved(c.storage, proxy.endpoint_url), backups, concurrency=1
            )
            run = BackupRun.open(settings, Reporter(self.log), Patience(timeout=1200), Owner(f"dag/run/{name}/-1"))
            stack.callback(run.server.close)
            return run.backup(name, collections).to_dict()

    def restored(self, name: str, source: CollectionName) -> data.Contents:
        """Restore one collection, return its rows, and drop it."""
        settings = replace(self.cluster.settings, backup_storage=location(self.cluster.s3, VAULT))
        self.cluster.restore(name, settings=settings, collections=source.collection, suffix="_bak", load="never")
        target = source._replace(collection=f"{source.collection}_bak")
        rows = self.cluster.contents(target)
        self.cluster.drop(target)
        return rows


class Compaction:
    """Compacts a collection once. Whoever calls it waits until that is done: a client that has no answer after a minute asks again."""

    def __init__(self, bench: Bench, name: CollectionName) -> None:
        self.bench, self.name, self.gone = bench, name, bench.segments(name)
        self.happened = False
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            if not self.happened:
                self.bench.compact(self.name, self.gone)
                self.happened = True


@pytest.fixture(scope="module")
def bench(cluster: Cluster) -> Iterator[Bench]:
    one = Bench(cluster)
    cluster.create(STEADY, range(40))
    one.make(DURING, BEFORE)
    yield one
    cluster.drop(STEADY.name, DURING.name, BEFORE.name)


def rows(shape: data.Collection) -> data.Contents:
    """Return what a collection of several segments holds."""
    numbers = [100 * segment + row for segment in range(SEGMENTS) for row in range(30)]
    return {"_default": {n: shape.row(n) for n in numbers}}


def segments_of(bench: Bench, name: str) -> dict[CollectionName, set[int]]:
    """Return the segments that a backup names; Milvus may have compacted them once more since."""
    backup = read_backup(ObjectStore(location(bench.cluster.s3, VAULT)), name)
    return {collection.name: {segment.segment_id for segment in collection.segments()} for collection in backup.collections}


def test_compaction_between_plan_and_copy_plans_that_collection_again_and_keeps_the_others(bench: Bench) -> None:
    cid, steady = (bench.cluster.server.describe(shape.name).collectionID for shape in (DURING, STEADY))
    compact, copies = Compaction(bench, DURING.name), Counter[str]()

    def before(operation: str, path: str = "") -> None:
        if operation == "copy":
            copies[path] += 1
            if sum(f"/{cid}/" in key for key in copies) == 4:
                compact()

    since = len(bench.log.lines)
    summary = bench.backup("compacted", [STEADY.name.collection, DURING.name.collection], before)
    said = bench.log.lines[since:]
    assert compact.happened
    assert [line for line in said if line.endswith(": planned again")] == [f"{DURING.name}: planned again"]
    assert {count for path, count in copies.items() if f"/{steady}/" in path} == {1}  # what is valid was not copied twice
    assert summary["rows"] == 40 + SEGMENTS * 30
    planned = segments_of(bench, "compacted")
    assert planned[DURING.name].isdisjoint(compact.gone)
    left = {int(key.split("/")[-3]) for key in listing(bench.cluster.s3, VAULT, f"backup/compacted/binlogs/{layout.INSERT}/{cid}/")}
    assert left == planned[DURING.name]  # nothing of the segments that are gone
    assert bench.restored("compacted", DURING.name) == rows(DURING)


def test_files_that_go_between_the_two_listings_of_a_survey_make_it_look_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus reports segments, and when the bucket is listed they have just been compacted away."""
    monkeypatch.setattr(store, "BUDGET", 900.0)
    compact, surveying = Compaction(bench, BEFORE.name), False

    def before(operation: str, path: str = "") -> None:
        nonlocal surveying
        surveying = surveying or operation == "GetPersistentSegmentInfo"
        if operation == "list" and surveying:
            compact()

    since = len(bench.log.lines)
    summary = bench.backup("looked_again", [BEFORE.name.collection], before)
    said = bench.log.lines[since:]
    assert compact.happened
    assert sum(line.endswith("; looking again") for line in said) == 1
    assert not any(line.endswith((": planned again", "; planning again")) for line in said)
    assert summary["rows"] == SEGMENTS * 30
    assert segments_of(bench, "looked_again")[BEFORE.name].isdisjoint(compact.gone)
    assert bench.restored("looked_again", BEFORE.name) == rows(BEFORE)


@pytest.mark.parametrize("times", [REPLANS, REPLANS + 1])
def test_objects_that_vanish_during_each_copy_end_the_backup_after_the_third_new_plan(bench: Bench, times: int) -> None:
    """The object is there again whenever Milvus is asked for segments, and goes when it is copied."""
    s3, client = bench.cluster.s3, admin(bench.cluster.s3)
    key = bench.files(STEADY.name, bench.segments(STEADY.name))[-1]
    body = client.get_object(Bucket=A_BUCKET, Key=key)["Body"].read()
    name, copied = f"vanishing_{times}", 0

    def before(operation: str, path: str = "") -> None:
        nonlocal copied
        if operation == "copy" and path.endswith(key.rpartition("/")[2]):
            copied += 1
            if copied <= times:
                client.delete_object(Bucket=A_BUCKET, Key=key)
        if operation == "GetPersistentSegmentInfo":
            client.put_object(Bucket=A_BUCKET, Key=key, Body=body)

    since = len(bench.log.lines)
    try:
        if times <= REPLANS:
            assert bench.backup(name, [STEADY.name.collection], before)["rows"] == 40
        else:
            with pytest.raises(SourceChanged, match="vanished from"):
                bench.backup(name, [STEADY.name.collection], before)
    finally:
        client.put_object(Bucket=A_BUCKET, Key=key, Body=body)
    assert copied == REPLANS + 1
    assert sum(line.endswith("; planning again") for line in bench.log.lines[since:]) == REPLANS
    if times > REPLANS:
        with pytest.raises(BackupNotFound):
            read_backup(ObjectStore(location(s3, VAULT)), name)
        assert listing(s3, VAULT, f"backup/{name}/meta/") == {}
        assert bench.backup(name, [STEADY.name.collection], lambda *_: None)["rows"] == 40  # the next try makes it
    assert sum(map(len, segments_of(bench, name).values())) == 1
