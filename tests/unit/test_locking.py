"""Locking a backup after its commit: what is locked, in which order, until when, and that a crash in between is made good."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, LEASE, MANIFEST, MARK, SCHEMAS
from airflow_provider_milvus_backup.core.deleting import delete
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupInUse, BackupNotFound, ConfigError, StorageDenied
from airflow_provider_milvus_backup.core.lease import Holding, Owner
from airflow_provider_milvus_backup.core.locking import Retention, combined, lock, lock_planned, planned
from airflow_provider_milvus_backup.core.object_lock import BucketLock
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from benchmarks.slow_s3 import Answer
from tests.unit.deletion_store import DENIED, THEN
from tests.unit.lock_store import NONE, default, locking
from tests.unit.test_lease import Lines

ME = Owner("dag/run/backup/-1")
#: What was committed in January 2026 is locked for so many days that the end is not over while these tests are.
DAYS = 36_000
UNTIL = THEN + timedelta(days=DAYS)
FOR_LONG = Retention(DAYS, "GOVERNANCE")
KEPT = {f"{BACKUPS}/night/{file}": b"{}" for file in (SCHEMAS, MANIFEST)}
NIGHT = {**backup("night", data=40), **KEPT}


def locked(store: ObjectStore, wanted: Retention = FOR_LONG, log: Lines | None = None) -> dict[str, Any]:
    return lock(store, "night", wanted, ME, Reporter(log or Lines()))


def test_data_meta_schemas_and_manifest_are_locked_the_mark_last_and_what_must_change_is_not() -> None:
    others = {f"{BACKUPS}/night/{key}": b"x" for key in ("provider/hold.json", "provider/leases/1.json", "notes/why.txt")}
    with locking(NIGHT, others, backup("other")) as (store, served):
        told = locked(store)
        read = {key for key in NIGHT if "/provider/" not in key} | KEPT.keys()
        assert served.locks == dict.fromkeys(read, ("GOVERNANCE", UNTIL))
        assert served.locked[-1] == f"{BACKUPS}/night/{MARK}"
        assert f"{BACKUPS}/night/{LEASE}" not in served.keys
    assert told == {"mode": "GOVERNANCE", "until": UNTIL.isoformat(timespec="seconds")}


def test_the_end_is_counted_from_the_commit_in_every_try_and_a_locked_mark_is_enough() -> None:
    log = Lines()
    with locking(NIGHT) as (store, served):
        first = locked(store)
        count = len(served.locked)
        assert locked(store, log=log) == first
        assert len(served.locked) == count
        longer = locked(store, Retention(DAYS + 1, "GOVERNANCE"))
        assert len(served.locked) == 2 * count
        assert locked(store) == first, "a shorter lock is contained in a longer one"
        assert len(served.locked) == 2 * count
    assert (datetime.fromisoformat(longer["until"]) - UNTIL).days == 1
    assert any("is locked until" in line for line in log.lines)


@pytest.mark.parametrize("survived", [0, 1, 17, 42])
def test_a_run_that_died_while_locking_is_gone_on_with(survived: int) -> None:
    with locking(NIGHT) as (store, served):
        served.when_locking = lambda _: DENIED if len(served.locked) >= survived else None
        with pytest.raises(StorageDenied, match="'night' is complete, but not locked: grant s3:PutObjectRetention, and run"):
            locked(store)
        assert f"{BACKUPS}/night/{MARK}" not in served.locks
        served.when_locking = lambda _: None
        locked(store)
        assert served.locks.keys() == {key for key in NIGHT if "/provider/" not in key} | KEPT.keys()
        assert set(served.locks.values()) == {("GOVERNANCE", UNTIL)}


def test_objects_that_are_locked_longer_or_more_firmly_stay_so() -> None:
    data = next(key for key in NIGHT if "/binlogs/" in key)
    other = next(key for key in sorted(NIGHT, reverse=True) if "/binlogs/" in key)
    with locking(NIGHT) as (store, served):
        served.locks = {data: ("GOVERNANCE", UNTIL + timedelta(days=9)), other: ("COMPLIANCE", UNTIL + timedelta(days=9))}
        before = dict(served.locks)
        locked(store)
        assert {key: served.locks[key] for key in before} == before
        assert len(served.locks) > len(before)
        served.locks[data] = ("GOVERNANCE", UNTIL + timedelta(days=9))
        with pytest.raises(StorageDenied, match="but not locked"):
            locked(store, Retention(DAYS, "COMPLIANCE"))


def test_a_store_that_is_busy_is_asked_again() -> None:
    busy = [Answer(503, b"<Error><Code>SlowDown</Code></Error>")] * 3
    with locking(NIGHT) as (store, served):
        served.when_locking = lambda _: busy.pop() if busy else None
        locked(store)
        assert served.locks[f"{BACKUPS}/night/{MARK}"] == ("GOVERNANCE", UNTIL)


def test_days_that_are_over_lock_nothing_and_that_is_said() -> None:
    log = Lines()
    with locking(NIGHT) as (store, served):
        told = locked(store, Retention(1, "GOVERNANCE"), log)
        assert served.locked == []
    assert told["until"] == (THEN + timedelta(days=1)).isoformat(timespec="seconds")
    assert any("'night' is not locked: the 1 day after its commit are over" in line for line in log.lines)


def test_only_complete_backups_that_nobody_writes_are_locked() -> None:
    begun = {f"{BACKUPS}/begun/provider/attempt.json": Attempt("an-id", ME).to_json()}
    writing = Holding(Owner("another/run/backup/-1"), "write backup 'night'").to_json()
    with locking(NIGHT, begun) as (store, served):
        for name, kind in (("begun", BackupDamaged), ("nowhere", BackupNotFound), ("a b", ConfigError)):
            with pytest.raises(kind):
                lock(store, name, FOR_LONG, ME, Reporter(Lines()))
        served.put(f"{BACKUPS}/night/{LEASE}", writing)
        with pytest.raises(BackupInUse, match="write backup 'night'"):
            locked(store)
        assert served.locks == {}


def test_what_was_locked_cannot_be_deleted_and_can_when_it_is_over() -> None:
    with locking(NIGHT) as (store, served):
        locked(store)
        with pytest.raises(StorageDenied, match=r"locked until 2124-\d\d-\d\d"):
            delete(store, "night", ME, Reporter(Lines()))
        assert served.deletions == [[f"{BACKUPS}/night/{LEASE}"]]
        served.locks = dict.fromkeys(served.locks, ("GOVERNANCE", datetime.now(timezone.utc) - timedelta(days=1)))
        assert delete(store, "night", ME, Reporter(Lines())).state == COMPLETE


# ---- what is refused before a backup begins ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "mode", "if_exists", "said"),
    [
        (0, "GOVERNANCE", "fail", "object_lock_days 0 is not a number of days"),
        (-1, "GOVERNANCE", "fail", "object_lock_days -1"),
        (True, "GOVERNANCE", "fail", "object_lock_days True"),
        (1.5, "GOVERNANCE", "fail", "object_lock_days 1.5"),
        ("7", "GOVERNANCE", "fail", "object_lock_days '7'"),
        (10**9, "GOVERNANCE", "fail", "from 1 to 36,500"),
        (7, "governance", "fail", "object_lock_mode 'governance' is not one of GOVERNANCE, COMPLIANCE"),
        (7, "GOVERNANCE", "replace", "contradict each other"),
    ],
)
def test_wrong_days_and_modes_are_refused_before_the_store_is_asked(days: Any, mode: str, if_exists: str, said: str) -> None:
    with locking(NIGHT) as (store, served):
        with pytest.raises(ConfigError, match=said):
            planned(store, days, mode, if_exists)
        assert served.asked == []


def test_without_days_nothing_is_asked_and_nothing_is_locked() -> None:
    with locking(NIGHT) as (store, served):
        assert planned(store, None, "GOVERNANCE", "replace") is None
        assert lock_planned(store, "night", None, ME, Reporter(Lines())) == {}
        assert (served.asked, served.locked, served.requests.total()) == ([], [], 0)


def test_a_bucket_without_object_lock_is_refused_with_the_remedy() -> None:
    with locking(NIGHT) as (store, served):
        served.says["object-lock"] = NONE
        with pytest.raises(ConfigError, match=r"object_lock_days 7: bucket 'a-bucket' has no Object Lock; enable it"):
            planned(store, 7, "GOVERNANCE", "fail")


@pytest.mark.parametrize(
    ("wanted", "bucket", "found"),
    [
        (("GOVERNANCE", 7), BucketLock(True), Retention(7, "GOVERNANCE")),
        (("GOVERNANCE", 7), BucketLock(None), Retention(7, "GOVERNANCE")),
        (("COMPLIANCE", 7), BucketLock(True), Retention(7, "COMPLIANCE")),
        (("GOVERNANCE", 7), BucketLock(True, "GOVERNANCE", 30), Retention(30, "GOVERNANCE", implied=True)),
        (("GOVERNANCE", 60), BucketLock(True, "GOVERNANCE", 30), Retention(60, "GOVERNANCE", implied=True)),
        (("GOVERNANCE", 60), BucketLock(True, "COMPLIANCE", 30), Retention(60, "COMPLIANCE", implied=True)),
    ],
)
def test_the_longer_of_what_is_wanted_and_what_the_bucket_does_anyhow(
    wanted: tuple[str, int], bucket: BucketLock, found: Retention
) -> None:
    assert combined(Retention(wanted[1], wanted[0]), bucket) == found


def test_a_default_that_another_mode_does_not_replace_is_refused() -> None:
    with pytest.raises(ConfigError, match="locks every object in mode GOVERNANCE by default"):
        combined(Retention(7, "COMPLIANCE"), BucketLock(True, "GOVERNANCE", 30))


def test_a_bucket_that_locks_by_itself_locks_the_data_from_the_commit_on_all_the_same() -> None:
    """The data was written before the mark, so its default ends before what was asked for."""
    with locking(NIGHT) as (store, served):
        served.says["object-lock"] = default(DAYS)
        served.locks = {key: ("GOVERNANCE", UNTIL - timedelta(hours=2)) for key in NIGHT if "/binlogs/" in key}
        served.locks[f"{BACKUPS}/night/{MARK}"] = ("GOVERNANCE", UNTIL)
        wanted = planned(store, DAYS, "GOVERNANCE", "fail")
        assert lock_planned(store, "night", wanted, ME, Reporter(Lines()))["object_lock"]["mode"] == "GOVERNANCE"
        assert set(served.locks.values()) == {("GOVERNANCE", UNTIL)}
