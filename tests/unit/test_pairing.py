"""Comparing a listing with what should be there: right in any order, and little is kept when both come by key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.manifest import Recorded
from airflow_provider_milvus_backup.core.pairing import Contents, pair
from airflow_provider_milvus_backup.core.store import StoredObject
from airflow_provider_milvus_backup.core.verification import MISSING, Finding
from tests.unit.verified_backups import backup_of, contents

KEYS = st.lists(st.text("ab/1", min_size=1, max_size=4), unique=True, max_size=30)


@given(expected=KEYS, found=KEYS)
def test_every_key_comes_once_with_its_other_half_if_it_has_one_whatever_the_order(expected: list[str], found: list[str]) -> None:
    pairs = list(pair((Recorded(key, 1, "") for key in expected), (StoredObject(key, 1, "") for key in found)))
    assert all(one is None or other is None or one.key == other.key for one, other in pairs)
    assert sorted(one.key for one, _ in pairs if one) == sorted(expected)
    assert sorted(other.key for _, other in pairs if other) == sorted(found)
    assert sum(1 for one, other in pairs if one and other) == len(set(expected) & set(found))


def test_sorted_sides_are_compared_as_they_come() -> None:
    taken = 0

    def listing() -> list[StoredObject]:
        return [StoredObject(f"{number:06}", 1, "") for number in range(10_000)]

    def counted() -> object:
        nonlocal taken
        for item in listing():
            taken += 1
            yield item

    pairs = pair((Recorded(f"{number:06}", 1, "") for number in range(10_000)), counted())  # type: ignore[arg-type]
    for number in range(100):
        assert next(pairs)[0] == Recorded(f"{number:06}", 1, "")
        assert taken <= number + 2


def test_the_objects_of_the_meta_are_those_of_the_data_by_key() -> None:
    data = contents()
    found = Contents(backup_of(data)).objects()
    assert [(one.key, one.size) for one in found] == sorted((key, len(content)) for key, content in data.items())


def test_what_lies_in_the_directory_of_a_segment_would_be_imported_and_nothing_else() -> None:
    within = Contents(backup_of(contents()))
    for key in ("insert_log/10/11/12/12/100/1", "insert_log/10/11/12/77/0/1", "delta_log/10/11/13/13/1", "delta_log/10/-1/19/5"):
        assert within.would_be_imported(f"binlogs/{key}")
    for key in ("insert_log/10/11/99/99/0/1", "insert_log/10/12/12/12/0/1", "delta_log/10/-1/20/5", "insert_log/99/11/12/12/0/1"):
        assert not within.would_be_imported(f"binlogs/{key}")


def test_damage_is_told_by_collection_and_what_concerns_everything_leaves_nothing_whole() -> None:
    within = Contents(backup_of(contents()))
    found = within.finding(MISSING, "binlogs/insert_log/10/14/15/15/0/1", "is missing")
    assert (found.collection_id, found.partition_id, found.segment_id) == (10, 14, 15)
    ((damage,), intact) = within.judge([found, found])
    assert str(damage) == "default.c10: 1 of 4 segments damaged in partitions p14; the other 3 hold 6 of 9 rows"
    assert intact == ["default.c20"]
    assert within.judge([]) == ([], ["default.c10", "default.c20"])
    assert within.judge([Finding("meta", "meta/full_meta.json", "is missing")]) == ([], [])
