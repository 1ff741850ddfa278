"""Checks that a user gives: what they mean, what they find, and what is refused before anything is restored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.drill_checks import CheckResult, CountCheck, SearchCheck, checked_names, parse_checks
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.names import CollectionName
from tests.unit.drilled_backups import collection

BOOKS = CollectionName("default", "books")
TITLES = collection("titles", "library", schema={"fields": [{"name": "key", "is_primary_key": True, "data_type": 21}]}, indexes=[])
THERE = {one.name: one for one in (collection(), TITLES)}
SEARCH = {"field": "vector", "vector": [0.5, 1], "expect_ids": [7]}
COUNT = {"collection": "books", "expression": "year > 2000"}


def parsed(*checks: Any) -> list[CountCheck | SearchCheck]:
    return parse_checks(list(checks), THERE, "default")


@pytest.mark.parametrize(
    ("expected", "low", "high", "told"),
    [
        ({"count": 1234}, 1234, 1234, "1,234"),
        ({"count": 0}, 0, 0, "0"),
        ({"min_count": 2}, 2, None, "at least 2"),
        ({"max_count": 9}, 0, 9, "at most 9"),
        ({"min_count": 2, "max_count": 9}, 2, 9, "2 to 9"),
    ],
)
def test_a_count_is_exact_or_a_range(expected: dict[str, int], low: int, high: int | None, told: str) -> None:
    (check,) = parsed({**COUNT, **expected})
    assert isinstance(check, CountCheck)
    assert (check.collection, check.expression, check.low, check.high, check.expected) == (BOOKS, "year > 2000", low, high, told)
    assert check.judge(low).ok
    assert not check.judge(low - 1).ok
    assert high is None or not check.judge(high + 1).ok


@given(low=st.integers(0, 50), more=st.integers(0, 50), found=st.integers(0, 120))
def test_a_range_holds_its_ends(low: int, more: int, found: int) -> None:
    (check,) = parsed({**COUNT, "min_count": low, "max_count": low + more})
    assert check.judge(found).ok == (low <= found <= low + more)  # type: ignore[arg-type]


def test_a_result_is_told_in_one_line() -> None:
    (check,) = parsed({**COUNT, "count": 12})
    result = check.judge(1300)  # type: ignore[arg-type]
    assert str(result) == "default.books: count of year > 2000: expected 12, found 1,300"
    assert result.to_dict() == {
        "collection": "default.books",
        "check": "count of year > 2000",
        "ok": False,
        "expected": "12",
        "found": "1,300",
    }


def test_a_search_has_the_metric_of_the_index_and_ten_hits_unless_told_otherwise() -> None:
    (check,) = parsed({"collection": "books", "search": SEARCH})
    assert check == SearchCheck(BOOKS, "vector", 101, [0.5, 1], 10, "L2", "", {}, (7,), 0)
    full = {**SEARCH, "limit": 3, "filter": "year > 2000", "params": {"ef": 64}, "min_hits": 2}
    (check,) = parsed({"collection": "default.books", "search": full})
    assert isinstance(check, SearchCheck)
    assert (check.limit, check.filter, check.params, check.min_hits) == (3, "year > 2000", {"ef": 64}, 2)
    assert (check.title, check.expected) == ("search in vector where year > 2000", "ids 7 and at least 2 hits")


@pytest.mark.parametrize(
    ("wanted", "hits", "ok"),
    [
        ({"expect_ids": [7, 8]}, [8, 3, 7], True),
        ({"expect_ids": [7, 8]}, [8, 3], False),
        ({"expect_ids": [], "min_hits": 2}, [1, 2], True),
        ({"expect_ids": [], "min_hits": 2}, [1], False),
        ({"expect_ids": [7], "min_hits": 2}, [7], False),
    ],
)
def test_a_search_must_find_all_ids_in_any_order_and_enough_of_them(wanted: dict[str, Any], hits: list[int], *, ok: bool) -> None:
    (check,) = parsed({"collection": "books", "search": {**SEARCH, **wanted}})
    result = check.judge(hits)  # type: ignore[arg-type]
    assert isinstance(result, CheckResult)
    assert (result.ok, "without" in result.found) == (ok, not set(wanted["expect_ids"]) <= set(hits))


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (7, r"checks\[0\] 7 is not a dictionary with collection, expression"),
        ({**COUNT, "count": 1, "cuont": 2}, r"checks\[0\] has the unknown key 'cuont'; there are collection, expression, count"),
        ({"expression": "a > 1", "count": 1}, "collection '' is not a text"),
        ({"collection": 7, "expression": "a > 1", "count": 1}, "collection 7 is not a text"),
        ({"collection": "books"}, "expression '' is not a text"),
        ({"collection": "boks", "expression": "a > 1", "count": 1}, "default.boks does not exist; did you mean default.books.*is drilled"),
        ({"collection": "default.*", "expression": "a > 1", "count": 1}, "is not the name of one collection"),
        ({"collection": "books,titles", "expression": "a > 1", "count": 1}, "is not the name of one collection"),
        (COUNT, "expects nothing; give count, or min_count, max_count or both"),
        ({**COUNT, "count": 1, "min_count": 1}, "expects count and min_count; give count, or"),
        ({**COUNT, "count": -1}, "count -1 is not a whole number from 0"),
        ({**COUNT, "count": 1.5}, "count 1.5 is not a whole number"),
        ({**COUNT, "count": True}, "count True is not a whole number"),
        ({**COUNT, "count": "12.5"}, "count '12.5' is not a whole number"),
        ({**COUNT, "count": "None"}, "count 'None' is not a whole number"),
        ({**COUNT, "count": "-1"}, "count '-1' is not a whole number from 0"),
        ({**COUNT, "count": ""}, "count '' is not a whole number"),
        ({**COUNT, "min_count": 3, "max_count": 2}, "min_count 3 is more than max_count 2"),
        ({**COUNT, "search": SEARCH}, "has both search and expression; make two checks of it"),
        ({"collection": "books", "search": "x"}, r"checks\[0\].search 'x' is not a dictionary"),
    ],
)
def test_a_check_that_means_nothing_is_refused_with_the_value_and_the_remedy(check: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parsed(check)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fields": "vector"}, "unknown key 'fields'"),
        ({"field": "year"}, "default.books has no vector field 'year'; it has vector"),
        ({"vector": [1.0]}, "vector for field 'vector' of default.books: it has 1 numbers, and the field takes 2"),
        ({"vector": None}, "not a list of numbers"),
        ({"limit": 0}, "limit 0 is not a whole number from 1 to 16,384"),
        ({"limit": 16_385}, "limit 16385 is not a whole number"),
        ({"expect_ids": ["seven"]}, "is not a list of at most 10 int values"),
        ({"expect_ids": [7.0]}, "is not a list of at most 10 int values"),
        ({"expect_ids": 7}, "is not a list of at most 10 int values"),
        ({"expect_ids": [1, 2, 3], "limit": 2}, "is not a list of at most 2 int values"),
        ({"expect_ids": []}, "expects nothing; give expect_ids or min_hits"),
        ({"min_hits": 11}, "min_hits 11 is not a whole number from 1 to 10"),
        ({"params": "ef"}, "params 'ef' is not a dictionary"),
        ({"params": {"ef": {1, 2}}}, "is not a dictionary that JSON can hold"),
        ({"filter": 7}, "filter 7 is not a text"),
    ],
)
def test_a_search_that_cannot_be_asked_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parsed({"collection": "books", "search": {**SEARCH, **changes}})


def test_numbers_may_be_texts_as_templates_render_them() -> None:
    count, search = parsed(
        {**COUNT, "min_count": " 12", "max_count": "1300"},
        {"collection": "books", "search": {**SEARCH, "limit": "3", "expect_ids": ["7", "-8", 9], "min_hits": "2"}},
    )
    assert count == CountCheck(BOOKS, "year > 2000", 12, 1300)
    assert isinstance(search, SearchCheck)
    assert (search.limit, search.expect_ids, search.min_hits) == (3, (7, -8, 9), 2)
    assert search.judge([7, -8, 9]).ok


def test_keys_that_are_texts_stay_texts() -> None:
    fields = [{**field, "data_type": 21} if field["name"] == "id" else field for field in collection().schema["fields"]]
    texts = collection(schema={"name": "books", "fields": fields})
    (check,) = parse_checks([{"collection": "books", "search": {**SEARCH, "expect_ids": ["7"]}}], {texts.name: texts}, "default")
    assert isinstance(check, SearchCheck)
    assert check.expect_ids == ("7",)


def test_a_search_in_a_field_without_an_index_is_refused() -> None:
    bare = collection(indexes=[])
    with pytest.raises(ConfigError, match=r"default.books has no index of 'vector' in the backup"):
        parse_checks([{"collection": "books", "search": SEARCH}], {bare.name: bare}, "default")


@pytest.mark.parametrize("checks", ["books", {"collection": "books"}, 7])
def test_checks_are_a_list(checks: object) -> None:
    with pytest.raises(ConfigError, match="is not a list of dictionaries"):
        parse_checks(checks, THERE, "default")


def test_the_collections_of_checks_are_named_once_in_the_order_of_the_checks() -> None:
    checks = [{**COUNT, "collection": "library.titles", "count": 1}, {**COUNT, "count": 1}, {**COUNT, "count": 2}]
    assert checked_names(checks, list(THERE), "default") == [TITLES.name, BOOKS]
    assert checked_names(None, list(THERE), "default") == []
