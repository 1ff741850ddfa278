"""A policy at work: what it refuses to begin, what it leaves for a retry, and what it leaves alone because it has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import deleting
from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.begun_deletions import deletion_of
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import ATTEMPT, FACTS, LEASE, UNFINISHED, VERIFIED
from airflow_provider_milvus_backup.core.errors import BackupInUse, ConfigError, StorageError
from airflow_provider_milvus_backup.core.lease import Holding, Owner
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from tests.unit.deletion_store import serving
from tests.unit.test_deleting import ME, WEEK, below, dated, policy, removed, state
from tests.unit.test_lease import Lines

GONE = {"keep_last": 1, "grace": timedelta()}


# ---- before anything goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["False", "True", "{{ params.dry_run }}", None, 0])
def test_a_dry_run_that_is_no_switch_is_refused(wrong: Any) -> None:
    with serving(*WEEK.values()) as (store, served):
        with pytest.raises(ConfigError, match=r"dry_run .* is neither True nor False"):
            policy(store, dry_run=wrong, keep_last=1)
        assert served.requests == {}


@pytest.mark.parametrize("dry_run", [True, False])
def test_backups_of_two_tasks_are_not_weighed_against_each_other_by_accident(dry_run: bool) -> None:
    names = [f"{dag}_2025120{day}T020000_backup" for dag in ("nightly", "hourly") for day in (1, 2)]
    with serving(*(dated(name, int(name.split("_")[1][7])) for name in names)) as (store, served):
        before = served.keys
        with pytest.raises(ConfigError, match=r"fits backups of 2 tasks \('hourly_\*_backup', 'nightly_\*_backup'\)"):
            policy(store, dry_run=dry_run, keep_last=1)
        assert served.keys == before
        done = policy(store, dry_run=dry_run, keep_last=1, group_by="prefix")
        assert sorted(done["removed"]) == ["hourly_20251201T020000_backup", "nightly_20251201T020000_backup"]


def test_a_pattern_that_fits_nothing_is_said() -> None:
    log = Lines()
    with serving(*WEEK.values()) as (store, _):
        assert policy(store, log, keep_last=1, name_pattern="my-dag_*")["kept"] == 0
    assert any("no backup in" in line and "name_pattern 'my-dag_*'" in line for line in log.lines)


@pytest.mark.parametrize(("name", "why"), [("None", "a template makes of nothing"), ("latest", "in verify and drill alone")])
def test_a_name_that_was_meant_for_none_is_no_success(name: str, why: str) -> None:
    with serving(*WEEK.values()) as (store, _):
        with pytest.raises(ConfigError, match=f"there is no backup '{name}' in .* {why}; name the backup to delete"):
            removed(store, name)
        assert len(read_catalog(store).entries) == len(WEEK)
    with serving(backup(name, ours=False)) as (store, served):  # milvus-backup lets people call one like this
        removed(store, name)
        assert served.keys == set()


# ---- what is returned ------------------------------------------------------------------------------------------------------------


def test_a_long_table_is_in_the_log_and_a_part_of_it_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "MAX_LINES", 4)
    log = Lines()
    with serving(*WEEK.values()) as (store, _):
        done = policy(store, log, dry_run=True, keep_last=3)
    assert (len(done["table"]), done["table"][-1]) == (5, "… and 5 more, which the log shows")
    assert sum(any(line.startswith(name) for name in WEEK) for line in log.lines) == len(WEEK)


# ---- what stays ------------------------------------------------------------------------------------------------------------------


def test_the_newest_good_backup_stays_when_the_newest_was_found_damaged() -> None:
    with serving(*WEEK.values()) as (store, served):
        found = {"version": 1, "backup_id": "id-of-nightly_7", "level": "objects", "time": "2025-12-08T00:00:00+00:00", "ok": False}
        served.put(f"{BACKUPS}/nightly_7/{VERIFIED}", json.dumps(found).encode())
        done = policy(store, keep_last=1)
        assert done["removed"] == [f"nightly_{day}" for day in range(1, 6)]
        assert state(store, "nightly_6") == state(store, "nightly_7") == "complete"


def test_an_attempt_that_somebody_went_on_with_since_the_table_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its phases a backup in three tasks holds no lease."""
    begun = Attempt("an-id", Owner("dag.backup")).to_json()
    plan = deleting.plan
    with serving(*WEEK.values(), below("begun", {ATTEMPT: begun})) as (store, served):
        new = dated("nightly_8", 31)
        facts = json.dumps({**json.loads(new[f"{BACKUPS}/nightly_8/{FACTS}"]), "created": "2026-02-01T00:00:00+00:00"}).encode()
        for key, content in {**new, f"{BACKUPS}/nightly_8/{FACTS}": facts}.items():
            served.put(key, content)

        def planned(*args: Any) -> Any:
            served.put(f"{BACKUPS}/begun/{ATTEMPT}", begun)
            return plan(*args)

        monkeypatch.setattr(deleting, "plan", planned)
        with pytest.raises(BackupInUse, match="begun: backup 'begun' has changed since it was looked at"):
            policy(store, **GONE)
        assert f"{BACKUPS}/begun/{ATTEMPT}" in served.keys


DEAD = Holding(ME, deletion_of("again"), seconds=0.0).to_json()
DATA = f"{BACKUPS}/again/binlogs/insert_log/1/2/3/3/0/4"


def test_what_milvus_backup_makes_anew_where_a_deletion_died_is_left_alone() -> None:
    with serving(backup("new", data=1)) as (store, served):
        served.put(f"{BACKUPS}/again/{LEASE}", DEAD)
        served.age(f"{BACKUPS}/again/{LEASE}", timedelta(hours=1))
        served.put(DATA, b"x")
        before = served.keys
        with pytest.raises(BackupInUse, match="milvus-backup may be making it"):
            removed(store, "again")
        assert policy(store, **GONE)["removed"] == []
        assert served.keys == before


@pytest.mark.parametrize("act", [removed, lambda store, _name: policy(store, **GONE)])
def test_the_rest_of_a_new_backup_of_milvus_backup_goes_where_its_deletion_died(act: Callable[[ObjectStore, str], Any]) -> None:
    with serving(backup("new", data=1)) as (store, served):
        served.put(DATA, b"x")
        served.put(f"{BACKUPS}/again/{LEASE}", DEAD)
        act(store, "again")
        assert served.keys == set(backup("new", data=1))


# ---- a store that is busy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["SlowDown", "SlowDownWrite", "InternalError", "ServiceUnavailable"])
def test_a_store_that_stays_too_busy_is_worth_a_retry_and_no_refusal(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "BUDGET", 0.0)
    files = backup("nightly", data=3)
    busy = next(key for key in files if "insert_log" in key)
    with serving(files) as (store, served):
        served.refused = {busy: f"{code}: later"}
        with pytest.raises(StorageError, match=rf"was too busy .* 1 object of backup 'nightly' \('{busy}': {code}: later\)") as raised:
            removed(store)
        assert (type(raised.value), raised.value.passing, raised.value.retryable) == (StorageError, True, True)
        assert (state(store), busy in served.keys) == (UNFINISHED, True)
        served.refused = {}
        removed(store)
        assert served.keys == set()


def test_a_policy_does_not_go_on_where_the_store_is_too_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "BUDGET", 0.0)
    with serving(*WEEK.values()) as (store, served):
        served.refused = {key: "SlowDown: later" for key in WEEK["nightly_1"] if "insert_log" in key}
        with pytest.raises(StorageError, match="was too busy"):
            policy(store, keep_last=3)
        assert state(store, "nightly_2") == "complete"
