"""Retention, for any catalog and any policy: what stays is what the rules say, and nothing goes for want of a backup or a clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.retention import Decision, plan
from airflow_provider_milvus_backup.core.retention_policy import RULES, RetentionPolicy
from tests.unit.test_retention import UTC, Backup

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Kiritimati"]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
#: Days on which clocks are changed, on both halves of the earth.
CHANGES = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((3, 29), (4, 4), (10, 25), (11, 1))]
SPANS = ["1h", "5h", "1d", "3d", "2w", "1m", "1y"]

# Close together and far apart, often equal, around changes of the clock.
moments = st.one_of(
    st.builds(lambda halves: NOW - timedelta(minutes=30 * halves), st.integers(0, 60)),
    st.builds(lambda days: NOW - timedelta(days=days), st.integers(0, 1200)),
    st.builds(lambda day, halves: day + timedelta(minutes=30 * halves), st.sampled_from(CHANGES), st.integers(-30, 60)),
)
future = st.builds(lambda days: NOW + timedelta(days=days), st.integers(1, 40_000))
states = st.sampled_from(["complete"] * 5 + ["unfinished"] * 2 + ["damaged"])
rarely = st.sampled_from([False] * 5 + [True])
locks = st.sampled_from([""] * 5 + ["locked until 2027-01-31 00:00 (GOVERNANCE)"])


def catalogs(times: st.SearchStrategy[datetime | None], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Backup]]:
    chosen = {"state": states, "held": rarely, "leased": rarely, "lock": locks, "found_damaged": rarely}
    entries = st.builds(Backup, st.just(""), times, **{**chosen, **fixed})
    named = st.lists(st.tuples(st.sampled_from("ab"), entries), max_size=25)
    return named.map(lambda pairs: [replace(entry, name=f"{group}_{i}") for i, (group, entry) in enumerate(pairs)])


complete = st.just("complete")
never = st.just(False)
plain = catalogs(moments, state=complete, held=never, leased=never, lock=st.just(""), found_damaged=never)
past = catalogs(moments)
anything = catalogs(st.one_of(moments, moments, moments, future, st.none()))


@st.composite
def rules(draw: st.DrawFn, below: dict[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of a policy; with ``below``, of one that is not less strict in anything."""
    limits = below or {}
    counts = {f"keep_{rule}": draw(st.integers(0, limits.get(f"keep_{rule}", 4))) for rule in RULES}
    spans = SPANS[: SPANS.index(limits["keep_within"]) + 1] if limits.get("keep_within") else ([] if below else SPANS)
    chosen: dict[str, Any] = {**counts, "keep_within": draw(st.sampled_from([None, *spans]))}
    chosen["min_count"] = draw(st.integers(1, limits.get("min_count", 3)))
    chosen["grace"] = draw(st.sampled_from(SPANS[: SPANS.index(limits.get("grace", "1y")) + 1]))
    chosen["timezone"] = limits.get("timezone") or draw(st.sampled_from(ZONES))
    if chosen["keep_last"]:
        chosen["keep_last"] = max(chosen["keep_last"], chosen["min_count"])
    assume(chosen["keep_within"] or any(counts.values()))
    return chosen


policies = rules().map(lambda chosen: RetentionPolicy(**chosen))


def stays(catalog: Sequence[Backup], policy: RetentionPolicy, now: datetime = NOW) -> set[str]:
    return {decision.backup.name for decision in plan(catalog, policy, now) if decision.keep}


def goes(catalog: Sequence[Backup], policy: RetentionPolicy, now: datetime = NOW) -> set[str]:
    return {decision.backup.name for decision in plan(catalog, policy, now) if not decision.keep}


def counted(catalog: Sequence[Backup]) -> list[Backup]:
    whole = [entry for entry in catalog if entry.state == "complete" and not entry.leased and not entry.found_damaged]
    return [entry for entry in whole if entry.time and entry.time <= NOW]


# ---- the rules, said once more in another way ----------------------------------------------------------------------------------------

SAME: dict[str, Callable[[datetime], object]] = {
    "last": lambda local: local.astimezone(UTC),
    "hourly": lambda local: f"{local:%F %H %z}",
    "daily": lambda local: f"{local:%F}",
    "weekly": lambda local: f"{local:%G %V}",
    "monthly": lambda local: f"{local:%Y %m}",
    "yearly": lambda local: f"{local:%Y}",
}
HOURS = {"1h": 1, "5h": 5}


