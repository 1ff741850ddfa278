"""Verifying real backups on a real S3: every shape, every generation of the official tool, and a key that may only read."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest
from boto3.s3.transfer import TransferConfig

from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.errors import StorageDenied
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.pacing import Pace
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.reading import Outcome, Reading, Target
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.verification import BINLOGS, LEVELS
from airflow_provider_milvus_backup.core.verifying import verify
from tests import official_backups
from tests.integration.clusters import A_BUCKET, READER, STRANGER, VAULT, Lines, admin, listing, location
from tests.integration.test_official_backups import backup_name, rewrite

if TYPE_CHECKING:
    from typing import Any

    from demo import servers
    from tests.integration.conftest import Zoo

ME = Owner("dag/run/verify/-1")
ROOT = "of/verifying"
MIB = 1024**2


def test_a_backup_of_every_shape_is_ok_at_every_level_and_nothing_but_the_result_is_added(zoo: Zoo) -> None:
    store, before = ObjectStore(zoo.cluster.backups), listing(zoo.cluster.s3, A_BUCKET, f"backup/{zoo.name}/")
    for level in LEVELS:
        found = verify(store, zoo.name, ME, Reporter(zoo.cluster.log), level=level)
        assert (found.findings, found.damage, found.unproven) == ([], [], 0)
        assert (found.objects, found.bytes) == (zoo.summary["objects"], zoo.summary["bytes"])
    backup = read_backup(store, zoo.name)
    assert found.segments == sum(1 for collection in backup.collections for _ in collection.segments())
    assert found.intact == [str(collection.name) for collection in backup.collections]
    after = listing(zoo.cluster.s3, A_BUCKET, f"backup/{zoo.name}/")
    result = f"backup/{zoo.name}/provider/verified.json"
    assert {key: item for key, item in after.items() if key != result} == before
    (entry,) = read_catalog(store, zoo.name).entries
    assert entry.verified == {"level": BINLOGS, "time": found.time, "ok": True, "damaged_segments": [], "sample": None}
    store.delete([result])


@pytest.mark.parametrize("generation", official_backups.GENERATIONS)
def test_a_backup_of_any_generation_of_the_official_tool_is_ok(zoo: Zoo, head: dict[str, Any], generation: str) -> None:
    a, name = zoo.cluster, f"verified_{backup_name(generation)}"
    rewrite(a, generation, name=name)
    store = ObjectStore(a.backups)
    found = verify(store, name, ME, Reporter(a.log), level=BINLOGS)
    assert (found.findings, found.unproven, found.compared_with, found.intact) == ([], 0, "meta", ["default.zoo_many"])
    store.delete(listing(a.s3, A_BUCKET, f"backup/{name}/"))


def test_a_key_that_may_only_read_verifies_and_says_that_nothing_is_kept(zoo: Zoo) -> None:
    s3, log = zoo.cluster.s3, Lines()
    before = listing(s3, A_BUCKET, "backup/")
    found = verify(ObjectStore(location(s3, A_BUCKET, "backup", READER)), zoo.name, ME, Reporter(log), level=BINLOGS)
    assert (found.ok, found.read_objects) == (True, zoo.summary["objects"])
    assert any("without a lease" in line for line in log.lines)
    with pytest.raises(StorageDenied):
        verify(ObjectStore(location(s3, A_BUCKET, "backup", STRANGER)), zoo.name, ME, Reporter(log))
    assert listing(s3, A_BUCKET, "backup/") == before


def test_an_object_of_parts_is_proven_by_the_etag_of_its_parts_and_rot_is_not_hidden_by_it(s3: servers.S3Server) -> None:
    content, key = os.urandom(12 * MIB), f"{ROOT}/parts/bundle/large"
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    admin(s3).upload_fileobj(io.BytesIO(content), VAULT, key, Config=config)
    store = ObjectStore(location(s3, VAULT, ROOT))
    there = store.head(key)
    assert there.etag.endswith("-3")
    other = f"{'0' * 32}-3"  # what was recorded of an object with other content
    seen: dict[str, Outcome] = {}
    for etag in (there.etag, other):
        reading = Reading(store, "parts", Pace(None), Reporter(Lines()), md5=True)
        reading.run([Target("bundle/large", len(content), etag)], lambda outcome, etag=etag: seen.update({etag: outcome}), (1, 1))  # type: ignore[misc]
        assert reading.read_bytes == len(content)
    assert (seen[there.etag].proven, seen[there.etag].kind, seen[there.etag].part) == (True, "", 5 * MIB)
    assert (seen[other].proven, seen[other].kind, seen[other].part) == (False, "content", 5 * MIB)
    store.delete([key])
