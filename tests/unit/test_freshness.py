"""Freshness says which collections are late and by how much, and takes nothing for fresh that may not be."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, DAMAGED, UNFINISHED, UNREADABLE, CatalogEntry
from airflow_provider_milvus_backup.core.errors import BackupDamaged, ConfigError
from airflow_provider_milvus_backup.core.freshness import DEEP, FRESH, LATE, LEVELS, MISSING, NEW, FreshnessPolicy, FreshnessReport, judge

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DOCS, TAGS = "default.docs", "default.tags"
WHOLE = {"level": "binlogs", "time": NOW.isoformat(), "ok": True, "damaged_segments": []}


def entry(name: str, hours: float, *collections: str, **changes: Any) -> CatalogEntry:
    """A complete backup of ours, made so many hours ago."""
    made = NOW - timedelta(hours=hours)
    return replace(CatalogEntry(name, COMPLETE, backup_id=name, created=made, collections=list(collections or (DOCS,))), **changes)


def official(name: str, hours: float) -> CatalogEntry:
    return replace(entry(name, hours), collections=None)


class Metas:
    """What whole metas say, and which were read."""

    def __init__(self, **held: Collection[str] | Exception) -> None:
        self.held, self.read = held, list[str]()

    def __call__(self, found: CatalogEntry) -> Collection[str]:
        self.read.append(found.name)
        held = self.held[found.name]
        if isinstance(held, Exception):
            raise held
        return held


def judged(
    entries: Iterable[CatalogEntry], live: Collection[str] = (DOCS,), metas: Metas | None = None, born: Any = None, **policy: Any
) -> FreshnessReport:
    return judge(FreshnessPolicy(**{"max_age": "26h", **policy}), entries, live, NOW, metas or Metas(), born)


def statuses(report: FreshnessReport) -> dict[str, tuple[str, str]]:
    return {one.name: (one.status, one.backup) for one in report.collections}


# ---- late and by how much ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_age", "hours", "late"),
    [
        ("26h", 0, None),
        ("26h", 26, None),  # not older than promised
        ("26h", 26.5, 1800.0),
        ("1d", 25, 3600.0),
        ("1m", 24 * 31, None),  # October had 31 days
        ("1m", 24 * 31 + 1, 3600.0),
        (timedelta(minutes=90), 1.5, None),
        (timedelta(minutes=90), 2, 1800.0),
    ],
)
def test_a_collection_is_late_by_what_its_newest_backup_is_older_than_promised(
    max_age: str | timedelta, hours: float, late: float | None
) -> None:
    report = judged([entry("newest", hours), entry("older", hours + 1)], max_age=max_age)
    (one,) = report.collections
    assert (one.status, one.backup, one.age, one.late) == (LATE if late else FRESH, "newest", hours * 3600, late)
    assert report.fresh is (late is None)


def test_every_collection_has_its_own_newest_backup() -> None:
    entries = [entry("a", 40, DOCS, TAGS), entry("b", 1, TAGS), entry("c", 90, "other.old")]
    report = judged(entries, [DOCS, TAGS, "other.old", "other.never"])
    assert statuses(report) == {
        "other.never": (MISSING, ""),
        "other.old": (LATE, "c"),
        DOCS: (LATE, "a"),
        TAGS: (FRESH, "b"),
    }
    assert [one.name for one in report.collections] == ["other.never", "other.old", DOCS, TAGS], "the worst is first"
    assert report.message == (
        "3 of 4 collections without a backup of the last 26h: other.never: no backup that counts holds it; "
        "other.old: 90 h 00 min old in 'c', 64 h 00 min late; default.docs: 40 h 00 min old in 'a', 14 h 00 min late"
    )


def test_collections_that_only_backups_have_were_dropped_and_are_not_late() -> None:
    report = judged([entry("old", 900, "default.dropped"), entry("new", 1)])
    assert (report.fresh, list(statuses(report))) == (True, [DOCS])


def test_a_collection_without_a_backup_is_missing_once_it_is_older_than_promised_itself() -> None:
    report = judged([], [DOCS, TAGS, "default.unknown"], born={DOCS: NOW - 27 * HOUR, TAGS: NOW - 25 * HOUR})
    assert {one.name: (one.status, one.age, one.late) for one in report.collections} == {
        DOCS: (MISSING, 27 * 3600.0, 3600.0),
        TAGS: (NEW, 25 * 3600.0, None),
        "default.unknown": (MISSING, None, None),
    }
    assert (report.fresh, report.missing) == (False, [DOCS, "default.unknown"])
    assert judged([], [TAGS], born={TAGS: NOW}).fresh


def test_nothing_to_judge_is_said() -> None:
    report = judged([entry("a", 1)], [])
    assert (report.fresh, report.message) == (True, "there is no collection to judge")


# ---- what counts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": DAMAGED, "reason": "half of it"}, "it is damaged: half of it"),
        ({"state": UNREADABLE, "reason": "denied"}, "it is unreadable: denied"),
        ({"state": UNFINISHED}, "it is unfinished"),
        ({"created": NOW + 2 * HOUR}, "it is dated 2026-11-22T14:00:00+00:00, in the future"),
        ({"strategy": "meta_only"}, "it holds no data (meta_only)"),
        ({"verified": {**WHOLE, "ok": False}}, "damage was found at level 'binlogs' on 2026-11-22"),
    ],
)
def test_a_newer_backup_that_may_be_worthless_does_not_count_and_the_message_says_why(changes: dict[str, Any], why: str) -> None:
    report = judged([replace(entry("newer", 1), **changes), entry("older", 30)])
    assert statuses(report) == {DOCS: (LATE, "older")}
    assert f"30 h 00 min old in 'older', 4 h 00 min late ('newer' does not count: {why}" in report.message


def test_a_backup_without_a_time_never_counts() -> None:
    assert statuses(judged([replace(entry("timeless", 1), created=None)])) == {DOCS: (MISSING, "")}


def test_a_backup_that_is_dated_into_the_future_is_not_fresh_for_ever() -> None:
    ahead, real = entry("ahead", -24 * 365), entry("real", 27)
    assert statuses(judged([ahead, real])) == {DOCS: (LATE, "real")}
    assert statuses(judged([entry("skewed", -0.01), real])) == {DOCS: (FRESH, "skewed")}, "two clocks of one store may differ by seconds"
    assert judged([entry("skewed", -0.01)]).collections[0].age == 0.0


def test_those_that_name_no_collection_and_cannot_be_relied_on_are_warned_of_while_they_would_matter() -> None:
    unreadable = [replace(official(name, hours), state=UNREADABLE, reason="denied") for name, hours in (("a", 1), ("b", 30))]
    report = judged([*unreadable, entry("older", 40)])
    assert report.warnings == ["backup 'a' does not count: it is unreadable: denied"]


def test_one_that_the_store_does_not_show_at_all_is_warned_of_where_something_is_late() -> None:
    hidden = CatalogEntry("hidden", UNREADABLE, "denied")
    assert judged([hidden, entry("older", 40, TAGS)]).warnings == ["backup 'hidden' does not count: it is unreadable: denied"]
    assert judged([hidden, entry("young", 1)]).warnings == [], "where everything is fresh it would not have been missed"


def test_a_backup_that_is_being_restored_counts() -> None:
    assert judged([entry("read", 1, leases=["dag/run/restore/-1"])]).fresh


# ---- levels --------------------------------------------------------------------------------------------------------------------

VERIFIED = {
    "none": None,
    "objects": {**WHOLE, "level": "objects"},
    "checksums": {**WHOLE, "level": "checksums"},
    "binlogs": WHOLE,
    "a sample": {**WHOLE, "sample": "3/30"},
    "damaged": {**WHOLE, "ok": False},
    "unknown level": {**WHOLE, "level": "by eye"},
}


@pytest.mark.parametrize(
    ("level", "count"),
    [
        (None, {"none", "objects", "checksums", "binlogs", "a sample", "unknown level"}),
        ("objects", {"objects", "checksums", "binlogs"}),
        ("checksums", {"checksums", "binlogs"}),
        ("binlogs", {"binlogs"}),
        ("drill", set()),
    ],
)
def test_a_level_counts_what_was_verified_as_deeply_as_a_whole_and_was_found_well(level: str | None, count: set[str]) -> None:
    found = {what for what, verified in VERIFIED.items() if judged([entry("one", 1, verified=verified)], level=level).fresh}
    assert found == count


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "drill"])
def test_what_was_not_verified_is_late_behind_what_was(level: str) -> None:
    report = judged([entry("new", 1), entry("verified", 30, verified=WHOLE)], level=level)
    assert f"without a backup of the last 26h, verified at level '{level}'" in report.message
    assert "old in 'verified', 4 h 00 min late ('new' does not count: it was not verified)" in report.message


def test_a_drill_counts_for_the_collections_that_it_has_restored() -> None:
    drilled = {"ok": True, "time": NOW.isoformat(), "seconds": 7.5, "collections": [DOCS]}
    some, whole = entry("some", 1, DOCS, TAGS, drilled=drilled), entry("whole", 2, TAGS, drilled={**drilled, "collections": None})
    report = judged([some, whole], [DOCS, TAGS], level="drill")
    assert statuses(report) == {DOCS: (FRESH, "some"), TAGS: (FRESH, "whole")}
    assert "its last drill left the collection out" in judged([some], [TAGS], level="drill").message
    assert not judged([replace(some, drilled={**drilled, "ok": False})], level="drill").fresh


# ---- backups that do not name their collections ----------------------------------------------------------------------------------


def test_whole_metas_are_read_from_the_newest_on_until_every_collection_has_its_backup() -> None:
    metas = Metas(o1=[TAGS], o2=[DOCS], o3=[DOCS])
    report = judged([official("o3", 9), official("o1", 1), official("o2", 5)], [DOCS, TAGS], metas)
    assert (statuses(report), metas.read) == ({DOCS: (FRESH, "o2"), TAGS: (FRESH, "o1")}, ["o1", "o2"])


def test_a_meta_that_cannot_be_relied_on_is_warned_of_and_the_next_backup_is_looked_at() -> None:
    metas = Metas(broken=BackupDamaged("no segments"), older=[DOCS])
    report = judged([official("broken", 1), official("older", 30)], metas=metas)
    assert (statuses(report), report.warnings) == ({DOCS: (LATE, "older")}, ["backup 'broken' does not count: no segments"])


def test_no_meta_is_read_of_what_cannot_count() -> None:
    metas = Metas(good=[DOCS])
    judged([official("future", -9), replace(official("gone", 1), state=DAMAGED), official("good", 2)], metas=metas)
    assert metas.read == ["good"]


def test_all_metas_of_young_backups_are_read_and_few_of_old_ones() -> None:
    young = [official(f"young_{number}", 1 + number) for number in range(20)]
    old = [official(f"old_{number}", 100 + number) for number in range(20)]
    metas = Metas(**{found.name: [] for found in (*young, *old)})
    report = judged([*young, *old, entry("ours", 500)], [DOCS, TAGS], metas)
    assert metas.read == [found.name for found in (*young, *old[:DEEP])]
    assert statuses(report) == {TAGS: (MISSING, ""), DOCS: (LATE, "ours")}, "those that name their collections cost nothing"
    assert "were not looked at" in report.collections[0].why


# ---- what is handed on -----------------------------------------------------------------------------------------------------------


def test_the_report_is_small_json_and_the_table_shows_what_wants_attention() -> None:
    live = [f"default.c{number}" for number in range(1000)]
    report = judged([entry("all", 50, *live)], live)
    told = report.to_dict()
    assert json.loads(json.dumps(told)) == told
    counts = {key: told[f"{key}_count"] for key in ("collection", "fresh", "late", "missing", "new")}
    assert (told["fresh"], counts) == (False, {"collection": 1000, "fresh": 0, "late": 1000, "missing": 0, "new": 0})
    assert (len(told["collections"]), len(report.table()), told["max_age"], told["level"]) == (100, 102, "26h", None)
    assert told["collections"][0] == {
        "name": "default.c0",
        "status": "late",
        "backup": "all",
        "time": "2026-11-20T10:00:00+00:00",
        "age_seconds": 180000.0,
        "late_seconds": 86400.0,
        "why": "",
    }
    assert told["message"].endswith("; and 990 more")
    assert len(told["message"]) < 1500
    assert judged([entry("all", 5, *live)], live).table() == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"max_age": "26"}, "max_age '26' is not a time span"),
        ({"max_age": ""}, "max_age '' is not a time span"),
        ({"max_age": "0h"}, "max_age '0h' is no time at all"),
        ({"max_age": timedelta()}, "no time at all"),
        ({"max_age": -HOUR}, "is negative"),
        ({"level": "deep"}, "level 'deep' is not known; use one of objects, checksums, binlogs, drill"),
        ({"level": ""}, "level '' is not known"),
        ({"name_pattern": " "}, "name_pattern ' ' fits no name"),
        ({"collections": "a.b.*.c"}, "'a.b.*.c' is not"),
        ({"collections": 3}, "collections 3 is neither"),
    ],
)
def test_a_promise_that_is_none_is_refused_with_the_value(policy: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FreshnessPolicy(**{"max_age": "26h", **policy})
    assert said in str(caught.value)


ENTRIES = st.lists(
    st.builds(
        lambda number, hours, held, state, ok: entry(
            f"b{number}", hours, *held, state=state, verified=None if ok is None else {**WHOLE, "ok": ok}
        ),
        st.integers(0, 99),
        st.integers(-50, 100),
        st.sets(st.sampled_from([DOCS, TAGS]), min_size=1),
        st.sampled_from([COMPLETE, COMPLETE, DAMAGED, UNREADABLE]),
        st.sampled_from([None, True, False]),
    ),
    max_size=8,
    unique_by=lambda made: made.name,
)


@given(ENTRIES, st.integers(1, 60), st.integers(0, 40), st.randoms())
def test_the_order_does_not_matter_and_a_stricter_promise_is_never_easier_to_keep(
    entries: list[CatalogEntry], hours: int, more: int, rng: Any
) -> None:
    shuffled = list(entries)
    rng.shuffle(shuffled)
    live = [DOCS, TAGS]
    strict, loose = (judged(made, live, max_age=f"{span}h") for made, span in ((entries, hours), (shuffled, hours + more)))
    assert {one.name for one in loose.wanting} <= {one.name for one in strict.wanting}
    assert statuses(strict) == statuses(judged(shuffled, live, max_age=f"{hours}h"))
    verified = judged(entries, live, max_age=f"{hours}h", level="binlogs")
    assert {one.name for one in strict.wanting} <= {one.name for one in verified.wanting}


@given(ENTRIES, st.integers(1, 60))
def test_fresh_is_exactly_what_a_good_backup_of_that_age_holds(entries: list[CatalogEntry], hours: int) -> None:
    good = [
        made
        for made in entries
        if made.state == COMPLETE and made.created and NOW - hours * HOUR <= made.created <= NOW and (made.verified or {}).get("ok", True)
    ]
    expected = {name for name in (DOCS, TAGS) if any(name in (made.collections or ()) for made in good)}
    assert {one.name for one in judged(entries, [DOCS, TAGS], max_age=f"{hours}h").collections if one.status == FRESH} == expected
