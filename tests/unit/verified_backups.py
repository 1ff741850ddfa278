"""A small backup with real binlogs in an S3 in a thread, whose objects and answers a test can change."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

from airflow_provider_milvus_backup.core import layout, meta_writer, raw_schema
from airflow_provider_milvus_backup.core.digests import digest
from airflow_provider_milvus_backup.core.inventory import Inventory
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.meta import Backup, Collection, FieldLogs, Log, Partition, Segment
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.verification import OBJECTS, Verification
from airflow_provider_milvus_backup.core.verifying import verify
from benchmarks.collection import BACKUPS, BUCKET, location
from benchmarks.slow_s3 import Answer, Stored, in_thread
from tests.contract.binlogs import Column, Delete, delta_log, insert_log
from tests.unit.deletion_store import DeletionStore
from tests.unit.test_lease import Lines

NAME, ID = "nightly", "an-id"
ROWS = 3
#: Segments by collection and partition.
SEGMENTS = {(10, 11): [12, 13], (10, 14): [15], (20, 21): [22]}
#: Of that segment there is a delta log, too; and an L0 segment of all partitions of the same collection.
DELETED, L0 = 12, 19
SCHEMA = {
    "name": "docs",
    "fields": [
        {"fieldID": 100, "name": "id", "is_primary_key": True, "data_type": 5},
        {"fieldID": 101, "name": "v", "data_type": 101, "type_params": [{"key": "dim", "value": "2"}]},
    ],
}
ME = Owner("dag/run/verify/-1")
CRC = "crc64nvme"


def contents() -> dict[str, bytes]:
    """Return the data by key below the backup's directory."""
    found = {}
    for (collection, partition), segments in SEGMENTS.items():
        for segment in segments:
            for field in (0, 1, 100, 101):
                column = Column(field, 5, "", [segment * 1000 + row for row in range(ROWS)])
                found[f"binlogs/insert_log/{collection}/{partition}/{segment}/{segment}/{field}/{segment}{field:03}"] = insert_log(column)
    found[f"binlogs/delta_log/10/11/{DELETED}/{DELETED}/{DELETED}900"] = delta_log([Delete(1, 2)])
    found[f"binlogs/delta_log/10/-1/{L0}/{L0}900"] = delta_log([Delete(5, 2), Delete(6, 2)])
    return found


def backup_of(data: Mapping[str, bytes], name: str = NAME) -> Backup:
    """Return the meta of a backup of :func:`contents`."""

    def logs(base: str) -> list[Log]:
        return [Log(int(key.rpartition("/")[2]), len(data[key])) for key in sorted(data) if key.startswith(base)]

    def segment(collection: int, partition: int, number: int) -> Segment:
        below = f"{collection}/{partition}/{number}/{number}/"
        inserts = [FieldLogs(field, logs(f"binlogs/insert_log/{below}{field}/")) for field in (0, 1, 100, 101)]
        deltas = logs(f"binlogs/delta_log/{below}")
        return Segment(number, partition, ROWS, inserts, [FieldLogs(0, deltas)] if deltas else [], number)

    def collection(number: int) -> Collection:
        mine = [(p, segments) for (c, p), segments in SEGMENTS.items() if c == number]
        partitions = [Partition(p, f"p{p}", [segment(number, p, one) for one in segments]) for p, segments in mine]
        deletes = logs(f"binlogs/delta_log/{number}/-1/{L0}/")
        l0 = [Segment(L0, -1, 0, [], [FieldLogs(0, deletes)], None, is_l0=True)] if deletes else []
        return Collection(number, CollectionName("default", f"c{number}"), SCHEMA, 1, 0, partitions, l0)

    return Backup(ID, name, "v2.4.24", [collection(10), collection(20)])


