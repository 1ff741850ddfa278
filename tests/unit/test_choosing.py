"""What ``latest``, ``random:30d`` and a name mean: always a complete backup, or an error that says what there is."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, DAMAGED, UNFINISHED, UNREADABLE, CatalogEntry
from airflow_provider_milvus_backup.core.choosing import check_choice, choose
from airflow_provider_milvus_backup.core.errors import BackupDamaged, BackupNotFound, ConfigError

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def backup(name: str, days: float, state: str = COMPLETE, reason: str = "") -> CatalogEntry:
    return CatalogEntry(name, state, reason, created=NOW - timedelta(days=days))


def chosen(entries: list[CatalogEntry], which: str, seed: int = 0) -> str:
    return choose(entries, which, NOW, random.Random(seed)).name


def test_the_latest_is_the_newest_complete_one_by_its_time_not_by_name_or_place() -> None:
    entries = [
        backup("z_old", 9),
        backup("newest_but_damaged", 0, DAMAGED, "no meta"),
        backup("a_new", 1),
        backup("unfinished", 0.5, UNFINISHED),
        replace(backup("timeless", 0), created=None),
    ]
    assert chosen(entries, "latest") == chosen(entries[::-1], "latest") == "a_new"


def test_of_two_of_one_moment_the_latest_is_always_the_same() -> None:
    entries = [backup("a", 1), backup("b", 1)]
    assert chosen(entries, "latest") == chosen(entries[::-1], "latest")


def test_a_random_one_is_within_the_span_and_every_one_of_them_comes_up() -> None:
    entries = [backup(f"day_{day}", day) for day in range(60)] + [backup("broken", 3, DAMAGED, "no meta")]
    assert {chosen(entries, "random:7d", seed) for seed in range(400)} == {f"day_{day}" for day in range(8)}


def test_a_random_one_depends_on_the_seed_and_not_on_the_order_of_the_catalog() -> None:
    entries = [backup(f"day_{day}", day) for day in range(30)]
    assert [chosen(entries, "random:4w", seed) for seed in range(20)] == [chosen(entries[::-1], "random:4w", seed) for seed in range(20)]


@given(
    ages=st.lists(st.floats(-2, 100), max_size=12),
    states=st.lists(st.sampled_from([COMPLETE, DAMAGED, UNFINISHED, UNREADABLE]), min_size=12, max_size=12),
    which=st.sampled_from(["latest", "random:30d", "random:12h", "random:1y2m"]),
    seed=st.integers(0, 99),
)
def test_what_is_chosen_is_complete_and_nothing_is_chosen_only_where_nothing_fits(
    ages: list[float], states: list[str], which: str, seed: int
) -> None:
    entries = [backup(f"b{number}", age, state) for number, (age, state) in enumerate(zip(ages, states, strict=False))]
    span = {"latest": 1000.0, "random:30d": 30.0, "random:12h": 0.5, "random:1y2m": 426.0}[which]
    fitting = [entry.name for entry in entries if entry.state == COMPLETE and entry.created and entry.created >= NOW - timedelta(span)]
    try:
        assert chosen(entries, which, seed) in fitting
    except BackupNotFound:
        assert not fitting


def test_a_named_one_is_that_one() -> None:
    assert chosen([backup("a", 1), backup("b", 2)], "b") == "b"


@pytest.mark.parametrize("state", [DAMAGED, UNFINISHED, UNREADABLE])
def test_a_named_one_that_is_not_complete_is_refused_with_the_reason(state: str) -> None:
    with pytest.raises(BackupDamaged, match=rf"backup 'b' is {state}.*: the mark stands alone"):
        chosen([backup("a", 1), backup("b", 0, state, "the mark stands alone")], "b")


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ("latest", "no backup is complete, so none is the latest"),
        ("random:30d", "'random:30d': no backup is complete and of 2026-10-23T12:00:00+00:00 or later"),
        ("other", "there is no backup 'other'"),
    ],
)
def test_where_there_is_none_the_error_says_what_there_is(which: str, told: str) -> None:
    with pytest.raises(BackupNotFound) as raised:
        chosen([backup("half", 1, UNFINISHED), backup("bad", 2, DAMAGED)], which)
    assert str(raised.value) == (
        f"{told}; there are 2 backups: half (unfinished, 2026-11-21T12:00:00+00:00), bad (damaged, 2026-11-20T12:00:00+00:00)"
    )
    with pytest.raises(BackupNotFound, match="there are no backups at all"):
        chosen([], which)


def test_a_random_one_of_a_span_without_backups_names_the_older_ones() -> None:
    with pytest.raises(BackupNotFound, match=r"there is 1 backup: old \(complete"):
        chosen([backup("old", 31)], "random:30d")


@pytest.mark.parametrize("which", ["", " ", "random", "random:", "random:0d", "random:30", "latest:3d", "a-b", "a/b", None])
def test_what_means_nothing_is_refused_before_anything_is_looked_at(which: str) -> None:
    with pytest.raises(ConfigError, match="backup"):
        check_choice(which)


@pytest.mark.parametrize("which", ["latest", "random:30d", "random:1y6m3d4h", "nightly_20261122T020000_backup"])
def test_what_means_something_is_returned_as_it_is(which: str) -> None:
    assert check_choice(which) == which
