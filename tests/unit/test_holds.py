"""Holds: what they ask for, what they keep from happening, and when they are over."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import HOLD, LEASE, MARK
from airflow_provider_milvus_backup.core.deleting import apply_policy, delete
from airflow_provider_milvus_backup.core.errors import BackupInUse, BackupNotFound, ConfigError, TakenOver
from airflow_provider_milvus_backup.core.holds import hold, release
from airflow_provider_milvus_backup.core.lease import Holding, Owner
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.catalog import backup
from benchmarks.collection import BACKUPS
from tests.unit.deletion_store import serving
from tests.unit.test_lease import Lines

ME = Owner("dag/run/hold/-1")
KEY = f"{BACKUPS}/nightly/{HOLD}"
SOON = datetime.now(timezone.utc) + timedelta(days=30)


def held(store: ObjectStore, reason: Any = "audit", owner: Any = "ann", until: Any = None, name: str = "nightly") -> dict[str, Any]:
    return hold(store, name, reason, owner, until, ME, Reporter(Lines()))


def released(store: ObjectStore) -> dict[str, Any] | None:
    return release(store, "nightly", ME, Reporter(Lines()))


def shown(store: ObjectStore) -> dict[str, Any] | None:
    (found,) = read_catalog(store, "nightly", unfinished=True).entries
    return found.hold


@pytest.mark.parametrize("ours", [True, False])
def test_a_hold_is_what_the_catalog_shows_until_it_is_released(ours: bool) -> None:
    files = backup("nightly", ours=ours)
    with serving(files) as (store, served):
        told = held(store, " audit of 2026 ", "ann", SOON)
        assert shown(store) == told
        assert (told["reason"], told["owner"], told["until"]) == ("audit of 2026", "ann", SOON.isoformat(timespec="seconds"))
        assert abs(datetime.fromisoformat(told["since"]) - datetime.now(timezone.utc)) < timedelta(minutes=1)
        assert served.keys == {*files, KEY}
        assert released(store) == told
        assert (shown(store), served.keys) == (None, set(files))
        assert released(store) is None


def test_a_hold_without_an_end_is_kept_from_deletion_and_retention() -> None:
    with serving(backup("nightly"), backup("later")) as (store, served):
        held(store)
        with pytest.raises(ConfigError, match="on hold of ann without an end: audit"):
            delete(store, "nightly", ME, Reporter(Lines()))
        kept = apply_policy(store, RetentionPolicy(keep_last=0, min_count=0, allow_empty=True), ME, Reporter(Lines()))
        assert kept["removed"] == ["later"]
        assert set(backup("nightly")) <= served.keys
        released(store)
        delete(store, "nightly", ME, Reporter(Lines()))
        assert served.keys == set()


def test_a_hold_placed_between_the_table_and_the_deletion_is_kept() -> None:
    with serving(backup("nightly")) as (store, served):
        entry = read_catalog(store, "nightly").entries[0]
        held(store)
        with pytest.raises(ConfigError, match="on hold"):
            delete(store, "nightly", ME, Reporter(Lines()), expected=entry)
        assert f"{BACKUPS}/nightly/{MARK}" in served.keys


def test_a_hold_that_came_too_late_for_a_deletion_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever placed it was asleep for so long that another run has taken the lease."""
    with serving(backup("nightly")) as (store, served):
        write = store.write

        def late(key: str, content: bytes) -> None:
            served.put(f"{BACKUPS}/nightly/{LEASE}", Holding(Owner("dag/run/thin/-1"), "delete backup 'nightly'").to_json())
            write(key, content)

        monkeypatch.setattr(store, "write", late)
        with pytest.raises(TakenOver, match="another run has taken over to put backup 'nightly' on hold"):
            held(store)


def test_whoever_holds_what_is_not_complete_is_told_so() -> None:
    log = Lines()
    with serving({f"{BACKUPS}/nightly/binlogs/insert_log/1/2": b"x"}) as (store, _):
        hold(store, "nightly", "audit", "ann", None, ME, Reporter(log))
    assert any("'nightly' is unfinished, so the hold keeps what there is of it" in line for line in log.lines)


def test_the_same_owner_may_change_a_hold_and_nobody_else() -> None:
    with serving(backup("nightly")) as (store, _):
        held(store, until=SOON)
        changed = held(store, "a longer audit")
        assert shown(store) == changed
        with pytest.raises(ConfigError, match=r"is on hold of ann without an end: a longer audit. Release it first, if ann agrees"):
            held(store, owner="bob")
        assert shown(store) == changed


def test_anybody_may_hold_what_no_longer_is_on_hold() -> None:
    over = {"version": 1, "reason": "old", "owner": "bob", "until": "2026-01-01T00:00:00+00:00", "since": "2025-12-01T00:00:00+00:00"}
    with serving(backup("nightly"), {KEY: json.dumps(over).encode()}) as (store, _):
        assert shown(store) is None
        assert held(store)["owner"] == "ann"


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": ""},
        {"reason": "  "},
        {"reason": None},
        {"owner": " "},
        {"owner": 7},
        {"until": ""},
        {"until": "tomorrow"},
        {"until": "2100-01-01"},
        {"until": datetime(2100, 1, 1)},  # noqa: DTZ001 (that is what is wrong)
        {"until": 4102444800},
        {"until": "2025-01-01T00:00:00Z"},
    ],
    ids=repr,
)
def test_a_hold_without_a_reason_an_owner_or_an_end_in_the_future_is_refused(wrong: dict[str, Any]) -> None:
    with serving(backup("nightly")) as (store, served):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            held(store, **wrong)
        assert served.keys == set(backup("nightly"))


def test_what_is_not_there_or_no_backup_cannot_be_held() -> None:
    with serving(backup("nightly_1"), {f"{BACKUPS}/photos/cat.jpg": b"x"}) as (store, served):
        before = served.keys
        with pytest.raises(BackupNotFound, match=r"'nightly' does not exist.*nightly_1"):
            held(store)
        with pytest.raises(BackupNotFound, match="'nightly' does not exist"):
            released(store)
        with pytest.raises(BackupNotFound, match="'photos'"):
            held(store, name="photos")
        with pytest.raises(ConfigError, match="not valid"):
            held(store, name="../nightly")
        assert served.keys == before


def test_a_backup_that_is_being_deleted_cannot_be_held() -> None:
    with serving(backup("nightly")) as (store, served):
        served.put(f"{BACKUPS}/nightly/{LEASE}", Holding(Owner("dag/run/delete/-1"), "delete backup 'nightly'").to_json())
        with pytest.raises(BackupInUse, match="is about to delete backup 'nightly'"):
            held(store)
        assert KEY not in served.keys
