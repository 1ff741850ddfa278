"""Traps in which a rule that looks right would delete the last good copy: each is a promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.catalog_entry import CatalogEntry
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.names import task_name
from airflow_provider_milvus_backup.core.retention import check_kinds
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy
from tests.unit.test_retention import NOW, at, kept, nightly, why

# ---- damage that is known ------------------------------------------------------------------------------------------------------


def test_a_backup_that_was_found_damaged_is_no_reason_for_a_good_one_to_go() -> None:
    newest, *others = nightly(4)
    assert kept([newest, *others], keep_last=1) == [newest.name]
    damaged = replace(newest, found_damaged=True)
    assert kept([damaged, *others], keep_last=1) == [newest.name, others[0].name]
    assert kept([damaged, *others], keep_daily=2) == [newest.name, others[0].name, others[1].name]
    assert kept([damaged, *others], keep_within="1d") == [newest.name, others[0].name, others[1].name]


def test_a_backup_that_was_found_damaged_stays_and_says_so() -> None:
    backups = [*nightly(2), at("2026-01-01T02:00", found_damaged=True)]
    assert why(backups, keep_last=2)["2026-01-01T02:00"] == ["damaged, as its last verification says: never removed by a policy"]


def test_an_attempt_does_not_go_for_a_backup_that_was_found_damaged() -> None:
    attempt = at("2026-11-01T02:00", state="unfinished")
    assert kept([at("2026-11-22T02:00", found_damaged=True), attempt], keep_last=1) == ["2026-11-22T02:00", attempt.name]


def test_the_catalog_says_what_the_last_verification_found() -> None:
    entry = CatalogEntry("nightly", "complete", created=NOW)
    assert [replace(entry, verified=found).found_damaged for found in (None, {"ok": True}, {"ok": False})] == [False, False, True]


# ---- backups without data --------------------------------------------------------------------------------------------------------


def test_backups_of_a_milvus_that_lost_everything_push_out_none_with_data() -> None:
    full, empty = nightly(3, "2026-11-10T02:00"), [replace(backup, without_data=True) for backup in nightly(10)]
    assert kept([*full, *empty], keep_last=2) == [*(one.name for one in empty[:2]), *(one.name for one in full[:2])]
    assert kept(full, keep_last=2) == [one.name for one in full[:2]]


def test_backups_without_data_say_that_they_are_judged_apart() -> None:
    backups = [at("2026-11-22T02:00", without_data=True), at("2026-11-21T02:00", without_data=True), at("2026-11-20T02:00")]
    assert why(backups, keep_last=1) == {
        "2026-11-22T02:00": ["last 1/1", "without data, so judged apart"],
        "2026-11-21T02:00": ["no rule keeps it", "without data, so judged apart"],
        "2026-11-20T02:00": ["last 1/1"],
    }


def test_an_attempt_does_not_go_for_a_backup_without_data() -> None:
    attempt = at("2026-11-01T02:00", state="unfinished")
    assert kept([at("2026-11-22T02:00", without_data=True), attempt], keep_last=1) == ["2026-11-22T02:00", attempt.name]


@pytest.mark.parametrize(
    ("found", "empty"),
    [
        ({"strategy": "meta_only", "size": 10}, True),
        ({"strategy": "flush", "size": 0}, True),
        ({"size": 0}, True),  # the official tool does not say how a backup was made
        ({"strategy": "flush", "size": 1}, False),
        ({"size": None}, False),
    ],
)
def test_the_catalog_says_which_backups_hold_no_data(found: dict[str, Any], empty: bool) -> None:
    assert CatalogEntry("nightly", "complete", created=NOW, **found).without_data is empty
    assert not CatalogEntry("nightly", "unfinished", written=NOW, **found).without_data


# ---- backups of several tasks ------------------------------------------------------------------------------------------------------


def made(dag: str, task: str, index: int = -1, day: int = 22) -> CatalogEntry:
    moment = NOW - timedelta(days=22 - day)
    name = task_name(dag, f"scheduled__{moment.isoformat()}", task, index, f"{moment:%Y%m%dT%H%M%S}", whole_second=True)
    return CatalogEntry(name, "complete", created=moment, size=1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (made("nightly", "backup"), made("hourly", "backup")),
        (made("nightly", "backup"), made("nightly", "backup_hot", day=21)),
        (made("nightly", "backup", 0), made("nightly", "backup", 1)),
        (made("nightly", "backup"), made("nightly_hot", "backup")),
    ],
)
def test_backups_of_several_tasks_are_not_weighed_against_each_other(one: CatalogEntry, other: CatalogEntry) -> None:
    told = r"fits backups of 2 tasks \(.*\), and without group_by .* Nothing was deleted: set group_by='prefix'"
    with pytest.raises(ConfigError, match=told):
        check_kinds([one, other], RetentionPolicy(keep_last=1))
    for said in ({"group_by": "prefix"}, {"group_by": "()"}, {"name_pattern": one.name}):
        check_kinds([one, other], RetentionPolicy(keep_last=1, **said))  # type: ignore[arg-type]
    check_kinds([one, replace(other, state="unfinished")], RetentionPolicy(keep_last=1))


def test_backups_of_one_task_and_of_names_that_people_chose_are_judged_together() -> None:
    names = [CatalogEntry(name, "complete", created=NOW) for name in ("before_upgrade", "shop_20261122", "docs_20261121")]
    check_kinds([made("nightly", "backup"), made("nightly", "backup", day=21), *names], RetentionPolicy(keep_last=1))


# ---- attempts ----------------------------------------------------------------------------------------------------------------------


def test_attempts_that_are_held_or_leased_stay() -> None:
    old = [at("2026-01-01T02:00", state="unfinished", held=True), at("2026-01-02T02:00", state="unfinished", leased=True)]
    assert why([*nightly(1), *old], keep_last=1) == {
        "2026-11-22T02:00": ["last 1/1"],
        "2026-01-01T02:00": ["on hold"],
        "2026-01-02T02:00": ["in use"],
    }
