"""Whether the logs of a segment fit together: those that Milvus leaves do, and each thing that is wrong has a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.binlog_check import Checked, check_delta_log, check_insert_log, compare_segment, needed_fields
from airflow_provider_milvus_backup.core.jsonreader import Node
from tests.golden_backups.expected import GOLDEN
from tests.unit.binlog_files import real

NEEDED = frozenset({100, 101})
#: Rows by log in the order of their ids, by field.
Rows = Mapping[int, Sequence[int | None]]
WHOLE: Rows = {0: [3, 4], 1: [3, 4], 100: [3, 4], 101: [3, 4]}


def logs(rows: Rows, *, framed: bool = True, foreign: int | None = None) -> dict[int, list[Checked]]:
    """Return what was checked; log ids grow from log to log, and the ones that came last are first, as a listing may have it."""
    return {
        field: [Checked(f"{field}/{n}", n, held, framed, foreign) for n, held in enumerate(chunks)][::-1] for field, chunks in rows.items()
    }


def delta(foreign: int | None = None, rows: int = 2) -> Checked:
    return Checked(f"delta/{foreign}", 9, rows, framed=True, foreign=foreign)


def test_real_segments_fit_together() -> None:
    inserts: dict[int, dict[int, list[Checked]]] = {}
    deltas: dict[int, list[Checked]] = {}
    for log in real():
        if log.field < 0:
            deltas.setdefault(log.segment, []).append(check_delta_log(log.content, log.key))
        else:
            inserts.setdefault(log.segment, {}).setdefault(log.field, []).append(check_insert_log(log.content, log.key))
    rows = {470756774119411202: 300, 470756774119411210: 100, 470756774119611911: 111}
    assert set(inserts) == set(rows)
    for segment, fields in inserts.items():
        assert compare_segment(rows[segment], fields, deltas.get(segment, []), NEEDED) == []


FITTING: dict[str, tuple[int, Rows]] = {
    "all fields": (7, WHOLE),
    "rows that the meta does not record": (0, WHOLE),
    "a field that was added later": (7, {**WHOLE, 102: [4]}),
    "a field that was added last": (12, {**{field: [3, 4, 5] for field in WHOLE}, 102: [4, 5], 103: [5]}),
    "a field that was dropped": (12, {**{field: [3, 4, 5] for field in WHOLE}, 102: [3, 4]}),
    "an encrypted field": (7, {**WHOLE, 101: [None, None]}),
    "everything encrypted": (7, {field: [None] for field in WHOLE}),
}


@pytest.mark.parametrize("case", FITTING)
def test_what_milvus_leaves_fits_together(case: str) -> None:
    recorded, rows = FITTING[case]
    assert compare_segment(recorded, logs(rows), [delta()], NEEDED) == []


def test_column_groups_need_no_log_per_field() -> None:
    assert compare_segment(7, logs({0: [3, 4], 102: [3, 4]}, framed=False), [delta()], NEEDED) == []
    assert compare_segment(7, logs({0: [3, 4], 102: [4]}, framed=False), [], NEEDED) == []
    assert compare_segment(7, logs({0: [3, 4], 101: [4]}, framed=False), [], NEEDED) == [
        "column group 101 has 4 rows in 1 log, not 7 in 2"
    ]
    assert compare_segment(7, logs({102: [3, 4]}, framed=False), [], NEEDED) == ["column group 0 is missing"]


def test_segments_without_rows_need_nothing() -> None:
    assert compare_segment(0, {}, [delta()], NEEDED) == []
    assert compare_segment(0, {}, [], NEEDED) == []
    assert compare_segment(0, {101: []}, [], NEEDED) == ["column group 0 is missing"]


WRONG: dict[str, tuple[int, Rows, list[str]]] = {
    "other rows than the meta says": (8, WHOLE, ["its logs hold 7 rows, the meta says 8"]),
    "a field with fewer rows": (7, {**WHOLE, 101: [3, 3]}, ["field 101 has 6 rows in 2 logs, not 7 in 2"]),
    "logs of one field that were swapped": (7, {**WHOLE, 101: [4, 3]}, ["field 101 has 7 rows in 2 logs, not 7 in 2"]),
    "a field with a log too few": (7, {**WHOLE, 101: [4]}, ["field 101 has 4 rows in 1 log, not 7 in 2"]),
    "a field with a log too many": (7, {**WHOLE, 102: [3, 4, 5]}, ["field 102 has 12 rows in 3 logs, not 7 in 2"]),
    "an added field with other rows": (7, {**WHOLE, 102: [5]}, ["field 102 has 5 rows in 1 log, not 7 in 2"]),
    "timestamps that begin later": (7, {**WHOLE, 1: [4]}, ["field 1 has 4 rows in 1 log, not 7 in 2"]),
    "no row ids": (7, {field: rows for field, rows in WHOLE.items() if field != 0}, ["field 0 is missing"]),
    "no timestamps": (7, {field: rows for field, rows in WHOLE.items() if field != 1}, ["field 1 is missing"]),
    "a field that every row needs": (7, {field: rows for field, rows in WHOLE.items() if field != 101}, ["field 101 is missing"]),
    "a field whose logs are gone": (7, {**WHOLE, 102: []}, ["field 102 has 0 rows in 0 logs, not 7 in 2"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said(case: str) -> None:
    recorded, rows, sentences = WRONG[case]
    assert compare_segment(recorded, logs(rows), [], NEEDED) == sentences


def test_binlogs_and_column_groups_do_not_mix() -> None:
    mixed = {**logs(WHOLE), 102: logs({102: [3, 4]}, framed=False)[102]}
    assert compare_segment(7, mixed, [], NEEDED) == ["some of its insert logs are binlogs and some are Parquet files"]


# ---- logs of other segments ----------------------------------------------------------------------------------------------------------


SIBLINGS = frozenset({3, 77, 78})


def test_an_insert_log_of_another_segment_is_found() -> None:
    swapped = {**logs(WHOLE), 101: logs({101: [3, 4]}, foreign=5)[101]}
    assert compare_segment(7, swapped, [], NEEDED, SIBLINGS) == ["'101/1' is of segment 5", "'101/0' is of segment 5"]
    two = {**logs(WHOLE, foreign=5), 101: logs({101: [3, 4]}, foreign=6)[101]}
    assert len(compare_segment(7, two, [], NEEDED, SIBLINGS)) == 8


def test_logs_that_are_all_of_another_segment_of_the_collection_are_found() -> None:
    assert len(compare_segment(7, logs(WHOLE, foreign=77), [], NEEDED, SIBLINGS)) == 8
    assert compare_segment(7, logs(WHOLE), [delta(), delta(77)], NEEDED, SIBLINGS) == ["'delta/77' is of segment 77"]
    assert compare_segment(7, logs({0: [3, 4]}, framed=False), [delta(77)], NEEDED, SIBLINGS) == ["'delta/77' is of segment 77"]
    assert compare_segment(0, {}, [delta(), delta(78)], NEEDED, SIBLINGS) == ["'delta/78' is of segment 78"]


def test_a_segment_that_milvus_has_copied_as_a_whole_is_no_damage() -> None:
    assert compare_segment(7, logs(WHOLE, foreign=5), [delta(5), delta()], NEEDED, SIBLINGS) == []
    assert compare_segment(7, logs({0: [3, 4]}, framed=False), [delta(5), delta()], NEEDED, SIBLINGS) == []
    assert compare_segment(0, {}, [delta(5), delta(5)], NEEDED, SIBLINGS) == []


def test_deletes_of_a_segment_that_was_compacted_into_this_one_are_no_damage() -> None:
    assert compare_segment(7, logs(WHOLE), [delta(5), delta(6), delta()], NEEDED, SIBLINGS) == []


# ---- schemas -------------------------------------------------------------------------------------------------------------------------


def test_fields_that_can_have_been_added_later_are_not_needed() -> None:
    schema: dict[str, Any] = {
        "fields": [
            {"fieldID": 100, "is_primary_key": True},
            {"fieldID": 101},
            {"fieldID": 102, "nullable": True},
            {"fieldID": 103, "default_value_base64": "CAE="},
            {"fieldID": 104, "default_value_proto": "x"},
            {"fieldID": 105, "is_function_output": True},
            {"fieldID": 106, "is_dynamic": True},
        ]
    }
    assert needed_fields(schema) == NEEDED
    assert needed_fields({}) == needed_fields({"fields": None}) == frozenset()


@pytest.mark.parametrize("tree", sorted(path.name for path in GOLDEN.iterdir() if (path / "meta/full_meta.json").exists()))
def test_schemas_of_all_generations_say_what_is_needed(tree: str) -> None:
    full = Node.parse((GOLDEN / tree / "meta/full_meta.json").read_bytes(), "full_meta.json")
    for collection in full.nodes("collection_backups"):
        fields = collection.value["schema"]["fields"]
        key = next(field["fieldID"] for field in fields if field.get("is_primary_key"))
        assert {key} <= needed_fields(collection.value["schema"]) <= {field["fieldID"] for field in fields}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_whatever_single_log_holds_other_rows_is_found(chunks: list[int], data: st.DataObject) -> None:
    rows = {field: list(chunks) for field in (*WHOLE, 102)}
    assert compare_segment(sum(chunks), logs(rows), [], NEEDED) == []
    field, chunk = data.draw(st.sampled_from(sorted(rows))), data.draw(st.integers(0, len(chunks) - 1))
    rows[field][chunk] += data.draw(st.integers(1, 9))
    assert compare_segment(sum(chunks), logs(rows), [], NEEDED)
