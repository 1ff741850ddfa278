"""Backup names are valid, stable and never shared; selections and rename rules do what they say or are refused."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.names import (
    MAX_BACKUP_NAME,
    CollectionName,
    check_backup_name,
    parse_selection,
    select,
    targets,
    task_name,
)

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DATE = "20261122T020000"
RUN = "scheduled__2026-11-22T02:00:00+00:00"
OFFICIAL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

# Ids that meet at every seam: underscores, digits that look like a map index, dots and dashes, ids that end where others begin.
ids = st.one_of(
    st.text(st.sampled_from("ab_01.-"), min_size=1, max_size=6),
    st.sampled_from(["a", "a_b", "b", "b_c", "t_3", "t", "_", "9", "dag.sub", "dag_sub", "ä", "x" * 120, "x" * 250, f"a_{DATE}", DATE]),
)
runs = st.sampled_from(
    [
        (RUN, DATE, True),
        ("scheduled__2026-11-22T03:00:00+00:00", "20261122T030000", True),
        ("scheduled__2026-11-22T02:00:00.250000+00:00", DATE, False),
        ("manual__2026-11-22T02:00:00+00:00", DATE, True),
        ("backfill__2026-11-22T02:00:00+00:00", DATE, True),
        ("asset_triggered__x", None, False),
        ("my run", None, True),
    ]
)
instances = st.tuples(ids, runs, ids, st.integers(-1, 12))


def name_of(instance: tuple[str, tuple[str, str | None, bool], str, int]) -> str:
    dag, (run, date, whole), task, index = instance
    return task_name(dag, run, task, index, date, whole_second=whole)


def names(*texts: str) -> list[CollectionName]:
    return [CollectionName(*text.split(".")) for text in texts]


# ---- the name of a task instance -----------------------------------------------------------------------------------------------


def test_the_name_of_a_scheduled_run_is_readable() -> None:
    assert task_name("nightly", RUN, "docs", -1, DATE, whole_second=True) == "nightly_20261122T020000_docs"
    assert task_name("nightly", RUN, "docs", 7, DATE, whole_second=True) == "nightly_20261122T020000_docs_7"


@settings(BUSY, max_examples=60)
@given(instances)
def test_a_task_name_is_one_the_official_tool_accepts(instance: Any) -> None:
    assert OFFICIAL_NAME.fullmatch(name_of(instance))
    assert check_backup_name(name_of(instance)) == name_of(instance)


@settings(BUSY, max_examples=40)
@given(instances)
def test_a_retry_gets_the_same_name(instance: Any) -> None:
    assert name_of(instance) == name_of(instance)


@settings(BUSY, max_examples=60)
@given(st.lists(instances, unique=True, min_size=2, max_size=40))
def test_two_task_instances_never_share_a_name(found: list[Any]) -> None:
    assert len({name_of(instance) for instance in found}) == len(found)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a_b", (RUN, DATE, True), "c", -1), ("a", (RUN, DATE, True), "b_c", -1)),
        (("a", (RUN, DATE, True), "t_3", -1), ("a", (RUN, DATE, True), "t", 3)),
        (("a", (RUN, DATE, True), "t.x", -1), ("a", (RUN, DATE, True), "t_x", -1)),
        (("a", (RUN, DATE, True), "t", -1), ("a", ("manual__2026", DATE, True), "t", -1)),
        (("a", (RUN, DATE, True), "t", -1), ("a", (RUN + "x", DATE, False), "t", -1)),
        (("x" * 200 + "1", (RUN, DATE, True), "t", -1), ("x" * 200 + "2", (RUN, DATE, True), "t", -1)),
        ((f"a_{DATE}_b", (RUN, DATE, True), "c", -1), ("a", (RUN, DATE, True), f"b_{DATE}_c", -1)),
    ],
)
def test_ids_that_only_look_alike_get_different_names(one: Any, other: Any) -> None:
    assert name_of(one) != name_of(other)


# ---- a name given by the user --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "_", "nightly_2026", "A" * MAX_BACKUP_NAME])
def test_a_valid_backup_name_is_returned(name: str) -> None:
    assert check_backup_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a b", "a/b", "../a", "a\n", "ä", "a" * (MAX_BACKUP_NAME + 1), "a.b", "{{ ds }}"])
def test_an_invalid_backup_name_is_refused_with_the_name(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_backup_name(name)
    assert repr(name) in str(caught.value)


# ---- selection -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "patterns"),
    [
        (None, []),
        ("", []),
        ("  ", []),
        ([], []),
        ("a", ["a"]),
        ("a, db.b ,db2.*,", ["a", "db.b", "db2.*"]),
        (["a", " db.b "], ["a", "db.b"]),
        (("a",), ["a"]),
    ],
)
def test_a_selection_is_a_list_or_a_text_with_commas(selection: Any, patterns: list[str]) -> None:
    assert parse_selection(selection) == patterns


@pytest.mark.parametrize("selection", ["*", "a b", "db.", ".a", "a.b.c", "a*", "db.a*", "1a", "a-b", ["a,b"], [""], ["a", " "], "ä", "*.a"])
def test_a_selection_of_another_shape_is_refused(selection: Any) -> None:
    with pytest.raises(ConfigError, match="collections"):
        parse_selection(selection)


@pytest.mark.parametrize("selection", [5, [None], {"a": 1}])
def test_a_selection_that_is_no_text_is_refused(selection: Any) -> None:
    with pytest.raises(ConfigError):
        parse_selection(selection)


HERE = names("default.docs", "default.news", "shop.docs", "shop.items")


@pytest.mark.parametrize(
    ("patterns", "picked"),
    [
        ([], HERE),
        (["docs"], names("default.docs")),
        (["shop.docs"], names("shop.docs")),
        (["shop.*"], names("shop.docs", "shop.items")),
        (["shop.items", "docs"], names("default.docs", "shop.items")),
        (["docs", "default.docs", "default.*"], names("default.docs", "default.news")),
    ],
)
def test_patterns_pick_each_collection_once_in_the_order_that_exists(patterns: list[str], picked: list[CollectionName]) -> None:
    assert select(HERE, patterns) == picked


def test_a_bare_name_means_the_default_database_of_the_call() -> None:
    assert select(HERE, ["docs"], "shop") == names("shop.docs")


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("dcos", "did you mean default.docs"),
        ("shop.itms", "shop.items"),
        ("shp.*", "did you mean shop"),
        ("nowhere.*", "holds no collection"),
    ],
)
def test_a_pattern_that_picks_nothing_is_refused_with_the_nearest_names(pattern: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as caught:
        select(HERE, [pattern])
    assert pattern.removesuffix(".*") in str(caught.value)


def test_without_any_collection_everything_is_nothing() -> None:
    assert select([], []) == []


plain = st.text(st.sampled_from("ab"), min_size=1, max_size=2)
collections = st.lists(st.builds(CollectionName, plain, plain), unique=True, max_size=8)


@settings(BUSY, max_examples=60)
@given(collections, st.data())
def test_what_is_picked_is_what_some_pattern_names(available: list[CollectionName], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(available), unique=True) if available else st.just([]))
    whole = data.draw(st.booleans())
    patterns = [f"{name.database}.*" if whole else str(name) for name in wanted]
    expected = [n for n in available if n in wanted or (whole and n.database in {w.database for w in wanted})]
    assert select(available, patterns) == (expected if patterns else available)


# ---- targets -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "rename", "expected"),
    [
        (None, None, HERE),
        ("", {}, HERE),
        ("_old", None, names("default.docs_old", "default.news_old", "shop.docs_old", "shop.items_old")),
        (None, {"docs": "texts"}, names("default.texts", "default.news", "shop.docs", "shop.items")),
        (None, {"shop.docs": "docs2"}, names("default.docs", "default.news", "shop.docs2", "shop.items")),
        (None, {"shop.docs": "old.docs"}, names("default.docs", "default.news", "old.docs", "shop.items")),
        (None, {"shop.*": "shop2.*"}, names("default.docs", "default.news", "shop2.docs", "shop2.items")),
        (None, {"shop.*": "s2.*", "shop.docs": "s3.d"}, names("default.docs", "default.news", "s3.d", "s2.items")),
        (None, {"docs": "news", "news": "docs"}, names("default.news", "default.docs", "shop.docs", "shop.items")),
        (None, {"default.*": "shop.*", "shop.*": "default.*"}, names("shop.docs", "shop.news", "default.docs", "default.items")),
    ],
)
def test_suffix_and_rename_rules_give_each_source_its_target(suffix: Any, rename: Any, expected: list[CollectionName]) -> None:
    assert targets(HERE, suffix, rename) == dict(zip(HERE, expected, strict=True))


@pytest.mark.parametrize(
    ("suffix", "rename", "message"),
    [
        ("_x", {"docs": "a"}, "exclude each other"),
        ("-x", None, "suffix '-x' is not valid"),
        ("_ä", None, "is not valid"),
        ("x" * 255, None, "not a name that Milvus accepts"),
        (None, {"docs": "b c"}, "rename: 'b c' is not"),
        (None, {"docs": "x.*"}, "mixes a database with a collection"),
        (None, {"shop.*": "docs"}, "mixes a database with a collection"),
        (None, {"dox": "a"}, "matches no collection of this restore; did you mean default.docs"),
        (None, {"nowhere.*": "shop.*"}, "matches no collection"),
        (None, {"docs": "news"}, "default.docs and default.news would both be restored as default.news"),
        (None, {"shop.*": "default.*"}, "default.docs and shop.docs would both be restored as default.docs"),
        (None, {"docs": "a", "shop.docs": "default.a"}, "would both be restored as default.a"),
        (None, {"*": "x.*"}, "rename: '*' is not"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(suffix: Any, rename: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        targets(HERE, suffix, rename)


@pytest.mark.parametrize("rename", [{"docs": "a", "default.docs": "b"}, {"default.docs": "b", "docs": "a"}])
def test_two_rules_for_one_collection_are_refused(rename: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="twice"):
        targets(HERE, None, rename)


@pytest.mark.parametrize("rename", [{"docs": 1}, {"docs": None}, {1: "docs"}])
def test_a_rule_that_is_no_text_is_refused(rename: Any) -> None:
    with pytest.raises(ConfigError):
        targets(HERE, None, rename)


@pytest.mark.parametrize("name", ["../etc", "a/b", "a.b", "", "a\n", "a b", "1a"])
def test_a_name_from_a_hostile_backup_never_becomes_a_target(name: str) -> None:
    with pytest.raises(ConfigError):
        targets([CollectionName("default", name)])
    with pytest.raises(ConfigError):
        targets([CollectionName(name, "docs")])


rules = st.dictionaries(
    plain | st.builds("{}.{}".format, plain, plain | st.just("*")), plain | st.builds("{}.{}".format, plain, plain | st.just("*"))
)


@settings(BUSY, max_examples=50)
@given(collections, rules, st.none() | plain)
def test_targets_are_distinct_and_cover_every_source(sources: list[CollectionName], rename: dict[str, str], suffix: str | None) -> None:
    with contextlib.suppress(ConfigError):
        found = targets(sources, suffix, rename, "a")
        assert list(found) == sources
        assert len(set(found.values())) == len(sources)


@settings(BUSY, max_examples=60)
@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_any_text_is_understood_or_refused_with_a_config_error(pattern: str, old: str, new: str) -> None:
    with contextlib.suppress(ConfigError):
        select(HERE, parse_selection(pattern))
    with contextlib.suppress(ConfigError):
        targets(HERE, new, None)
    with contextlib.suppress(ConfigError):
        targets(HERE, None, {old: new})
