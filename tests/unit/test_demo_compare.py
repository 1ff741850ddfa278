"""The demo says "identical" only when it is true: every way in which two collections can differ is found."""

from __future__ import annotations

import copy
import struct
from typing import Any

import pytest

from demo.compare import count, differences

Rows = dict[str, dict[int, dict[str, Any]]]


def vector(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


ROWS: Rows = {
    "_default": {
        1: {"id": 1, "title": "a", "price": 1.0, "details": {"tags": ["x"]}, "embedding": vector(0.1, 0.2), "color": "red"},
        2: {"id": 2, "title": "b", "price": 2.0, "details": {}, "embedding": vector(0.3, 0.4)},
    },
    "archive": {3: {"id": 3, "title": "c", "price": 3.0, "details": {}, "embedding": vector(0.5, 0.6)}},
    "empty": {},
}


@pytest.fixture
def restored() -> Rows:
    return copy.deepcopy(ROWS)


def found(restored: Rows) -> list[str]:
    return list(differences(ROWS, restored))


def test_copies_are_identical(restored: Rows) -> None:
    assert found(restored) == []
    assert count(restored) == 3


def test_the_order_of_rows_and_fields_means_nothing(restored: Rows) -> None:
    turned = {name: {key: dict(reversed(row.items())) for key, row in reversed(rows.items())} for name, rows in reversed(restored.items())}
    assert found(turned) == []


def test_a_missing_row(restored: Rows) -> None:
    del restored["archive"][3]
    assert found(restored) == ["partition archive, row 3: missing"]


def test_a_row_too_much(restored: Rows) -> None:
    restored["empty"][9] = {"id": 9}
    assert found(restored) == ["partition empty, row 9: too much"]


def test_a_row_in_another_partition(restored: Rows) -> None:
    restored["archive"][1] = restored["_default"].pop(1)
    assert found(restored) == ["partition _default, row 1: missing", "partition archive, row 1: too much"]


@pytest.mark.parametrize(("name", "expected"), [("archive", "partition archive: missing"), ("empty", "partition empty: missing")])
def test_a_missing_partition(restored: Rows, name: str, expected: str) -> None:
    del restored[name]
    assert found(restored) == [expected]


def test_a_partition_too_much(restored: Rows) -> None:
    restored["new"] = {}
    assert found(restored) == ["partition new: too much"]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("title", "A", "field title: 'a' became 'A'"),
        ("price", 1, "field price: 1.0 became 1"),
        ("details", {"tags": ["x", "y"]}, "field details: {'tags': ['x']} became {'tags': ['x', 'y']}"),
        ("color", "blue", "field color: 'red' became 'blue'"),
        ("rating", 5, "field rating: nothing became 5"),
        ("rating", None, "field rating: nothing became None"),
    ],
)
def test_another_value(restored: Rows, field: str, value: object, expected: str) -> None:
    restored["_default"][1][field] = value
    assert found(restored) == [f"partition _default, row 1, {expected}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, 1.0), (1, True), (0.0, -0.0), ([1], [1.0]), ({"a": 1}, {"a": True}), ({"a": {"b": [0]}}, {"a": {"b": [False]}})],
)
def test_equal_in_python_is_not_the_same(before: object, after: object) -> None:
    assert list(differences({"p": {1: {"x": before}}}, {"p": {1: {"x": after}}})) == [
        f"partition p, row 1, field x: {before!r} became {after!r}"
    ]


def test_the_order_of_json_keys_means_nothing_but_that_of_lists_does() -> None:
    row: dict[str, Any] = {"x": {"a": [1, 2], "b": 1}}
    assert list(differences({"p": {1: row}}, {"p": {1: {"x": {"b": 1, "a": [1, 2]}}}})) == []
    assert list(differences({"p": {1: row}}, {"p": {1: {"x": {"b": 1, "a": [2, 1]}}}})) != []


def test_a_vector_that_differs_in_one_bit(restored: Rows) -> None:
    changed = bytearray(restored["_default"][2]["embedding"])
    changed[0] ^= 1
    restored["_default"][2]["embedding"] = bytes(changed)
    assert len(found(restored)) == 1


def test_a_missing_dynamic_field(restored: Rows) -> None:
    del restored["_default"][1]["color"]
    assert found(restored) == ["partition _default, row 1, field color: 'red' became nothing"]


def test_long_values_are_cut() -> None:
    (line,) = differences({"p": {1: {"x": "a" * 500}}}, {"p": {1: {"x": "b"}}})
    assert len(line) < 120
