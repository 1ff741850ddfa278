"""S3 Object Lock on a real S3: a backup is locked object by object, is left alone by delete, replace and retention, and shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from botocore.exceptions import ClientError

from airflow_provider_milvus_backup.core.catalog import describe, read_catalog
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import ConfigError, StorageDenied
from airflow_provider_milvus_backup.core.holds import hold, release
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.locking import lock, lock_planned, planned
from airflow_provider_milvus_backup.core.object_lock import bucket_lock, is_versioned, with_locks
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.settings import Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo import servers
from tests.integration import data
from tests.integration.clusters import A_BUCKET, READER, VAULT, Cluster, Lines, admin, listing, location

LOCKED, NAME = "locked-vault", "night"
ME = Owner("dag/run/backup/-1")


@pytest.fixture(scope="module")
def settings(a: Cluster, s3: servers.S3Server) -> Iterator[Settings]:
    """Milvus A with its backups in a bucket that has Object Lock, and one collection."""
    admin(s3).create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    shape = a.create(data.docs("kept"), range(50))
    yield replace(a.settings, backup_storage=location(s3, LOCKED))
    a.drop(shape.name)


@pytest.fixture(scope="module")
def store(a: Cluster, settings: Settings) -> ObjectStore:
    """The bucket with one backup, which the first test locks."""
    a.backup(NAME, "kept", settings=settings)
    return ObjectStore(settings.backup_storage)


def retention_of(s3: servers.S3Server, key: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = admin(s3).get_object_retention(Bucket=LOCKED, Key=key)["Retention"]
        return found
    except ClientError:
        return None


def test_every_object_that_a_restore_reads_is_locked_from_the_commit_on(a: Cluster, s3: servers.S3Server, store: ObjectStore) -> None:
    wanted = planned(store, 7, "GOVERNANCE", "fail")
    told = lock_planned(store, NAME, wanted, ME, Reporter(a.log))["object_lock"]
    (entry,) = read_catalog(store).entries
    assert entry.committed
    until = entry.committed.replace(microsecond=0) + timedelta(days=7)
    assert told == {"mode": "GOVERNANCE", "until": until.isoformat(timespec="seconds")}
    found = {key: retention_of(s3, key) for key in listing(s3, LOCKED, f"backup/{NAME}/")}
    kept = {key for key, retention in found.items() if retention}
    assert kept == {key for key in found if "/provider/" not in key or key.endswith(("/schemas.json", "/manifest.json"))}
    assert len(kept) > 10
    assert {(found[key]["Mode"], found[key]["RetainUntilDate"]) for key in kept} == {("GOVERNANCE", until)}  # type: ignore[index]
    assert lock_planned(store, NAME, wanted, ME, Reporter(a.log)) == {"object_lock": told}
    assert describe(store, NAME)["locked"] == {**told, "legal_hold": False}


def test_it_is_not_deleted_replaced_or_thinned_out_and_holds_still_work(a: Cluster, s3: servers.S3Server, settings: Settings) -> None:
    store, log, before = ObjectStore(settings.backup_storage), Lines(), listing(s3, LOCKED, f"backup/{NAME}/")
    with pytest.raises(StorageDenied, match=rf"'{NAME}' is locked until .* \(GOVERNANCE\) by the store. It cannot be deleted"):
        delete(store, NAME, ME, Reporter(log))
    with pytest.raises(StorageDenied, match="It cannot be replaced"):
        a.backup(NAME, "kept", if_exists="replace", settings=settings)
    policy = RetentionPolicy(keep_last=0, min_count=0, allow_empty=True)
    assert apply_policy(store, policy, ME, Reporter(log))["removed"] == []
    assert any("locked until" in line for line in log.lines)
    hold(store, NAME, "audit", "ann", None, ME, Reporter(log))
    release(store, NAME, ME, Reporter(log))
    assert listing(s3, LOCKED, f"backup/{NAME}/") == before


def test_a_key_that_may_not_ask_for_the_bucket_still_sees_the_lock_of_each_backup(s3: servers.S3Server, store: ObjectStore) -> None:
    reading, log = ObjectStore(location(s3, LOCKED, "backup", READER)), Lines()
    assert bucket_lock(reading).can is None
    catalog = read_catalog(reading)
    (entry,) = with_locks(reading, catalog.entries, catalog.now, bucket_lock(reading), Reporter(log))
    assert entry.lock.startswith("locked until ")
    assert any("may not ask for the Object Lock configuration" in line for line in log.lines)
    with pytest.raises(StorageDenied, match="access denied"):
        lock(reading, NAME, planned(store, 9, "GOVERNANCE", "fail") or pytest.fail("planned"), ME, Reporter(log))


def test_a_lock_can_be_made_longer_and_never_shorter(s3: servers.S3Server, store: ObjectStore) -> None:
    mark = f"backup/{NAME}/meta/backup_meta.json"
    ends = []
    for days in (9, 8, 7):
        lock_planned(store, NAME, planned(store, days, "GOVERNANCE", "fail"), ME, Reporter(Lines()))
        found = retention_of(s3, mark)
        assert found
        ends.append(found["RetainUntilDate"])
    assert len(set(ends)) == 1
    assert ends[0] > datetime.now(timezone.utc) + timedelta(days=8)


def test_a_legal_hold_keeps_a_backup_too_and_what_is_free_again_goes(a: Cluster, s3: servers.S3Server, settings: Settings) -> None:
    a.backup("held", "kept", "meta_only", settings=settings)
    store, mark = ObjectStore(settings.backup_storage), "backup/held/meta/backup_meta.json"
    admin(s3).put_object_legal_hold(Bucket=LOCKED, Key=mark, LegalHold={"Status": "ON"})
    with pytest.raises(StorageDenied, match="'held' is under legal hold by the store"):
        delete(store, "held", ME, Reporter(a.log))
    admin(s3).put_object_legal_hold(Bucket=LOCKED, Key=mark, LegalHold={"Status": "OFF"})
    assert delete(store, "held", ME, Reporter(a.log)).state == "complete"
    assert listing(s3, LOCKED, "backup/held/") == {}
    versions = admin(s3).list_object_versions(Bucket=LOCKED, Prefix="backup/held/")
    assert {version["Key"] for version in versions["Versions"]} >= {mark}, "what was deleted stays as a version: the preflight warns of it"


def test_a_bucket_without_object_lock_is_refused_before_anything_is_made(s3: servers.S3Server) -> None:
    for bucket in (A_BUCKET, VAULT):
        store = ObjectStore(location(s3, bucket))
        assert (bucket_lock(store).can, is_versioned(store)) == (False, False)
        with pytest.raises(ConfigError, match=f"bucket '{bucket}' has no Object Lock"):
            planned(store, 7, "GOVERNANCE", "fail")
