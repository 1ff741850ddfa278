"""Retention keeps what its rules promise, says why, and deletes nothing on account of a clock, a name or a missing backup."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_milvus_backup.core.catalog_entry import CatalogEntry
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.retention import plan, table
from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)  # a Sunday


@dataclass(frozen=True)
class Backup:
    name: str
    time: datetime | None
    state: str = "complete"
    held: bool = False
    leased: bool = False
    lock: str = ""
    size: int | None = 1024
    found_damaged: bool = False
    without_data: bool = False


def at(text: str, **changes: Any) -> Backup:
    """A backup named after its time, which is in UTC unless it says otherwise."""
    time = datetime.fromisoformat(text)
    return Backup(text, time if time.tzinfo else time.replace(tzinfo=UTC), **changes)


def nightly(count: int, last: str = "2026-11-22T02:00") -> list[Backup]:
    newest = datetime.fromisoformat(last).replace(tzinfo=UTC)
    return [at((newest - timedelta(days=i)).isoformat()[:16]) for i in range(count)]


def kept(backups: Iterable[Backup], now: datetime = NOW, /, **policy: Any) -> list[str]:
    return [decision.backup.name for decision in plan(backups, RetentionPolicy(**policy), now) if decision.keep]


def why(backups: Iterable[Backup], now: datetime = NOW, /, **policy: Any) -> dict[str, list[str]]:
    return {decision.backup.name: decision.reasons for decision in plan(backups, RetentionPolicy(**policy), now)}


# ---- golden tables -------------------------------------------------------------------------------------------------------------


def test_two_hundred_nights_with_7_daily_4_weekly_12_monthly() -> None:
    decisions = plan(nightly(200), RetentionPolicy(keep_daily=7, keep_weekly=4, keep_monthly=12), NOW)
    assert len(decisions) == 200
    assert {item.backup.name[:10]: "; ".join(item.reasons) for item in decisions if item.keep} == {
        "2026-11-22": "daily 1/7; weekly 1/4; monthly 1/12",
        "2026-11-21": "daily 2/7",
        "2026-11-20": "daily 3/7",
        "2026-11-19": "daily 4/7",
        "2026-11-18": "daily 5/7",
        "2026-11-17": "daily 6/7",
        "2026-11-16": "daily 7/7",
        "2026-11-15": "weekly 2/4",
        "2026-11-08": "weekly 3/4",
        "2026-11-01": "weekly 4/4",
        "2026-10-31": "monthly 2/12",
        "2026-09-30": "monthly 3/12",
        "2026-08-31": "monthly 4/12",
        "2026-07-31": "monthly 5/12",
        "2026-06-30": "monthly 6/12",
        "2026-05-31": "monthly 7/12",
        "2026-05-07": "monthly 8/12, the oldest",
    }
    assert {reason for item in decisions if not item.keep for reason in item.reasons} == {"no rule keeps it"}


def test_four_years_pruned_every_night_end_as_if_pruned_once() -> None:
    policy = RetentionPolicy(keep_daily=7, keep_weekly=4, keep_monthly=12, keep_yearly=2)
    stock: list[Backup] = []
    for backup in reversed(nightly(1461)):
        assert backup.time
        stock = [decision.backup for decision in plan([*stock, backup], policy, backup.time) if decision.keep]
    assert [backup.name[:10] for backup in stock] == [
        *(f"2026-11-{day}" for day in ("22", "21", "20", "19", "18", "17", "16", "15", "08", "01")),
        *("2026-10-31", "2026-09-30", "2026-08-31", "2026-07-31", "2026-06-30", "2026-05-31", "2026-04-30", "2026-03-31", "2026-02-28"),
        *("2026-01-31", "2025-12-31"),
    ]


def test_the_table_of_a_day_shows_every_reason() -> None:
    backups = [
        at("2026-11-22T02:00", size=12 * 1024**3),
        at("2026-11-21T02:00", size=13_000_000_000),
        at("2026-11-20T02:00", held=True),
        at("2026-11-19T02:00", leased=True),
        at("2026-11-18T02:00", size=None),
        at("2026-11-18T01:00", state="damaged"),
        at("2026-11-22T03:00", state="unfinished"),
        at("2026-11-21T03:00", state="unfinished"),
        at("2026-11-20T03:00", state="unfinished"),
        at("2026-11-19T03:00", state="unfinished", leased=True),
        at("2027-01-01T00:00"),
        Backup("no_time", None),
    ]
    assert table(plan(backups, RetentionPolicy(keep_last=2), NOW)) == [
        "backup            time (UTC)           size              why",
        "----------------  -------------------  --------  ------  ----------------------------------------------------------------------",
        "2027-01-01T00:00  2027-01-01 00:00:00     1 KiB  keep    its time is in the future",
        "2026-11-22T03:00  2026-11-22 03:00:00     1 KiB  keep    unfinished, and no newer backup is complete",
        "2026-11-22T02:00  2026-11-22 02:00:00    12 GiB  keep    last 1/2",
        "2026-11-21T03:00  2026-11-21 03:00:00     1 KiB  keep    unfinished, not older than the newest complete backup by more than 24h",
        "2026-11-21T02:00  2026-11-21 02:00:00  12.1 GiB  keep    last 2/2",
        "2026-11-20T03:00  2026-11-20 03:00:00     1 KiB  remove  unfinished, and older than the newest complete backup by more than 24h",
        "2026-11-20T02:00  2026-11-20 02:00:00     1 KiB  keep    on hold",
        "2026-11-19T03:00  2026-11-19 03:00:00     1 KiB  keep    in use",
        "2026-11-19T02:00  2026-11-19 02:00:00     1 KiB  keep    in use",
        "2026-11-18T02:00  2026-11-18 02:00:00         ?  remove  no rule keeps it",
        "2026-11-18T01:00  2026-11-18 01:00:00     1 KiB  keep    damaged: never removed by a policy",
        "no_time           unknown                 1 KiB  keep    its time is unknown",
    ]


def test_entries_of_the_catalog_are_judged() -> None:
    entries = [
        CatalogEntry("newest", "complete", created=NOW, committed=NOW + timedelta(hours=1), size=1),
        CatalogEntry("held", "complete", created=NOW - timedelta(days=1), hold={"reason": "audit"}),
        CatalogEntry("in_use", "complete", committed=NOW - timedelta(days=2), leases=["a restore"]),
        CatalogEntry("left_over", "unfinished", written=NOW - timedelta(days=3)),
        CatalogEntry("unreadable", "unreadable"),
        CatalogEntry("old", "complete", created=NOW - timedelta(days=4)),
    ]
    decisions = plan(entries, RetentionPolicy(keep_last=1), NOW)
    assert [item.backup for item in decisions if not item.keep] == [entries[3], entries[5]]


def test_an_empty_catalog_gives_a_table_without_rows() -> None:
    decisions = plan(list[Backup](), RetentionPolicy(keep_last=1), NOW)
    assert decisions == []
    assert table(decisions)[0].split() == ["backup", "time", "(UTC)", "size", "why"]
    assert len(table(decisions)) == 2


# ---- the rules -----------------------------------------------------------------------------------------------------------------


def test_last_keeps_the_newest_by_time_whatever_their_names() -> None:
    backups = [Backup(name, NOW - timedelta(hours=age)) for name, age in (("z_v10", 1), ("a_v9", 2), ("b_v11", 0), ("c", 3))]
    assert kept(backups, keep_last=2) == ["b_v11", "z_v10"]


def test_hourly_keeps_the_newest_of_each_hour() -> None:
    backups = [at(f"2026-11-22T{clock}") for clock in ("10:05", "10:55", "09:59", "09:00", "07:30", "06:30")]
    assert kept(backups, keep_hourly=3) == ["2026-11-22T10:55", "2026-11-22T09:59", "2026-11-22T07:30"]


def test_days_without_a_backup_do_not_use_up_a_place() -> None:
    backups = [at(f"2026-{day}") for day in ("11-22T02:00", "11-20T02:00", "10-01T02:00", "03-01T02:00", "01-01T02:00")]
    assert kept(backups, keep_daily=4) == ["2026-11-22T02:00", "2026-11-20T02:00", "2026-10-01T02:00", "2026-03-01T02:00"]


def test_weeks_are_iso_weeks_over_the_turn_of_the_year() -> None:
    # Monday 28 December 2026 to Sunday 3 January 2027 is one week, 53 of 2026; the 4th begins another.
    backups = [at(day) for day in ("2027-01-04T02:00", "2027-01-03T02:00", "2026-12-28T02:00", "2026-12-27T02:00", "2026-12-21T02:00")]
    now = datetime(2027, 1, 5, tzinfo=UTC)
    assert kept(backups, now, keep_weekly=3) == ["2027-01-04T02:00", "2027-01-03T02:00", "2026-12-27T02:00"]


def test_the_same_month_of_another_year_is_another_month() -> None:
    assert [name[:10] for name in kept(nightly(480), keep_monthly=14)][-3:] == ["2025-12-31", "2025-11-30", "2025-10-31"]


def test_yearly_keeps_the_newest_of_each_year() -> None:
    backups = [at(f"{day}T02:00") for day in ("2026-01-01", "2025-12-31", "2025-01-01", "2023-06-01", "2023-05-01", "2022-01-01")]
    assert kept(backups, keep_yearly=3) == ["2026-01-01T02:00", "2025-12-31T02:00", "2023-06-01T02:00"]


def test_the_oldest_stays_while_a_rule_has_places_left() -> None:
    backups = nightly(40)
    assert why(backups, keep_monthly=3)[backups[-1].name] == ["monthly 3/3, the oldest"]
    assert kept(backups, keep_monthly=3) == ["2026-11-22T02:00", "2026-10-31T02:00", "2026-10-14T02:00"]
    assert kept(backups, keep_monthly=2) == ["2026-11-22T02:00", "2026-10-31T02:00"]


def test_the_oldest_is_named_once_where_it_is_the_newest_of_its_day() -> None:
    assert why(nightly(2), keep_daily=7) == {"2026-11-22T02:00": ["daily 1/7"], "2026-11-21T02:00": ["daily 2/7"]}


def test_one_backup_can_hold_a_place_in_every_rule() -> None:
    # Seven days from Monday to Sunday are one week: the weekly rule keeps three more, not four.
    assert len(kept(nightly(120), keep_daily=7, keep_weekly=4)) == 10
    assert len(kept(nightly(120, "2026-11-18T02:00"), keep_daily=7, keep_weekly=4)) == 9


def test_rules_that_are_zero_are_rules_that_are_not_there() -> None:
    backups = nightly(60)
    assert why(backups, keep_daily=3, keep_last=0, keep_weekly=0, keep_yearly=0) == why(backups, keep_daily=3)


# ---- the floor -----------------------------------------------------------------------------------------------------------------


def test_the_floor_counts_only_complete_backups() -> None:
    backups = [
        at("2026-11-22T02:00", state="damaged"),
        at("2026-11-21T02:00", state="unfinished"),
        at("2026-11-20T02:00"),
        at("2026-11-10T02:00"),
        at("2026-11-01T02:00"),
    ]
    assert why(backups, keep_within="1d", min_count=2) == {
        "2026-11-22T02:00": ["damaged: never removed by a policy"],
        "2026-11-21T02:00": ["unfinished, and no newer backup is complete"],
        "2026-11-20T02:00": ["within 1d of the newest"],
        "2026-11-10T02:00": ["min_count 2/2"],
        "2026-11-01T02:00": ["no rule keeps it"],
    }


def test_the_floor_does_not_count_backups_that_another_run_uses() -> None:
    # It may be deleting them.
    backups = [replace(backup, leased=i < 2) for i, backup in enumerate(nightly(5))]
    assert kept(backups, keep_last=2, min_count=2) == [backup.name for backup in backups[:4]]


def test_everything_goes_only_when_that_is_said_three_times() -> None:
    backups = [*nightly(3), at("2026-11-01T02:00", held=True), at("2026-11-02T02:00", leased=True), at("2026-11-03T02:00", state="damaged")]
    assert kept(backups, keep_last=0, min_count=0, allow_empty=True) == ["2026-11-03T02:00", "2026-11-02T02:00", "2026-11-01T02:00"]


# ---- traps of other tools, each as a test -----------------------------------------------------------------------------------------


def test_when_backups_stop_deletion_stops() -> None:
    # Age against now, without a floor, removes the last backup there is some weeks after backups ceased.
    backups = nightly(3, "2026-10-10T02:00")
    assert kept(backups, keep_within="30d") == [backup.name for backup in backups]
    assert kept(backups, NOW + timedelta(days=3650), keep_within="30d") == [backup.name for backup in backups]


def test_rules_add_up_what_they_keep_and_not_what_they_remove() -> None:
    backups = nightly(10)
    assert kept(backups, keep_last=1, keep_within="5d") == kept(backups, keep_within="5d")
    assert kept(backups, keep_last=8, keep_within="5d") == kept(backups, keep_last=8)


def test_order_is_that_of_time_and_not_of_names() -> None:
    # Names begin anew after a renaming; the times go on.
    backups = [Backup("backup_999", NOW - timedelta(days=2)), Backup("backup_1", NOW), Backup("backup_1000", NOW - timedelta(days=1))]
    assert kept(backups, keep_last=1) == ["backup_1"]


def test_a_backup_dated_in_the_future_stays_and_pushes_out_nothing() -> None:
    backups = nightly(5)
    wrong = at("2099-01-01T00:00")
    for policy in ({"keep_within": "2d"}, {"keep_last": 2}, {"keep_daily": 2}, {"keep_yearly": 1}):
        assert kept([*backups, wrong], **policy) == [wrong.name, *kept(backups, **policy)]
        assert why([*backups, wrong], **policy)[wrong.name] == ["its time is in the future"]


def test_an_attempt_dated_in_the_future_stays() -> None:
    attempt = at("2099-01-01T00:00", state="unfinished")
    assert why([*nightly(1), attempt], keep_last=1)[attempt.name] == ["its time is in the future"]


def test_a_clock_that_goes_back_removes_nothing() -> None:
    backups = [*nightly(5), at("2026-11-01T02:00", state="unfinished")]
    assert kept(backups, NOW - timedelta(days=3650), keep_last=1) == [backup.name for backup in backups]


def test_a_backup_made_now_is_not_in_the_future() -> None:
    assert why([Backup("new", NOW)], keep_last=1) == {"new": ["last 1/1"]}


def test_equal_times_never_decide_who_goes() -> None:
    twins = [Backup("a", NOW), Backup("b", NOW)]
    older = at("2026-11-22T02:00")
    for policy in ({"keep_last": 1}, {"keep_daily": 1}, {"keep_hourly": 1}, {"keep_within": "1h"}):
        for backups in permutations([*twins, older]):
            assert kept(backups, **policy) == ["a", "b"]
    assert kept([*twins, older], keep_last=2) == ["a", "b"]
    assert why([*twins, older], keep_last=3) == {"a": ["last 1/3"], "b": ["last 1/3"], older.name: ["last 3/3"]}


def test_equal_moments_in_different_zones_are_equal() -> None:
    here, there = datetime(2026, 11, 22, 3, tzinfo=BERLIN), datetime(2026, 11, 22, 2, tzinfo=UTC)
    assert kept([Backup("here", here), Backup("there", there)], keep_last=1) == ["here", "there"]


@pytest.mark.parametrize(
    "time",
    [None, datetime(1, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), datetime(1980, 1, 1, tzinfo=UTC), NOW.replace(tzinfo=None)],
    ids=["none", "zero", "epoch", "reset clock", "without a zone"],
)
@pytest.mark.parametrize("state", ["complete", "unfinished", "damaged"])
def test_a_backup_of_unknown_time_stays_and_counts_for_nothing(time: datetime | None, state: str) -> None:
    backups = nightly(4)
    unknown = Backup("unknown", time, state)
    for policy in ({"keep_last": 2}, {"keep_within": "2d"}, {"keep_monthly": 2}):
        assert kept([unknown, *backups], **policy) == [*kept(backups, **policy), "unknown"]
    assert why([unknown], keep_last=1, timezone="America/Los_Angeles")["unknown"][0] == "its time is unknown"


def test_the_farthest_times_are_no_trouble() -> None:
    zones = (UTC, ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York"))
    ends = [Backup(f"end{i}", datetime.max.replace(tzinfo=zone)) for i, zone in enumerate(zones)]
    assert set(kept([*ends, *nightly(3)], keep_daily=1, timezone="Pacific/Kiritimati")) == {"2026-11-22T02:00", "end0", "end1", "end2"}


def test_now_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"now 2026-11-22T12:00:00 has no time zone"):
        plan(nightly(1), RetentionPolicy(keep_last=1), NOW.replace(tzinfo=None))


def test_unreadable_and_unknown_states_are_never_removed() -> None:
    for state in ("damaged", "unreadable", "", "COMPLETE"):
        backups = [replace(nightly(9)[-1], state=state), nightly(1)[0]]
        assert why(backups, keep_last=1)[backups[0].name] == [f"{state}: never removed by a policy"]


def test_names_that_do_not_fit_are_not_in_the_answer() -> None:
    backups = [Backup(f"{name}_{i}", NOW - timedelta(days=i)) for name in ("orders", "users", "Orders") for i in range(3)]
    orders = plan(backups, RetentionPolicy(keep_last=1, name_pattern="orders_*"), NOW)
    assert [(decision.backup.name, decision.keep) for decision in orders] == [("orders_0", True), ("orders_1", False), ("orders_2", False)]
    users = plan(backups, RetentionPolicy(keep_last=2, name_pattern="users_[0-9]"), NOW)
    assert [(decision.backup.name, decision.keep) for decision in users] == [("users_0", True), ("users_1", True), ("users_2", False)]


def test_one_policy_does_not_thin_out_the_backups_of_another() -> None:
    # A busy name next to a rare one: together, the busy one would take every place.
    busy = [Backup(f"busy_{i}", NOW - timedelta(hours=i)) for i in range(50)]
    rare = [Backup(f"rare_{i}", NOW - timedelta(days=30 * i)) for i in range(3)]
    assert kept([*busy, *rare], keep_last=3, name_pattern="rare_*") == ["rare_0", "rare_1", "rare_2"]
    assert kept([*busy, *rare], keep_last=3, group_by="(busy|rare)") == ["busy_0", "rare_0", "busy_1", "busy_2", "rare_1", "rare_2"]


# ---- holds and leases ----------------------------------------------------------------------------------------------------------


def test_a_hold_keeps_its_backup_and_changes_nothing_for_the_others() -> None:
    backups = nightly(10)
    for i in (0, 1, 5, 9):
        held = [replace(backup, held=index == i) for index, backup in enumerate(backups)]
        assert set(kept(held, keep_last=2, keep_weekly=1)) == {*kept(backups, keep_last=2, keep_weekly=1), backups[i].name}


def test_a_held_backup_says_so_beside_the_rules_that_keep_it() -> None:
    assert why([at("2026-11-22T02:00", held=True)], keep_last=1) == {"2026-11-22T02:00": ["on hold", "last 1/1"]}


def test_a_leased_backup_stays_and_takes_no_place() -> None:
    backups = nightly(4)
    backups[0] = replace(backups[0], leased=True)
    assert kept(backups, keep_last=2) == [backup.name for backup in backups[:3]]
    assert kept(backups, keep_within="1d") == [backup.name for backup in backups[:3]]


# ---- unfinished attempts ---------------------------------------------------------------------------------------------------------


def test_an_attempt_goes_once_a_complete_backup_is_newer_by_more_than_the_grace() -> None:
    newest = at("2026-11-22T02:00")
    attempts = [at(f"2026-11-{clock}", state="unfinished") for clock in ("21T02:00", "21T01:59")]
    assert kept([newest, *attempts], keep_last=1) == [newest.name, attempts[0].name]
    assert kept([newest, *attempts], keep_last=1, grace="23h") == [newest.name]
    assert kept([newest, *attempts], keep_last=1, grace="2d") == [newest.name, *(attempt.name for attempt in attempts)]
    assert kept([newest, *attempts], keep_last=1, grace=timedelta()) == [newest.name]


def test_attempts_alone_are_never_removed() -> None:
    attempts = [replace(backup, state="unfinished") for backup in nightly(30)]
    assert kept(attempts, NOW + timedelta(days=1000), keep_last=1) == [attempt.name for attempt in attempts]
    damaged = at("2026-11-22T02:00", state="damaged")
    assert kept([damaged, *attempts[1:]], keep_last=1) == [damaged.name, *(attempt.name for attempt in attempts[1:])]


def test_the_newest_attempt_is_never_removed_however_long_it_takes() -> None:
    attempt = at("2026-11-22T03:00", state="unfinished")
    backups = nightly(3)
    assert kept([*backups, attempt], NOW + timedelta(days=1000), keep_last=1) == [attempt.name, backups[0].name]


def test_attempts_take_no_place_of_a_complete_backup() -> None:
    backups = nightly(4)
    attempts = [at(f"2026-11-22T0{hour}:30", state="unfinished") for hour in (3, 2, 1)]
    for policy in ({"keep_last": 2}, {"keep_daily": 2}, {"keep_within": "1d"}):
        assert kept([*attempts, *backups], **policy)[2:] == [backups[0].name, attempts[2].name, backups[1].name]