def kept_by(rule: str, count: int, entry: Backup, among: list[Backup], zone: str) -> bool:
    """Whether a rule keeps a backup, from its definition: by looking at every other."""

    def bucket(other: Backup) -> object:
        assert other.time
        return SAME[rule](other.time.astimezone(ZoneInfo(zone)))

    newer = [other for other in among if other.time and entry.time and other.time > entry.time]
    if rule == "last":
        return len(newer) < count
    newest = bucket(entry) not in {bucket(other) for other in newer}
    oldest = len(newer) == len([other for other in among if other.time != entry.time])
    buckets = len({bucket(other) for other in among})
    return (newest and len({bucket(other) for other in newer}) < count) or (oldest and buckets < count)


@BUSY
@given(plain, rules(), st.sampled_from(["a", "b"]))
def test_what_stays_is_what_the_definition_of_a_rule_says(catalog: list[Backup], chosen: dict[str, Any], group: str) -> None:
    chosen["keep_within"] = chosen["keep_within"] if chosen["keep_within"] in HOURS else None
    assume(any(chosen[f"keep_{rule}"] for rule in RULES))
    catalog = [entry for entry in catalog if entry.name.startswith(group)]
    expected = {
        entry.name
        for entry in catalog
        if any(kept_by(rule, chosen[f"keep_{rule}"], entry, catalog, chosen["timezone"]) for rule in RULES)
        or kept_by("last", chosen["min_count"], entry, catalog, chosen["timezone"])
        or (
            chosen["keep_within"]
            and entry.time
            and max(other.time for other in catalog if other.time) - entry.time <= timedelta(hours=HOURS[chosen["keep_within"]])
        )
    }
    assert stays(catalog, RetentionPolicy(**chosen)) == expected


@BUSY
@given(plain, st.sampled_from(ZONES), st.integers(1, 5))
def test_each_of_the_last_days_of_a_zone_keeps_exactly_its_newest(catalog: list[Backup], zone: str, count: int) -> None:
    days: dict[str, datetime] = {}
    for entry in catalog:
        assert entry.time
        day = f"{entry.time.astimezone(ZoneInfo(zone)):%F}"
        days[day] = max(days.get(day, entry.time), entry.time)
    newest = {days[day] for day in sorted(days)[-count:]}
    if len(days) < count:
        newest |= {min(entry.time for entry in catalog if entry.time)} if catalog else set()
    policy = RetentionPolicy(keep_daily=count, timezone=zone)
    assert stays(catalog, policy) == {entry.name for entry in catalog if entry.time in newest}


# ---- safety ------------------------------------------------------------------------------------------------------------------------


@BUSY
@given(anything, policies)
def test_nothing_goes_that_is_held_locked_used_undated_ahead_of_time_or_damaged(catalog: list[Backup], policy: RetentionPolicy) -> None:
    for decision in plan(catalog, policy, NOW):
        entry = decision.backup
        assert decision.reasons
        if not decision.keep:
            assert not entry.held
            assert not entry.lock
            assert not entry.leased
            assert not entry.found_damaged
            assert entry.time
            assert entry.time <= NOW
            assert entry.state in {"complete", "unfinished"}


@BUSY
@given(anything, policies)
def test_the_floor_holds(catalog: list[Backup], policy: RetentionPolicy) -> None:
    left = stays(catalog, policy)
    newest = sorted(counted(catalog), key=lambda entry: str(entry.time), reverse=True)
    complete_left = [entry for entry in newest if entry.name in left]
    assert len(complete_left) >= min(policy.min_count, len(newest))
    for entry in newest:
        assert entry.name in left or sum(str(other.time) > str(entry.time) for other in newest) >= policy.min_count


@BUSY
@given(anything, policies)
def test_an_attempt_goes_only_if_a_complete_backup_is_newer_and_stays(catalog: list[Backup], policy: RetentionPolicy) -> None:
    gone, left = goes(catalog, policy), stays(catalog, policy)
    for entry in catalog:
        if entry.state == "unfinished" and entry.name in gone:
            assert any(other.name in left and other.time and entry.time and other.time > entry.time for other in counted(catalog))


@BUSY
@given(anything, policies, st.data())
def test_backups_with_data_and_without_do_not_meet(catalog: list[Backup], policy: RetentionPolicy, data: st.DataObject) -> None:
    empty = [data.draw(st.booleans()) and entry.state == "complete" for entry in catalog]
    mixed = [replace(entry, without_data=is_empty) for entry, is_empty in zip(catalog, empty, strict=True)]
    halves = [[entry for entry in mixed if entry.without_data is half] for half in (False, True)]
    assert goes(mixed, policy) == goes(halves[0], policy) | goes(halves[1], policy)


@BUSY
@given(anything, rules(), st.data())
def test_a_stricter_policy_never_keeps_more(catalog: list[Backup], chosen: dict[str, Any], data: st.DataObject) -> None:
    stricter = data.draw(rules(below=chosen))
    assert stays(catalog, RetentionPolicy(**stricter)) <= stays(catalog, RetentionPolicy(**chosen))


