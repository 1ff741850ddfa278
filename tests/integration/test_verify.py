"""Verifying real backups on a real S3: every shape, every generation of the official tool, and a key that may only read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.errors import StorageDenied
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.core.verification import BINLOGS, LEVELS
from airflow_provider_milvus_backup.core.verifying import verify
from tests import official_backups
from tests.integration.clusters import A_BUCKET, READER, STRANGER, Lines, listing, location
from tests.integration.test_official_backups import backup_name, rewrite

if TYPE_CHECKING:
    from typing import Any

    from tests.integration.conftest import Zoo

ME = Owner("dag/run/verify/-1")


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
