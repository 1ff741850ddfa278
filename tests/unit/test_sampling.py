"""Samples and paces: a rota is everything once, segments stay together, and nobody reads faster than allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.pacing import Pace, rate_of
from airflow_provider_milvus_backup.core.sampling import Sample, unit_of

UNITS = st.lists(st.text(max_size=12), unique=True, max_size=60)


def sample(text: str, salt: str = "") -> Sample:
    return Sample.parse(text, lambda: salt)


@given(units=UNITS, parts=st.integers(1, 40))
def test_the_parts_of_a_rota_are_disjoint_and_together_everything(units: list[str], parts: int) -> None:
    read = [unit for part in range(1, parts + 1) for unit in units if sample(f"{part}/{parts}").holds(unit)]
    assert sorted(read) == sorted(units)


@given(units=UNITS, share=st.integers(1, 99), salt=st.text(max_size=5))
def test_a_larger_share_holds_what_a_smaller_one_does(units: list[str], share: int, salt: str) -> None:
    smaller, larger = ({unit for unit in units if sample(f"{size}%", salt).holds(unit)} for size in (share, share + 1))
    assert smaller <= larger
    assert {unit for unit in units if sample("100%", salt).holds(unit)} == set(units)


def test_a_share_is_about_that_share_and_another_one_with_another_salt() -> None:
    units = [f"1/2/{number}" for number in range(10_000)]
    one, other = ({unit for unit in units if sample("5%", salt).holds(unit)} for salt in "ab")
    assert 400 < len(one) < 600
    assert one != other


def test_parts_of_a_rota_are_about_as_large_and_stay_what_they_are() -> None:
    units = [f"1/2/{number}" for number in range(3000)]
    sizes = [sum(sample(f"{part}/30").holds(unit) for unit in units) for part in range(1, 31)]
    assert (min(sizes) > 60, max(sizes) < 140, sum(sizes)) == (True, True, 3000)
    # A rota that ran for a week must not begin anew with another version.
    assert [unit for unit in units[:20] if sample("1/3").holds(unit)] == [f"1/2/{number}" for number in (1, 7, 11, 15, 18)]


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "1.5/3", "0%", "101%", "5", "%", "five%", "1e1%", "1/9999999"])
def test_a_sample_outside_of_its_range_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^sample '{text}'"):
        sample(text)


@pytest.mark.parametrize("given_", [None, 5, ["1/2"], b"1/2"])
def test_a_sample_that_is_no_text_is_refused(given_: Any) -> None:
    with pytest.raises(ConfigError, match="neither a part of a rota"):
        sample(given_)


@pytest.mark.parametrize(
    ("key", "unit"),
    [
        ("binlogs/insert_log/1/2/3/4/100/5", "1/2/4"),
        ("binlogs/delta_log/1/2/3/4/5", "1/2/4"),
        ("binlogs/insert_log/1/2/4/100/5", "1/2/4"),
        ("binlogs/delta_log/1/2/4/5", "1/2/4"),
        ("binlogs/delta_log/1/-1/4/5", "1/-1/4"),
        ("bundle/exports/a/b", "bundle/exports/a/b"),
        ("binlogs/x", "binlogs/x"),
    ],
)
def test_what_belongs_to_a_segment_is_sampled_together_with_and_without_groups(key: str, unit: str) -> None:
    assert unit_of(key) == unit


# ---- pace ------------------------------------------------------------------------------------------------------------------------


@given(rate=st.integers(1, 10**9), takes=st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 5)), min_size=1, max_size=30))
def test_never_more_is_read_in_any_time_than_the_rate_and_one_burst_allow(rate: int, takes: list[tuple[int, float]]) -> None:
    pace, now, read = Pace(rate), 1000.0, []
    for count, later in takes:
        now += later
        read.append((now + pace.take(count, now), count))
    for first, (begun, _) in enumerate(read):
        total, largest = sum(count for _, count in read[first + 1 :]), read[-1][0] - begun
        assert total <= rate * (largest + 1) * (1 + 1e-6) + 1


def test_streams_share_one_rate() -> None:
    pace = Pace(100)
    assert [pace.take(100, 0.0) for _ in range(4)] == [0.0, 1.0, 2.0, 3.0]
    assert pace.take(50, 10.0) == 0.0


def test_without_a_rate_nobody_waits() -> None:
    assert Pace(None).take(10**12, 0.0) == 0.0


@pytest.mark.parametrize(
    ("given_", "rate"),
    [(5, 5), (0.5, 0.5), ("1000", 1000), ("50MiB", 50 * 1024**2), ("1.5 GB/s", 1.5e9), ("2kb", 2000), (" 3 KiB ", 3072), (None, None)],
)
def test_a_rate_is_a_number_or_a_text_with_a_unit(given_: Any, rate: float | None) -> None:
    assert rate_of(given_) == rate


@pytest.mark.parametrize("given_", [0, -1, "0", "0MiB", "fast", "", "50 MB per day", "-5MiB", float("inf"), float("nan"), True, "1ib", [5]])
def test_a_rate_that_is_none_is_refused_with_its_value(given_: Any) -> None:
    with pytest.raises(ConfigError, match="max_bytes_per_second"):
        rate_of(given_)