@BUSY
@given(past, policies, st.integers(1, 30_000))
def test_time_that_passes_without_backups_removes_nothing_more(catalog: list[Backup], policy: RetentionPolicy, days: int) -> None:
    assert plan(catalog, policy, NOW + timedelta(days=days)) == plan(catalog, policy, NOW)


@BUSY
@given(anything, policies, moments)
def test_a_clock_that_goes_back_removes_nothing_more(catalog: list[Backup], policy: RetentionPolicy, now: datetime) -> None:
    assert goes(catalog, policy, now) <= goes(catalog, policy)
    assert goes(catalog, policy, now.replace(year=2020)) == set()


@BUSY
@given(anything, policies, st.data())
def test_a_backup_that_is_gone_used_or_damaged_never_makes_another_go(
    catalog: list[Backup], policy: RetentionPolicy, data: st.DataObject
) -> None:
    assume(catalog)
    index = data.draw(st.integers(0, len(catalog) - 1))
    without = catalog[:index] + catalog[index + 1 :]
    assert goes(without, policy) <= goes(catalog, policy)
    for change in ({"leased": True}, {"found_damaged": True}):
        assert goes([*without, replace(catalog[index], **change)], policy) <= goes(catalog, policy)


@BUSY
@given(anything, policies, st.data())
def test_a_hold_or_a_lock_changes_the_fate_of_its_backup_only(catalog: list[Backup], policy: RetentionPolicy, data: st.DataObject) -> None:
    assume(catalog)
    index = data.draw(st.integers(0, len(catalog) - 1))
    held = [replace(entry, held=entry.held or i == index) for i, entry in enumerate(catalog)]
    locked = [replace(entry, lock="locked" if i == index else entry.lock) for i, entry in enumerate(catalog)]
    assert goes(held, policy) == goes(locked, policy) == goes(catalog, policy) - {catalog[index].name}


# ---- the same answer every time ------------------------------------------------------------------------------------------------------


@BUSY
@given(anything, policies, st.randoms(use_true_random=False))
def test_the_order_of_the_catalog_does_not_matter(catalog: list[Backup], policy: RetentionPolicy, random: Any) -> None:
    shuffled = list(catalog)
    random.shuffle(shuffled)
    assert plan(shuffled, policy, NOW) == plan(catalog, policy, NOW)


@BUSY
@given(anything, policies)
def test_a_second_run_removes_nothing_more(catalog: list[Backup], policy: RetentionPolicy) -> None:
    left = [decision.backup for decision in plan(catalog, policy, NOW) if decision.keep]
    assert goes(left, policy) == set()


@BUSY
@given(anything, policies, st.data())
def test_a_run_that_was_killed_halfway_is_finished_by_the_next(catalog: list[Backup], policy: RetentionPolicy, data: st.DataObject) -> None:
    gone = goes(catalog, policy)
    removed = {name for name in sorted(gone) if data.draw(st.booleans())}
    assert goes([entry for entry in catalog if entry.name not in removed], policy) == gone - removed


@BUSY
@given(plain, policies)
def test_pruning_after_every_backup_ends_as_pruning_once(catalog: list[Backup], policy: RetentionPolicy) -> None:
    stock: list[Backup] = []
    for entry in sorted(catalog, key=lambda entry: str(entry.time)):
        stock = [decision.backup for decision in plan([*stock, entry], policy, NOW) if decision.keep]
    assert {entry.name for entry in stock} == stays(catalog, policy)


# ---- names ---------------------------------------------------------------------------------------------------------------------------


@BUSY
@given(anything, rules())
def test_a_policy_neither_shows_nor_counts_what_its_pattern_does_not_fit(catalog: list[Backup], chosen: dict[str, Any]) -> None:
    mine = [entry for entry in catalog if entry.name.startswith("a_")]
    answer = plan(catalog, RetentionPolicy(**chosen, name_pattern="a_*"), NOW)
    assert {decision.backup.name for decision in answer} == {entry.name for entry in mine}
    assert answer == plan(mine, RetentionPolicy(**chosen), NOW)


@BUSY
@given(anything, rules())
def test_a_group_is_judged_as_if_there_were_no_other(catalog: list[Backup], chosen: dict[str, Any]) -> None:
    def by_name(decisions: list[Decision[Backup]]) -> dict[str, Decision[Backup]]:
        return {decision.backup.name: decision for decision in decisions}

    apart = [by_name(plan(catalog, RetentionPolicy(**chosen, name_pattern=f"{group}_*"), NOW)) for group in "ab"]
    assert by_name(plan(catalog, RetentionPolicy(**chosen, group_by="^(a|b)_"), NOW)) == {**apart[0], **apart[1]}
