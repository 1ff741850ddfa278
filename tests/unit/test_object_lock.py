"""Object Lock and legal holds: what is asked of the store, what is said, and that nobody deletes what the store keeps."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_milvus_backup.core.catalog import describe, read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, MARK, CatalogEntry
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import NotInStorage, StorageDenied, StorageError
from airflow_provider_milvus_backup.core.holds import check_replaceable
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.object_lock import BucketLock, bucket_lock, expires_versions, is_versioned, with_locks
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from benchmarks.slow_s3 import Answer
from tests.unit.deletion_store import DENIED
from tests.unit.lock_store import ENABLED, EXPIRING, NO_RULES, NONE, UNKNOWN, UNVERSIONED, VERSIONED, default, locking
from tests.unit.test_lease import Lines

ME = Owner("dag/run/delete/-1")
LATER = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=3)
EARLIER = LATER - timedelta(days=6)
ALL = RetentionPolicy(keep_last=0, min_count=0, allow_empty=True)


def mark(name: str) -> str:
    return f"{BACKUPS}/{name}/{MARK}"


# ---- what a bucket says of itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lock", "versioning", "found"),
    [
        (ENABLED, VERSIONED, BucketLock(True)),
        (default(30), VERSIONED, BucketLock(True, "GOVERNANCE", 30)),
        (default(30, "COMPLIANCE"), VERSIONED, BucketLock(True, "COMPLIANCE", 30)),
        (Answer(body=default(2).body.replace(b"<Days>2</Days>", b"<Years>2</Years>")), VERSIONED, BucketLock(True, "GOVERNANCE", 730)),
        (NONE, VERSIONED, BucketLock(False)),
        (UNKNOWN, UNKNOWN, BucketLock(False)),
        (DENIED, UNVERSIONED, BucketLock(False)),
        (DENIED, UNKNOWN, BucketLock(False)),
    ],
)
def test_what_a_bucket_says_of_its_locks(lock: Answer, versioning: Answer, found: BucketLock) -> None:
    with locking() as (store, served):
        served.says |= {"object-lock": lock, "versioning": versioning}
        assert bucket_lock(store) == found
        assert len(served.asked) == (1 if lock is not DENIED else 2)


def test_a_bucket_that_may_not_be_asked_is_unknown_not_unlocked() -> None:
    with locking() as (store, served):
        served.says |= {"object-lock": DENIED, "versioning": VERSIONED}
        assert bucket_lock(store).can is None
        served.says["versioning"] = DENIED
        found = bucket_lock(store)
    assert found.can is None
    assert "may not ask" in found.reason


def test_a_bucket_that_does_not_exist_is_an_error_and_no_bucket_without_locks() -> None:
    with locking() as (store, served):
        served.says["object-lock"] = Answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        with pytest.raises(NotInStorage, match="the bucket does not exist"):
            bucket_lock(store)


def test_whether_versions_are_kept_and_expire() -> None:
    with locking() as (store, served):
        answers = []
        for versioning, lifecycle in ((VERSIONED, NO_RULES), (UNVERSIONED, EXPIRING), (DENIED, DENIED), (UNKNOWN, UNKNOWN)):
            served.says |= {"versioning": versioning, "lifecycle": lifecycle}
            answers.append((is_versioned(store), expires_versions(store)))
        served.says["lifecycle"] = Answer(body=EXPIRING.body.replace(b"Enabled", b"Disabled"))
        assert expires_versions(store) is False
    assert answers == [(True, False), (False, True), (None, None), (False, False)]


# ---- what the catalog shows --------------------------------------------------------------------------------------------------


def entries(store: ObjectStore, log: Lines | None = None) -> list[CatalogEntry]:
    catalog = read_catalog(store, unfinished=True)
    return with_locks(store, catalog.entries, catalog.now, bucket_lock(store), Reporter(log or Lines()))


def test_a_bucket_without_locks_costs_one_request_whatever_the_number_of_backups() -> None:
    with locking(*(backup(f"night_{number}") for number in range(20))) as (store, served):
        served.says["object-lock"] = NONE
        assert all(entry.locked is None for entry in entries(store))
        assert served.asked == ["object-lock"]


def test_locks_are_those_of_the_commit_mark_and_end() -> None:
    with locking(*(backup(name) for name in ("free", "locked", "over", "held", "both"))) as (store, served):
        served.locks = {
            mark("locked"): ("GOVERNANCE", LATER),
            mark("over"): ("COMPLIANCE", EARLIER),
            mark("both"): ("COMPLIANCE", LATER),
            f"{BACKUPS}/free/meta/full_meta.json": ("GOVERNANCE", LATER),
        }
        served.legal_holds = {mark("held"), mark("both")}
        found = {entry.name: (entry.locked, entry.lock) for entry in entries(store)}
    until, day = LATER.isoformat(timespec="seconds"), f"{LATER:%Y-%m-%d %H:%M}"
    assert found == {
        "free": (None, ""),
        "locked": ({"mode": "GOVERNANCE", "until": until, "legal_hold": False}, f"locked until {day} (GOVERNANCE)"),
        "over": (None, ""),
        "held": ({"mode": "", "until": None, "legal_hold": True}, "under legal hold"),
        "both": ({"mode": "COMPLIANCE", "until": until, "legal_hold": True}, f"locked until {day} (COMPLIANCE) and under legal hold"),
    }


def test_what_may_not_be_asked_is_said_once_and_single_objects_are_believed() -> None:
    log = Lines()
    with locking(*(backup(f"night_{number}") for number in range(5))) as (store, served):
        served.says |= {"object-lock": DENIED, "versioning": VERSIONED}
        served.locks[mark("night_3")] = ("GOVERNANCE", LATER)
        assert [entry.name for entry in entries(store, log) if entry.locked] == ["night_3"]
    assert len([line for line in log.lines if "may not ask for the Object Lock" in line]) == 1


def test_one_backup_is_described_with_its_lock() -> None:
    with locking(backup("night")) as (store, served):
        assert describe(store, "night")["locked"] is None
        served.locks[mark("night")] = ("GOVERNANCE", LATER)
        until = LATER.isoformat(timespec="seconds")
        assert describe(store, "night")["locked"] == {"mode": "GOVERNANCE", "until": until, "legal_hold": False}
        served.locks[mark("night")] = ("GOVERNANCE", EARLIER)
        assert describe(store, "night")["locked"] is None


# ---- what is left alone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("legal", [False, True])
def test_a_locked_backup_is_not_deleted_and_the_error_says_until_when(legal: bool) -> None:
    files = backup("night")
    with locking(files) as (store, served):
        if legal:
            served.legal_holds = {mark("night")}
        else:
            served.locks = {mark("night"): ("GOVERNANCE", LATER)}
        with pytest.raises(StorageDenied) as raised:
            delete(store, "night", ME, Reporter(Lines()))
        assert served.keys == set(files)
        assert served.deletions == []
    said = "under legal hold" if legal else f"locked until {LATER:%Y-%m-%d %H:%M} (GOVERNANCE)"
    assert f"backup 'night' is {said} by the store. It cannot be deleted" in str(raised.value)


def test_a_lock_that_is_over_locks_nothing() -> None:
    with locking(backup("night")) as (store, served):
        served.locks = {mark("night"): ("COMPLIANCE", EARLIER)}
        assert delete(store, "night", ME, Reporter(Lines())).state == COMPLETE
        assert served.keys == set()


def test_a_locked_backup_is_not_replaced() -> None:
    with locking(backup("night")) as (store, served):
        check_replaceable(store, "night", "an-id")
        served.locks = {mark("night"): ("GOVERNANCE", LATER)}
        check_replaceable(store, "night", None)
        with pytest.raises(StorageDenied, match=r"'night' is locked until .* It cannot be replaced"):
            check_replaceable(store, "night", "an-id")


def test_retention_says_in_its_table_what_the_store_keeps_and_removes_the_rest() -> None:
    log = Lines()
    with locking(*(backup(name, data=1) for name in ("free", "locked", "held"))) as (store, served):
        served.locks, served.legal_holds = {mark("locked"): ("GOVERNANCE", LATER)}, {mark("held")}
        shown = apply_policy(store, ALL, ME, Reporter(Lines()), dry_run=True)
        done = apply_policy(store, ALL, ME, Reporter(log))
        assert {key.split("/")[1] for key in served.keys} == {"held", "locked"}
        assert served.asked.count("object-lock") == 2, "once a run"
    assert (done["table"], done["removed"], done["kept"]) == (shown["table"], ["free"], 2)
    rows = {line.split()[0]: line for line in done["table"][2:]}
    assert rows["locked"].endswith(f"keep    locked until {LATER:%Y-%m-%d %H:%M} (GOVERNANCE)")
    assert rows["held"].endswith("keep    under legal hold")


def test_a_backup_that_is_locked_after_it_was_looked_at_stays() -> None:
    with locking(backup("night")) as (store, served):
        (entry,) = entries(store)
        served.locks = {mark("night"): ("GOVERNANCE", LATER)}
        with pytest.raises(StorageDenied, match="locked until"):
            delete(store, "night", ME, Reporter(Lines()), expected=entry, bucket=BucketLock(True))
        assert served.keys == set(backup("night"))


def test_a_store_that_answers_nonsense_is_unknown_and_one_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with locking(backup("night")) as (store, served):
        served.says |= {"object-lock": Answer(400, b"<Error><Code>InvalidArgument</Code></Error>"), "versioning": VERSIONED}
        assert bucket_lock(store).can is None
        monkeypatch.setattr(store, "s3", store.boto3_client(retries={"max_attempts": 0}))
        served.says["object-lock"] = Answer(503, b"<Error><Code>SlowDown</Code></Error>")
        with pytest.raises(StorageError, match="SlowDown"):
            bucket_lock(store)
