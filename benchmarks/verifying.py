"""verify_objects_*, manifest_*: a verification of 100,000 objects by one listing, and a manifest of a million objects.

The store answers after 5 ms, and holds a backup of 5,000 segments of 20 fields.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from airflow_provider_milvus_backup.core import layout, manifest, meta_writer, raw_schema
from airflow_provider_milvus_backup.core.inventory import Inventory
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.manifest import Recorded
from airflow_provider_milvus_backup.core.meta import Backup, Collection, FieldLogs, Log, Partition, Segment
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.restore_plan import expected_objects
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.verifying import verify

from . import Result, load, peak_mb, remark, slow_s3
from .collection import BACKUPS, BUCKET, COLLECTION, FIELDS, FIRST_ID, PARTITION, Quiet, location

SEGMENTS, MILLION = 5000, 1_000_000
NAME = "nightly"
SCHEMA = {"name": "coll", "fields": [{"fieldID": 100, "name": "id", "is_primary_key": True, "data_type": 5}]}


def backup() -> Backup:
    """Return a backup of one log of each field of each segment."""
    numbers = [FIRST_ID + 1000 * number for number in range(SEGMENTS)]
    segments = [
        Segment(number, PARTITION, 1000, [FieldLogs(field, [Log(number + field, 10_000 + field)]) for field in FIELDS], [], number)
        for number in numbers
    ]
    collection = Collection(COLLECTION, CollectionName("default", "coll"), SCHEMA, 1, 0, [Partition(PARTITION, "_default", segments)])
    return Backup("an-id", NAME, "v2.4.24", [collection])


def keys(found: Backup, root: str) -> dict[str, int]:
    """Return the size of every object of a backup, by key."""
    return dict(expected_objects(found.collections[0], layout.binlogs_dir(root, found.name)))


def write(store: ObjectStore, found: Backup) -> None:
    """Write the meta and the manifest of a backup whose objects are there."""
    inventory = Inventory(store, found)
    store.write(layout.provider_key(BACKUPS, NAME, raw_schema.SCHEMAS_FILE), raw_schema.to_file(found.backup_id, {}))
    for file, content in meta_writer.to_files(found, "files"):
        inventory.add(file, content)
        if file == layout.COMMIT_MARK:
            inventory.write(store.objects(layout.binlogs_dir(BACKUPS, NAME)))
        store.write(layout.meta_key(BACKUPS, NAME, file), content)


def run() -> Iterator[Result]:
    found = backup()
    objects = keys(found, BACKUPS)
    with slow_s3.in_process({f"{BUCKET}/{key}": size for key, size in objects.items()}) as endpoint:
        store = ObjectStore(location(endpoint, ("key", "secret"), BACKUPS))
        write(store, found)
        before, started = slow_s3.requests(endpoint), time.monotonic()
        result = verify(store, NAME, Owner(), Quiet())
        seconds, requests = time.monotonic() - started, slow_s3.requests(endpoint) - before
    assert (result.ok, result.objects, result.compared_with) == (True, len(objects), "manifest"), result.findings[:3]
    remark(f"{len(objects):,} objects in {SEGMENTS:,} segments: {dict(requests)}, peak {peak_mb():,.0f} MB, {load()}")
    yield Result("verify_objects_requests", sum(requests.values()), "requests", f"<= {len(objects) // 1000 + 25}")
    yield Result("verify_objects_seconds", round(seconds, 2), "s", None)
    yield from _manifest()


def _manifest() -> Iterator[Result]:
    base = f"binlogs/{layout.INSERT}/{COLLECTION}/{PARTITION}"
    items = [
        Recorded(f"{base}/{segment}/{segment}/{field}/{segment + field}", 10_000 + field, hashlib.md5(b"%d" % segment).hexdigest())
        for segment in range(FIRST_ID, FIRST_ID + MILLION // len(FIELDS))
        for field in FIELDS
    ]
    started = time.monotonic()
    content = manifest.to_json("an-id", {}, items, md5=True)
    written = time.monotonic()
    assert sum(1 for _ in manifest.from_json(content).objects()) == MILLION
    read = time.monotonic()
    yield Result("manifest_million_mb", round(len(content) / 1e6, 1), "MB", "<= 100")
    yield Result("manifest_million_write_seconds", round(written - started, 2), "s", None)
    yield Result("manifest_million_read_seconds", round(read - written, 2), "s", None)
