"""A retention policy means what it says: spans of time, time zones, groups; and one that cannot be meant is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.names import task_name
from airflow_provider_milvus_backup.core.retention_policy import Duration, RetentionPolicy, prefix
from tests.unit.test_retention import BERLIN, NOW, UTC, Backup, at, kept, nightly, why

# ---- spans of time ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("within", "oldest"),
    [
        ("14d", "2026-11-08"),
        ("2w", "2026-11-08"),
        ("1w7d", "2026-11-08"),
        ("335h", "2026-11-09"),
        ("1m", "2026-10-22"),
        ("3m1d", "2026-08-21"),
        ("1y", "2025-11-22"),
        (" 1y1m1w1d1h ", "2025-10-14"),
        (timedelta(days=14), "2026-11-08"),
        (timedelta(days=13, hours=23), "2026-11-09"),
        ("999999y", "2025-10-11"),
        ("999999w", "2025-10-11"),
        ("999999h", "2025-10-11"),
        (timedelta.max, "2025-10-11"),
    ],
)
def test_within_reaches_back_from_the_newest_its_end_included(within: timedelta | str, oldest: str) -> None:
    assert kept(nightly(408), keep_within=within)[-1][:10] == oldest


def test_a_month_before_the_31st_is_the_last_of_a_shorter_month() -> None:
    assert Duration.parse("1m", "").before(datetime(2026, 3, 31, 2, tzinfo=UTC), UTC) == datetime(2026, 2, 28, 2, tzinfo=UTC)
    assert Duration.parse("1y", "").before(datetime(2028, 2, 29, 2, tzinfo=UTC), UTC) == datetime(2027, 2, 28, 2, tzinfo=UTC)


# ---- time zones and clocks that are changed ---------------------------------------------------------------------------------------


def test_days_begin_at_midnight_of_the_policys_time_zone() -> None:
    backups = [at("2026-11-21T23:30"), at("2026-11-21T22:30"), at("2026-11-21T15:30"), at("2026-11-21T14:30")]
    assert kept(backups, keep_daily=2) == ["2026-11-21T23:30", "2026-11-21T14:30"]
    assert kept(backups, keep_daily=2, timezone="Europe/Berlin") == ["2026-11-21T23:30", "2026-11-21T22:30"]
    assert kept(backups, keep_daily=2, timezone="Asia/Tokyo") == ["2026-11-21T23:30", "2026-11-21T14:30"]


def test_the_zone_in_which_a_time_was_recorded_does_not_matter() -> None:
    backups = [*nightly(30), at("2026-10-25T00:30"), at("2026-10-25T01:30")]
    policy = {"keep_daily": 7, "keep_hourly": 30, "timezone": "Europe/Berlin"}
    for zone in (BERLIN, ZoneInfo("America/New_York"), timezone(timedelta(hours=14))):
        moved = [replace(backup, time=backup.time.astimezone(zone)) for backup in backups if backup.time]
        assert why(moved, **policy) == why(backups, **policy)


def test_a_day_of_23_hours_is_one_day() -> None:
    # In Berlin, 29 March 2026 lasts from 23:00 to 22:00 UTC.
    backups = [at(f"2026-03-{clock}") for clock in ("29T22:00", "29T21:59", "28T23:00", "28T22:59", "27T23:00")]
    assert kept(backups, keep_daily=3, timezone="Europe/Berlin") == ["2026-03-29T22:00", "2026-03-29T21:59", "2026-03-28T22:59"]


def test_a_day_of_25_hours_is_one_day() -> None:
    # In Berlin, 25 October 2026 lasts from 22:00 to 23:00 UTC.
    backups = [at(f"2026-10-{clock}") for clock in ("25T23:00", "25T22:59", "25T22:00", "24T22:00", "24T21:59", "23T22:00")]
    assert kept(backups, keep_daily=3, timezone="Europe/Berlin") == ["2026-10-25T23:00", "2026-10-25T22:59", "2026-10-24T21:59"]


def test_the_hour_that_is_repeated_is_two_hours() -> None:
    # 02:30 twice in Berlin, one hour apart; the second is the newer.
    first, second = at("2026-10-25T00:30"), at("2026-10-25T01:30")
    before = at("2026-10-24T23:30")
    for zone in (UTC, BERLIN):
        twice = [replace(backup, time=backup.time.astimezone(zone)) for backup in (first, second) if backup.time]
        assert kept([*twice, before], keep_hourly=2, timezone="Europe/Berlin") == [second.name, first.name]
        assert kept(twice, keep_last=1) == [second.name]
        assert kept(twice, keep_within=timedelta(minutes=59)) == [second.name]
        assert kept(twice, keep_within="1h") == [second.name, first.name]


def test_within_counts_exact_hours_from_the_second_of_two_equal_clock_readings() -> None:
    second = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert Duration.parse("4h", "").before(second, BERLIN) == datetime(2026, 10, 24, 21, 30, tzinfo=UTC)


@pytest.mark.parametrize("evening", ["2026-03-29", "2026-10-25"], ids=["clocks go forward", "clocks go back"])
def test_one_day_within_is_last_night_even_if_the_day_had_23_or_25_hours(evening: str) -> None:
    newest = datetime.fromisoformat(evening).replace(hour=4, tzinfo=BERLIN)
    nights = [Backup(f"night{i}", newest - timedelta(days=i)) for i in range(3)]
    assert kept(nights, keep_within="1d", timezone="Europe/Berlin") == ["night0", "night1"]


# ---- groups --------------------------------------------------------------------------------------------------------------------


def names_of(dag: str, task: str, index: int = -1, run: str = "scheduled") -> list[str]:
    runs = {f"{run}__2026-11-{day}T02:00:00+00:00": f"202611{day}T020000" for day in (20, 21, 22)}
    return [task_name(dag, run_id, task, index, date, whole_second=True) for run_id, date in runs.items()]


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (names_of("nightly", "backup"), "nightly_*_backup"),
        (names_of("nightly", "backup", run="manual"), "nightly_*_backup"),
        (names_of("nightly", "backup", 3), "nightly_*_backup_3"),
        (names_of("a.b", "group.backup"), "a_b_*_group_backup"),
        ([task_name("dag", f"asset_triggered__{i}", "task", -1, None, whole_second=True) for i in range(3)], "dag_task"),
        (["shop_20261120", "shop_20261121", "shop20261122"], "shop"),
        (["shop_2026_11_20_02_00_00", "shop_2026_11_21", "shop_2026_11_22_02_00_00_123456789"], "shop"),
        (["shop_20261120T020000", "shop_20261121_0200", "shop_202611220200"], "shop"),
    ],
)
def test_backups_of_one_task_share_a_prefix(names: list[str], group: str) -> None:
    assert len(set(names)) == 3
    assert [prefix(name) for name in names] == [group] * 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (names_of("a_b", "c"), names_of("a", "b_c")),
        (names_of("a", "b", 1), names_of("a", "b", 2)),
        (names_of("d" * 120, "one"), names_of("d" * 120, "other")),
        (names_of("d" * 95, "task", 1), names_of("d" * 95, "task", 2)),
        (names_of("d" * 92, "task_task", 1), names_of("d" * 92, "task_task", 2)),
        (["tenant_123456789012"], ["tenant_123456789013"]),
        (["item_11120261122"], ["item_11120261121"]),
        (["before_upgrade"], ["after_upgrade"]),
        (["v_20261399"], ["v_20261398"]),
    ],
)
def test_names_of_different_things_do_not_share_a_prefix(one: list[str], other: list[str]) -> None:
    assert not {prefix(name) for name in one} & {prefix(name) for name in other}


def test_groups_are_judged_alone() -> None:
    backups = [Backup(name, NOW - timedelta(days=i)) for dag in ("a", "b") for i, name in enumerate(reversed(names_of(dag, "t")))]
    lone = Backup("before_upgrade", NOW - timedelta(days=900))
    assert kept([*backups, lone], keep_last=1, group_by="prefix") == ["a_20261122T020000_t", "b_20261122T020000_t", "before_upgrade"]
    assert kept([*backups, lone], keep_last=1) == ["a_20261122T020000_t", "b_20261122T020000_t"]


def test_a_group_is_searched_anywhere_in_the_name() -> None:
    backups = [Backup(name, NOW - timedelta(days=i)) for i, name in enumerate(("n2_shop", "n1_shop", "n2_docs", "n1_docs"))]
    assert kept(backups, keep_last=1, group_by="_([a-z]+)$") == ["n2_shop", "n2_docs"]


def test_an_attempt_is_measured_against_its_own_group() -> None:
    backups = [Backup("a_1", NOW), Backup("b_1", NOW - timedelta(days=9), "unfinished")]
    assert kept(backups, keep_last=1, group_by=r"^(\w)_") == ["a_1", "b_1"]
    assert kept(backups, keep_last=1) == ["a_1"]


def test_a_name_without_a_group_stays() -> None:
    backups = [Backup(name, NOW - timedelta(days=i)) for i, name in enumerate(("a_1", "b_1", "a_2", "other", "x"))]
    assert why(backups, keep_last=1, group_by="(?:(a|b)_|x)") == {
        "a_1": ["last 1/1"],
        "b_1": ["last 1/1"],
        "a_2": ["no rule keeps it"],
        "other": ["group_by finds no group in its name"],
        "x": ["group_by finds no group in its name"],
    }


# ---- bad input -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, "give it at least one of keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly or keep_within"),
        ({"min_count": 5}, "keeps nothing: give it at least one of"),
        ({"min_count": 0, "allow_empty": True}, "keeps nothing: give it at least one of"),
        ({"keep_last": 0}, "keeps nothing (keep_last=0): make one of them positive"),
        ({"keep_daily": 0, "keep_weekly": 0}, "keeps nothing (keep_daily=0, keep_weekly=0): make one of them positive"),
        ({"keep_daily": -1}, "keep_daily -1 is not a count"),
        ({"keep_last": True}, "keep_last True is not a count"),
        ({"keep_yearly": "7"}, "keep_yearly '7' is not a count; use a whole number that is not negative"),
        ({"keep_weekly": 1.5}, "keep_weekly 1.5 is not a count"),
        ({"keep_last": 1, "min_count": -1}, "min_count -1 is not a count"),
        ({"keep_last": 1, "min_count": None}, "min_count None is not a count"),
        ({"keep_last": 1, "min_count": 0}, "min_count=0 would let the last backup go; use 1 or more, or set allow_empty=True"),
        ({"keep_last": 1, "allow_empty": True}, "allow_empty contradicts min_count=1"),
        ({"keep_last": 0, "min_count": 0, "allow_empty": "False"}, "allow_empty 'False' is neither True nor False"),
        ({"keep_last": 3, "min_count": 10, "keep_daily": 7}, "keep_last=3 contradicts min_count=10, which keeps more"),
        ({"keep_last": 1, "timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus' is not known here; use an IANA name such as `UTC`"),
        ({"keep_last": 1, "timezone": "Europe"}, "timezone 'Europe' is not known here"),
        ({"keep_last": 1, "timezone": ""}, "timezone '' is not known here"),
        ({"keep_last": 1, "timezone": "/etc/passwd"}, "timezone '/etc/passwd' is not known here"),
        ({"keep_last": 1, "timezone": "../zone"}, "timezone '../zone' is not known here"),
        ({"keep_last": 1, "timezone": "a\0b"}, "timezone 'a\\x00b' is not known here"),
        ({"keep_last": 1, "timezone": None}, "timezone None is not known here"),
        ({"keep_last": 1, "timezone": 2}, "timezone 2 is not known here"),
        ({"keep_within": "14"}, "keep_within '14' is not a time span; write years, months, weeks, days and hours in this order"),
        ({"keep_within": ""}, "keep_within '' is not a time span"),
        ({"keep_within": "14 days"}, "keep_within '14 days' is not a time span"),
        ({"keep_within": "4h14d"}, "keep_within '4h14d' is not a time span"),
        ({"keep_within": "-1d"}, "keep_within '-1d' is not a time span"),
        ({"keep_within": "9999999d"}, "keep_within '9999999d' is not a time span"),
        ({"keep_within": 14}, "keep_within 14 is not a time span"),
        ({"keep_within": "0d"}, "keep_within '0d' is no time at all"),
        ({"keep_within": timedelta()}, "is no time at all; leave it out"),
        ({"keep_within": timedelta(days=-1)}, "keep_within -1 day, 0:00:00 is negative"),
        ({"keep_last": 1, "grace": "soon"}, "grace 'soon' is not a time span"),
        ({"keep_last": 1, "grace": None}, "grace None is not a time span"),
        ({"keep_last": 1, "name_pattern": ""}, "name_pattern '' fits no name; `*` fits all of them"),
        ({"keep_last": 1, "name_pattern": None}, "name_pattern None fits no name"),
        ({"keep_last": 1, "group_by": "name"}, "group_by 'name' has 0 groups"),
        ({"keep_last": 1, "group_by": "(a)(b)"}, "group_by '(a)(b)' has 2 groups"),
        ({"keep_last": 1, "group_by": "(a"}, "group_by '(a' is neither empty, `prefix` nor a regular expression"),
        ({"keep_last": 1, "group_by": None}, "group_by None is neither empty"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        RetentionPolicy(**policy)
    assert message in str(refused.value)