class VerifiedStore(DeletionStore):
    """An S3 whose habits and faults a test chooses."""

    def __init__(self) -> None:
        super().__init__({})
        #: Whether ETags say nothing about content, as with keys of KMS; whether every object has a checksum.
        self.opaque = self.checksums = False
        #: Whether ETags are written in capitals.
        self.capitals = False
        #: Size of the parts that an object was written in, by key.
        self.parts: dict[str, int] = {}
        #: What is answered instead, by a part of ``<method> <key>``.
        self.faults: dict[str, Answer] = {}
        self.reads: list[str] = []
        #: Key and first byte of every range that was asked for.
        self.ranges: list[tuple[str, int]] = []
        #: Keys whose next request fails, with how many succeed before.
        self.stumbles: dict[str, int] = {}

    def _put(self, name: str, stored: Stored) -> None:
        if self.opaque:
            stored = stored._replace(etag=hashlib.md5(f"{len(self.objects)} {name}".encode()).hexdigest())
        if self.capitals:
            stored = stored._replace(etag=stored.etag.upper())
        super()._put(name, stored)

    def answer(self, head: str, body: bytes) -> Answer:
        method, target, _ = head.split(" ", 2)
        path, _, query = target.partition("?")
        key = unquote(path).removeprefix(f"/{BUCKET}/")
        for part, fault in self.faults.items():
            if part in f"{method} {key}?{query}":
                return fault
        if method == "GET" and key in self.stumbles:
            self.stumbles[key] -= 1
            if self.stumbles[key] < 0:
                del self.stumbles[key]
                return Answer(500, b"<Error><Code>InternalError</Code></Error>")
        if method == "GET" and "list-type" not in query:
            self.reads.append(key)
        answer = super().answer(head, body)
        if method == "GET" and (asked := re.search(r"\r\nrange: *bytes=(\d+)-(\d+)", head, re.IGNORECASE)):
            first, last, size = int(asked[1]), int(asked[2]), len(answer.body)
            self.ranges.append((key, first))
            headers = f"{answer.headers}Content-Range: bytes {first}-{min(last, size - 1)}/{size}\r\n"
            answer = answer._replace(status=206, body=answer.body[first : last + 1], headers=headers)
        if method == "PUT" and answer.status == 200:
            answer = answer._replace(headers=f'ETag: "{self.objects[f"{BUCKET}/{key}"].etag}"\r\n')
        if method == "HEAD" and answer.status == 200:
            if self.checksums and re.search(r"\r\nx-amz-checksum-mode: enabled", head, re.IGNORECASE):
                answer = answer._replace(headers=f"{answer.headers}x-amz-checksum-{CRC}: {crc(answer.body).partition(':')[2]}\r\n")
            if "partNumber" in parse_qs(query) and key in self.parts:
                answer = answer._replace(body=answer.body[: self.parts[key]])
        return answer

    def content(self, key: str) -> bytes:
        """Return an object of the backup."""
        return self.objects[f"{BUCKET}/{BACKUPS}/{NAME}/{key}"].content

    def change(self, key: str, content: bytes, *, etag: str | None = None) -> None:
        """Replace an object of the backup; with an ETag as bits rot, without the store taking notice."""
        name = f"{BUCKET}/{BACKUPS}/{NAME}/{key}"
        super()._put(name, Stored(len(content), etag or hashlib.md5(content).hexdigest(), content))

    def etag(self, key: str) -> str:
        """Return the ETag of an object of the backup."""
        return self.objects[f"{BUCKET}/{BACKUPS}/{NAME}/{key}"].etag

    def rot(self, key: str) -> None:
        """Flip a bit in the middle of an object, unnoticed by the store."""
        content = bytearray(self.content(key))
        content[len(content) // 2] ^= 8
        self.change(key, bytes(content), etag=self.etag(key))

    def remove(self, key: str) -> None:
        """Remove an object of the backup."""
        del self.objects[f"{BUCKET}/{BACKUPS}/{NAME}/{key}"]
        self._sorted = None


def crc(content: bytes) -> str:
    found = digest(f"{CRC}:")
    assert found
    found.update(content)
    return found.value()


def write(store: ObjectStore, *, manifest: bool = True, data: bool = True, name: str = NAME) -> None:
    """Write a backup of :func:`contents` as a backup does, with its manifest or, as the official tool does, without.

    :param data: otherwise it is there already
    """
    objects, directory = contents(), layout.backup_dir(store.location.root_path, name)
    for key, content in objects.items() if data else ():
        store.write(f"{directory}{key}", content)
    backup = backup_of(objects, name)
    inventory = Inventory(store, backup)
    if manifest:
        store.write(f"{directory}provider/{raw_schema.SCHEMAS_FILE}", raw_schema.to_file(ID, {}))
        store.write(f"{directory}provider/catalog.json", json.dumps({"version": 1, "backup_id": ID, "manifest": True}).encode())
    for file, content in meta_writer.to_files(backup, "files"):
        inventory.add(file, content)
        if file == layout.COMMIT_MARK and manifest:
            inventory.write(store.objects(f"{directory}binlogs"))
        store.write(f"{directory}meta/{file}", content)


@contextmanager
def serving(*, manifest: bool = True, **habits: bool) -> Iterator[tuple[ObjectStore, VerifiedStore]]:
    """Serve a backup; yields the provider's view of the store, and the store."""
    served = VerifiedStore()
    for habit, value in habits.items():
        setattr(served, habit, value)
    with in_thread(served) as endpoint:
        store = ObjectStore(location(endpoint, ("key", "secret"), BACKUPS))
        write(store, manifest=manifest)
        served.requests.clear()
        served.reads.clear()
        yield store, served


def verified(store: ObjectStore, level: str = OBJECTS, log: Lines | None = None, **options: Any) -> Verification:
    return verify(store, NAME, ME, Reporter(log or Lines()), level=level, **options)


def kinds(found: Verification) -> list[tuple[str, str]]:
    return [(one.kind, one.key) for one in found.findings]
