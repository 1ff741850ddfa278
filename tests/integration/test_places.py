"""Backups kept in, and restored from, any bucket, endpoint, account and cluster."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.settings import S3Location
from demo import servers
from tests.integration import data
from tests.integration.clusters import (
    A_BUCKET,
    ONLY_A,
    ONLY_VAULT,
    READER,
    VAULT,
    Cluster,
    Listing,
    counting_relay,
    listing,
    location,
    moved,
)
from tests.integration.conftest import Zoo

ROWS = range(200)


@pytest.fixture(scope="module")
def shape(a: Cluster) -> data.Collection:
    """A small loaded collection with deletes, in a segment or two."""
    made = a.create(data.docs("places"), ROWS, load=True)
    a.client().delete("places", ids=list(range(0, 200, 9)))
    return made


@pytest.fixture(scope="module")
def rows(a: Cluster, shape: data.Collection) -> data.Contents:
    return a.contents(shape.name, load=False)


def outside(before: Listing, after: Listing, *prefixes: str) -> list[str]:
    """Return the keys that came, went or changed without being below one of the prefixes."""
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return sorted(key for key in changed if not key.startswith(prefixes))


def lost(before: Listing, after: Listing, prefix: str) -> list[str]:
    """Return the keys below a prefix that went or changed."""
    return sorted(key for key, value in before.items() if key.startswith(prefix) and after.get(key) != value)


def round_trip(a: Cluster, place: S3Location, name: str, **changes: object) -> tuple[data.Contents, list[str]]:
    """Back `places` up to a place and restore it from there; return what came back, and the log."""
    settings = replace(a.settings, backup_storage=place, **changes)  # type: ignore[arg-type]
    target = CollectionName("default", f"places_{name}")
    milvus_before = listing(a.s3, A_BUCKET)
    a.log.lines.clear()
    a.backup(name, "places", settings=settings)
    a.restore(name, settings=settings, rename={"places": target.collection}, restore_id=name)
    milvus_after = listing(a.s3, A_BUCKET)
    assert outside(milvus_before, milvus_after, "files/") == []
    assert lost(milvus_before, milvus_after, "files/") == []
    found = a.contents(target, load=False)
    a.drop(target)
    return found, list(a.log.lines)


def test_another_bucket(a: Cluster, s3: servers.S3Server, rows: data.Contents) -> None:
    before = listing(s3, VAULT)
    found, log = round_trip(a, location(s3, VAULT, "deep/backups"), "vaulted")
    assert found == rows
    assert sum("server-side" in line for line in log) == 2
    assert outside(before, listing(s3, VAULT), "deep/backups/vaulted/") == []
    assert any(line.startswith("removed") and line.endswith("staged objects") for line in log)


def test_another_bucket_without_a_root_path(a: Cluster, s3: servers.S3Server, rows: data.Contents) -> None:
    found, _ = round_trip(a, location(s3, VAULT, ""), "at_the_top")
    assert found == rows
    assert listing(s3, VAULT, "at_the_top/meta/backup_meta.json")


def test_another_endpoint(a: Cluster, other_s3: servers.S3Server, rows: data.Contents) -> None:
    before = listing(other_s3, VAULT)
    found, log = round_trip(a, location(other_s3, VAULT, "backup", ONLY_VAULT), "elsewhere")
    assert found == rows
    assert sum("streamed" in line for line in log) == 2
    assert outside(before, listing(other_s3, VAULT), "backup/elsewhere/") == []


def test_credentials_that_cannot_see_each_other(a: Cluster, s3: servers.S3Server, rows: data.Contents) -> None:
    place, milvus = location(s3, VAULT, "backup", ONLY_VAULT), location(s3, A_BUCKET, "files", ONLY_A)
    found, log = round_trip(a, place, "separated", milvus_storage=milvus)
    assert found == rows
    assert sum("streamed" in line for line in log) == 2


def test_streaming_when_asked_for(a: Cluster, s3: servers.S3Server, rows: data.Contents) -> None:
    found, log = round_trip(a, location(s3, VAULT), "streaming", streaming=True)
    assert found == rows
    assert sum("streamed" in line for line in log) == 2


def test_a_backup_that_can_only_be_read(a: Cluster, s3: servers.S3Server, shape: data.Collection, rows: data.Contents) -> None:
    place = location(s3, VAULT, "read_only")
    a.backup("kept", "places", settings=replace(a.settings, backup_storage=place))
    before, target = listing(s3, VAULT), CollectionName("default", "places_kept")
    reading = replace(a.settings, backup_storage=location(s3, VAULT, "read_only", READER))
    a.restore("kept", settings=reading, suffix="_kept", restore_id="read-only")
    assert listing(s3, VAULT) == before
    assert listing(s3, A_BUCKET, "restore-temp") == {}
    assert a.contents(target, load=False) == rows
    a.drop(target)


def test_in_milvuss_own_bucket_nothing_is_staged(a: Cluster, s3: servers.S3Server, rows: data.Contents) -> None:
    before = listing(s3, A_BUCKET)
    a.backup("own", "places")
    middle = listing(s3, A_BUCKET)
    assert outside(before, middle, "backup/own/", "files/") == []
    a.log.lines.clear()
    a.restore("own", suffix="_own", restore_id="own", load="never")
    after = listing(s3, A_BUCKET)
    assert outside(middle, after, "backup/own/provider/", "files/") == []
    assert lost(before, after, "files/") == []
    assert not any("stag" in line for line in a.log.lines)
    a.drop(CollectionName("default", "places_own"))


def test_migration_to_another_cluster(a: Cluster, b: Cluster, zoo: Zoo) -> None:
    """Milvus B has another endpoint, bucket, root path, account and login."""
    names = [data.VARCHAR.name, data.PARTITION_KEY.name, data.SAME_NAME.name]
    before = listing(a.s3, A_BUCKET)
    settings = replace(b.settings, backup_storage=a.backups)
    b.restore(zoo.name, settings=settings, collections=[str(name) for name in names], restore_id="migration", load="always")
    for name in names:
        assert b.contents(name, load=False) == zoo.rows[name]
        expected, found = a.server.describe(name), b.server.describe(name)
        assert found.schema == expected.schema
        assert data.indexes(b.client(name.database), name.collection) == data.indexes(a.client(name.database), name.collection)
    assert outside(before, listing(a.s3, A_BUCKET), "files/", "backup/zoo/provider/") == []
    assert {key.split("/")[0] for key in listing(b.s3, b.milvus.bucket)} == {"deep"}


def test_migration_by_a_backup_of_the_other_cluster(a: Cluster, b: Cluster, other_s3: servers.S3Server) -> None:
    """B is backed up into its own bucket, and A reads it there with the admin's credentials."""
    shape = b.create(data.docs("from_b", "b_db"), range(50), load=True)
    rows = b.contents(shape.name, load=False)
    b.backup("of_b", "b_db.*")
    assert outside({}, listing(other_s3, b.milvus.bucket), "deep/er/", "backup/of_b/") == []
    a.restore("of_b", settings=replace(a.settings, backup_storage=location(other_s3, b.milvus.bucket)))
    assert a.contents(shape.name, load=False) == rows
    a.drop(shape.name)


def test_listing_costs_a_few_requests_per_thousand_objects_whatever_the_segments(a: Cluster, s3: servers.S3Server, zoo: Zoo) -> None:
    """One listing of each kind, and one more of the delta logs where Milvus does not name them: have deletes come meanwhile?"""
    (summary,) = [one for one in zoo.summary["collections"] if one["name"] == "zoo_types" and one["database"] == "default"]
    allowed = 3 * (summary["objects"] / 1000 + 1)
    assert summary["segments"] > 2 * allowed  # else the test says nothing
    with counting_relay(s3.endpoint_url, rb"list-type=2[^ ]*(?:insert|delta)_log") as (endpoint_url, requests):
        relayed = replace(a.settings, milvus_storage=moved(a.storage, endpoint_url), backup_storage=moved(a.backups, endpoint_url))
        run = BackupRun.open(relayed)
        plan = run.plan("counted", "zoo_types", "skip_flush")
        planning = len(requests)
        run.server.close()
    assert sum(1 for _ in plan.copies()) > 100
    assert 2 <= planning <= allowed
