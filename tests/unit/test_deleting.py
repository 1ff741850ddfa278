"""Deleting: in which order things go, what is never touched, and what is left wherever it stops."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import deleting
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, FACTS, HOLD, LEASE, MARK, UNFINISHED
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import BackupInUse, Cancelled, ConfigError, MilvusBackupError, StorageDenied
from airflow_provider_milvus_backup.core.lease import Holding, Lease, Owner
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from tests.unit.deletion_store import serving
from tests.unit.test_catalog import hold
from tests.unit.test_lease import Lines

ME, OTHER = Owner("dag/run/delete/-1"), Owner("dag/run/restore/-1")
RESTORING = Holding(OTHER, "restore backup 'nightly'")
READER = "provider/leases/0123456789abcdef.json"


def below(name: str, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{BACKUPS}/{name}/{key}": content for key, content in contents.items()}


def state(store: ObjectStore, name: str = "nightly") -> str:
    """Return what the catalog shows of a backup, empty when it shows nothing."""
    return next((entry.state for entry in read_catalog(store, name, unfinished=True).entries), "")


def removed(store: ObjectStore, name: str = "nightly", owner: Owner = ME, log: Lines | None = None) -> dict[str, Any]:
    return delete(store, name, owner, Reporter(log or Lines())).to_dict()


# ---- what goes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
def test_a_backup_goes_completely_and_its_neighbours_stay(ours: bool) -> None:
    gone, other = backup("nightly", ours=ours, data=5), {**backup("nightly_2", data=2), f"{BACKUPS}/nightly.txt": b"x", "nightly/x": b"x"}
    with serving(gone, other) as (store, served):
        told = removed(store)
        assert served.keys == set(other)
    assert (told["name"], told["uri"], told["state"]) == ("nightly", f"s3://{store.location.bucket}/{BACKUPS}/nightly", COMPLETE)
    assert (told["objects"], told["bytes"]) == (len(gone), sum(map(len, gone.values())))


def test_the_mark_goes_first_then_the_data_a_thousand_a_request_then_the_rest() -> None:
    with serving(backup("nightly", data=2500)) as (store, served):
        removed(store)
        assert served.deletions[0] == [f"{BACKUPS}/nightly/{MARK}"]
        parts = [{key.split("/")[2] for key in page} for page in served.deletions]
        assert parts == [{"meta"}, {"binlogs"}, {"binlogs"}, {"binlogs"}, {"meta"}, {"provider"}, {"provider"}]
        assert served.deletions[-1] == [f"{BACKUPS}/nightly/{LEASE}"]
        assert sorted(len(page) for page in served.deletions[1:4]) == [500, 1000, 1000]


def test_what_is_not_there_is_deleted_already_and_nothing_is_written() -> None:
    log = Lines()
    with serving(backup("other")) as (store, served):
        told = removed(store, log=log)
        assert served.keys == set(backup("other"))
        assert served.requests.keys() <= {"list", "get"}
    assert (told["state"], told["objects"], told["bytes"]) == ("missing", 0, 0)
    assert any("'nightly' is not in" in line and "nothing to delete" in line for line in log.lines)


def test_leftovers_of_either_tool_go() -> None:
    leftovers = {
        "begun": {"provider/attempt.json": b"{}", "binlogs/insert_log/1/2/3": b"x"},
        "foreign": {"binlogs/insert_log/1/2/3": b"x", "meta/segment_meta.json": b"x"},
        "damaged": {MARK: b"\xff", "bundle/insert_log/1/2/3": b"x"},
        "lease_alone": {LEASE: replace(RESTORING, seconds=0.0).to_json()},
    }
    with serving(*(below(name, contents) for name, contents in leftovers.items())) as (store, served):
        assert {name: removed(store, name)["state"] for name in leftovers} == {
            "begun": UNFINISHED,
            "foreign": UNFINISHED,
            "damaged": "damaged",
            "lease_alone": UNFINISHED,
        }
        assert served.keys == set()


# ---- what stays --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cat.jpg", "insert_log/1/2/3/0/4", "nightly/meta/backup_meta.json", "meta/readme.md"])
@pytest.mark.parametrize("root", [BACKUPS, ""])
def test_a_directory_that_is_no_backup_is_refused_by_name(root: str, key: str) -> None:
    key = f"{root}/files/{key}".lstrip("/")
    with serving({key: b"x"}, root=root) as (store, served):
        with pytest.raises(ConfigError, match=f"'files' in .* is not a backup: it holds '{key}'"):
            removed(store, "files")
        assert served.keys == {key}


@pytest.mark.parametrize("name", ["", "..", "a/b", "*", "nightly*", ".", "a" * 129])
def test_only_names_of_backups_are_looked_for(name: str) -> None:
    with serving(backup("nightly")) as (store, served):
        with pytest.raises(ConfigError, match="is not valid"):
            removed(store, name)
        assert served.requests == {}


def test_what_somebody_has_put_into_a_backup_stays() -> None:
    strays, log = below("nightly", {"notes/why.txt": b"x", "metadata": b"x", "binlogs.old/x": b"x"}), Lines()
    with serving(backup("nightly", data=3), strays) as (store, served):
        removed(store, log=log)
        assert served.keys == set(strays)
        assert state(store) == ""
    assert any("binlogs.old/x" in line and "no part of a backup and stays" in line for line in log.lines)


def test_a_backup_on_hold_is_refused_with_the_reason_the_owner_the_end_and_the_remedy() -> None:
    files = {**backup("nightly"), **below("nightly", {HOLD: hold(until="2100-01-01T00:00:00+00:00")})}
    with serving(files) as (store, served):
        with pytest.raises(ConfigError) as raised:
            removed(store)
        assert served.keys == set(files)
    for part in ("'nightly'", "audit", "of ann", "2100-01-01T00:00:00", "release_backup('nightly')"):
        assert part in str(raised.value)


def test_a_hold_that_is_over_holds_nothing() -> None:
    with serving(backup("nightly"), below("nightly", {HOLD: hold(until="2026-01-01T00:00:00+00:00")})) as (store, served):
        removed(store)
        assert served.keys == set()


@pytest.mark.parametrize("key", [LEASE, READER])
def test_a_backup_that_somebody_works_on_is_refused(key: str) -> None:
    with serving(backup("nightly")) as (store, served):
        served.put(f"{BACKUPS}/nightly/{key}", RESTORING.to_json())
        before = served.keys
        with pytest.raises(BackupInUse, match=r"dag/run/restore/-1, try 1 .* is about to restore backup 'nightly'"):
            removed(store)
        assert (served.keys, state(store)) == (before, COMPLETE)
        assert f"{BACKUPS}/nightly/{MARK}" not in {key for page in served.deletions for key in page}


def test_nobody_writes_a_backup_while_it_is_deleted() -> None:
    raised = []
    with serving(backup("nightly", data=3)) as (store, served):

        def begin(gone: list[str]) -> None:
            if "binlogs" in gone[0]:
                held = json.loads(served.objects[f"{store.location.bucket}/{BACKUPS}/nightly/{LEASE}"].content)
                raised.append((held["doing"], held["owner"]["identity"]))

        served.when_deleted = begin
        removed(store)
    assert raised == [("delete backup 'nightly'", ME.identity)]


def test_a_restore_that_begins_in_the_same_moment_keeps_its_backup() -> None:
    """The restore has written its lease and read the mark just before that goes."""
    files = backup("nightly", data=3)
    with serving(files) as (store, served):
        served.when_deleted = lambda _: served.put(f"{BACKUPS}/nightly/{READER}", RESTORING.to_json())
        with pytest.raises(BackupInUse, match="'nightly' is in use"):
            removed(store)
        assert served.deletions[0] == [f"{BACKUPS}/nightly/{MARK}"]
        assert served.keys == {*files, f"{BACKUPS}/nightly/{READER}"}
        assert store.read(f"{BACKUPS}/nightly/{MARK}") == files[f"{BACKUPS}/nightly/{MARK}"]
        assert state(store) == COMPLETE


def test_what_milvus_backup_may_be_writing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = below("nightly", {"binlogs/insert_log/1/2/3": b"x"})
    monkeypatch.setattr(deleting, "QUIET", datetime.now(timezone.utc) - datetime(2025, 1, 1, tzinfo=timezone.utc))
    with serving(foreign) as (store, served):
        with pytest.raises(BackupInUse, match="milvus-backup may be making it"):
            removed(store)
        assert served.keys == set(foreign)


# ---- wherever it stops -------------------------------------------------------------------------------------------------------


def test_objects_that_the_store_keeps_are_named_and_the_rest_of_the_data_goes() -> None:
    files = backup("nightly", data=1500)
    locked = sorted(key for key in files if "insert_log" in key)[5:10]
    with serving(files) as (store, served):
        served.refused = dict.fromkeys(locked, "AccessDenied: object is WORM protected")
        with pytest.raises(StorageDenied) as raised:
            removed(store)
        assert {key for key in served.keys if "insert_log" in key} == set(locked)
        assert state(store) == UNFINISHED
        assert f"refused to delete 5 objects of backup 'nightly': {locked[0]!r} (AccessDenied: object is WORM protected)" in str(
            raised.value
        )
        assert "Object Lock" in str(raised.value)
        served.refused = {}
        assert removed(store)["state"] == UNFINISHED
        assert served.keys == set()


def test_a_backup_whose_mark_the_store_keeps_stays_whole() -> None:
    files = backup("nightly", data=3)
    with serving(files) as (store, served):
        served.refused = {f"{BACKUPS}/nightly/{MARK}": "AccessDenied: object is WORM protected"}
        with pytest.raises(StorageDenied, match="nothing of the backup was deleted"):
            removed(store)
        assert (served.keys, state(store)) == (set(files), COMPLETE)


def test_an_object_that_the_store_is_too_busy_for_is_deleted_again() -> None:
    files = backup("nightly", data=3)
    busy = next(key for key in files if "insert_log" in key)
    with serving(files) as (store, served):
        served.refused = {busy: "SlowDown: later"}
        served.when_deleted = lambda gone: served.refused.clear() if "insert_log" in gone[0] else None
        assert removed(store)["objects"] == len(files)
        assert served.keys == set()
        assert [busy] in served.deletions


def test_dead_after_any_request_it_leaves_a_whole_backup_or_an_unlisted_one_and_a_retry_ends_it() -> None:
    files = backup("nightly", data=3)
    with serving(files) as (store, served):
        for life in range(1000):
            for key, content in files.items():
                served.put(key, content)
            served.life, dead = life, ObjectStore(store.location) if life % 10 == 0 else store
            try:
                removed(dead)
                break
            except MilvusBackupError:
                served.life = 10**9
            left = state(store)
            assert left in (COMPLETE, UNFINISHED, ""), life
            assert left != COMPLETE or set(files) <= served.keys, life
            assert [entry.name for entry in read_catalog(store).entries] == (["nightly"] if left == COMPLETE else []), life
            removed(store, owner=replace(ME, attempt=2))
            assert served.keys == set(), life
    assert 15 < life < 100


def test_a_kill_stops_between_two_requests_and_a_further_try_goes_on() -> None:
    data = 1000 * (2 * deleting.AT_ONCE + 1)
    with serving(backup("nightly", data=data)) as (store, served):
        served.when_deleted = lambda gone: store.patience.stop.set() if len(gone) == 1000 else None
        with pytest.raises(Cancelled, match="delete it again to go on"):
            removed(store)
        left = len([key for key in served.keys if "insert_log" in key])
        assert data - 1000 * (deleting.AT_ONCE + 1) <= left < data, "what is under way ends, and nothing new begins"
        store.patience.stop.clear()
        served.when_deleted = lambda _: None
        assert removed(store)["state"] == UNFINISHED
        assert served.keys == set()


# ---- a policy ----------------------------------------------------------------------------------------------------------------


def dated(name: str, day: int) -> dict[str, bytes]:
    """Return a backup that was made on a day of December 2025."""
    files = backup(name, data=2)
    key = f"{BACKUPS}/{name}/{FACTS}"
    return {**files, key: json.dumps({**json.loads(files[key]), "created": f"2025-12-{day:02}T02:00:00+00:00"}).encode()}


WEEK = {f"nightly_{day}": dated(f"nightly_{day}", day) for day in range(1, 8)}


def policy(store: ObjectStore, log: Lines | None = None, *, dry_run: bool = False, **rules: Any) -> dict[str, Any]:
    return apply_policy(store, RetentionPolicy(**rules), ME, Reporter(log or Lines()), dry_run=dry_run)


def test_a_dry_run_prints_the_table_of_the_real_run_and_touches_nothing() -> None:
    dry, real = Lines(), Lines()
    with serving(*WEEK.values(), backup("other")) as (store, served):
        before = served.keys
        shown = policy(store, dry, dry_run=True, keep_last=3, name_pattern="nightly_*")
        assert served.requests.keys() <= {"list", "get"}
        assert served.keys == before
        done = policy(store, real, keep_last=3, name_pattern="nightly_*")
        kept = {name: files for name, files in WEEK.items() if int(name[-1]) > 4} | {"other": backup("other")}
        assert served.keys == {key for files in kept.values() for key in files}
    assert shown == {**done, "dry_run": True}
    assert (done["kept"], done["removed"]) == (3, ["nightly_1", "nightly_2", "nightly_3", "nightly_4"])
    assert dry.lines[: len(done["table"])] == real.lines[: len(done["table"])] == done["table"]
    assert [line.split()[0] for line in done["table"][2:]] == sorted(WEEK, reverse=True)


def test_one_that_cannot_be_removed_stops_no_other_and_fails_the_run_at_the_end() -> None:
    log = Lines()
    with serving(*WEEK.values()) as (store, served):
        served.refused = {f"{BACKUPS}/nightly_2/{MARK}": "AccessDenied: locked"}
        with pytest.raises(StorageDenied, match=r"1 of 4 backups to remove could not be removed: nightly_2: .*AccessDenied: locked"):
            policy(store, log, keep_last=3)
        assert [entry.name for entry in read_catalog(store).entries] == ["nightly_7", "nightly_6", "nightly_5", "nightly_2"]
        assert set(WEEK["nightly_2"]) <= served.keys
    assert any(line.startswith("backup 'nightly_2' stays: ") for line in log.lines)


def test_what_is_held_or_in_use_stays_and_is_no_failure() -> None:
    with serving(*WEEK.values()) as (store, served):
        served.put(f"{BACKUPS}/nightly_1/{HOLD}", hold())
        served.put(f"{BACKUPS}/nightly_2/{READER}", RESTORING.to_json())
        done = policy(store, keep_last=3)
        assert (done["kept"], done["removed"]) == (5, ["nightly_3", "nightly_4"])


def test_a_backup_that_has_changed_since_the_table_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was replaced under the same name after the catalog was read."""
    plan = deleting.plan
    with serving(*WEEK.values()) as (store, served):

        def planned(*args: Any) -> Any:
            key = f"{BACKUPS}/nightly_1/{MARK}"
            served.put(key, json.dumps({**json.loads(WEEK["nightly_1"][key]), "id": "another"}).encode())
            return plan(*args)

        monkeypatch.setattr(deleting, "plan", planned)
        with pytest.raises(BackupInUse, match=r"1 of 4 backups .* nightly_1: .* has changed since it was looked at"):
            policy(store, keep_last=3)
        assert set(WEEK["nightly_1"]) <= served.keys
        assert state(store, "nightly_2") == ""


def test_a_store_that_dies_ends_the_run_at_once() -> None:
    with serving(*WEEK.values()) as (store, _):
        store.patience.stop.set()
        with pytest.raises(Cancelled):
            policy(store, keep_last=3)


def test_the_lease_of_a_deletion_is_an_ordinary_one() -> None:
    with serving(backup("nightly")) as (store, served):
        lease = Lease(store, f"{BACKUPS}/nightly/{LEASE}", OTHER, "write backup 'nightly'", Reporter(Lines()))
        lease.take()
        with pytest.raises(BackupInUse, match=r"cannot delete backup 'nightly': .* is about to write backup 'nightly'"):
            removed(store)
        lease.give_up()
        removed(store)
        assert served.keys == set()
