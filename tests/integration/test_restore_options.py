"""Renaming, choosing, replacing, appending, and everything else that can be asked of a restore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.errors import SchemaMismatch
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.integration import data
from tests.integration.clusters import Cluster, everything
from tests.integration.conftest import Zoo

FIRST, SECOND = CollectionName("options", "first"), CollectionName("options", "second")


@pytest.fixture(scope="module", autouse=True)
def shapes(a: Cluster) -> Iterator[dict[CollectionName, data.Collection]]:
    """Two collections in a database of their own, backed up as ``options``."""
    made = {name: data.docs(name.collection, name.database, options={"num_shards": 2}) for name in (FIRST, SECOND)}
    for i, shape in enumerate(made.values()):
        a.create(shape, range(100 * i, 100 * i + 50))
    a.server.load(FIRST)
    data.wait_until(lambda: a.server.load_state(FIRST) == "Loaded")
    a.backup("options", "options.*")
    yield made
    a.drop(FIRST, SECOND)


@pytest.fixture(autouse=True)
def clean(a: Cluster) -> Iterator[None]:
    """Drop every collection that a test made."""
    before = a.collections()
    yield
    for database, names in a.collections().items():
        a.drop(*(CollectionName(database, name) for name in set(names) - set(before.get(database, []))))


def made(a: Cluster, before: dict[str, list[str]]) -> set[str]:
    return {f"{db}.{name}" for db, names in a.collections().items() for name in names if name not in before.get(db, [])}


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ({"options.first": "options.a", "options.second": "options.b"}, {"options.a", "options.b"}),
        ({"options.*": "renamed.*"}, {"renamed.first", "renamed.second"}),
        ({"options.*": "renamed.*", "options.first": "elsewhere.one"}, {"elsewhere.one", "renamed.second"}),
        ({"options.first": "options.second_copy", "options.*": "renamed.*"}, {"options.second_copy", "renamed.second"}),
    ],
    ids=["one by one", "a database", "an exact rule wins", "an exact rule wins first"],
)
def test_rename(a: Cluster, rename: dict[str, str], expected: set[str]) -> None:
    before = a.collections()
    a.restore("options", rename=rename, meta_only=True, load="never")
    assert made(a, before) == expected


def test_two_collections_can_change_names(a: Cluster) -> None:
    a.restore("options", rename={"options.first": "swapped.second", "options.second": "swapped.first"})
    assert data.count(a.contents(CollectionName("swapped", "second"))) == 50
    assert min(a.contents(CollectionName("swapped", "first"))["_default"]) == 100


def test_a_subset(a: Cluster) -> None:
    before = a.collections()
    summary = a.restore("options", collections="options.second", suffix="_bak", load="never")
    assert made(a, before) == {"options.second_bak"}
    assert summary["rows"] == 50


def test_replace(a: Cluster) -> None:
    name = CollectionName("replaced", "first")
    a.create(data.docs("first", "replaced"), range(7000, 7100), load=True)
    a.restore("options", collections="options.first", rename={"options.*": "replaced.*"}, if_exists="replace")
    assert sorted(a.contents(name, load=False)["_default"]) == list(range(50))


def test_append_into_a_loaded_collection_shows_the_new_rows(a: Cluster) -> None:
    name = CollectionName("appended", "first")
    shape = a.create(data.docs("first", "appended", partitions=["more"]), range(7000, 7020), load=True)
    shape.insert(a.client("appended"), range(7100, 7105), "more")
    a.restore("options", collections="options.first", rename={"options.*": "appended.*"}, if_exists="append")
    found = a.contents(name, load=False)
    assert sorted(found["_default"]) == [*range(50), *range(7000, 7020)]
    assert sorted(found["more"]) == list(range(7100, 7105))


def test_append_creates_missing_partitions(a: Cluster, zoo: Zoo) -> None:
    name = CollectionName("appended", "zoo_many")
    a.create(data.docs("zoo_many", "appended"))
    a.restore(zoo.name, collections="zoo_many", rename={"zoo_many": str(name)}, if_exists="append")
    assert a.contents(name) == zoo.rows[data.MANY.name]


def test_append_into_other_fields_is_refused_before_anything_changes(a: Cluster) -> None:
    a.create(replace(data.VARCHAR, name=CollectionName("options", "second_bak")))
    before = everything(a)
    with pytest.raises(SchemaMismatch, match=r"options.second_bak in Milvus has other fields than options.second in the backup"):
        a.restore("options", suffix="_bak", if_exists="append")
    assert everything(a) == before


def test_meta_only_restores_no_rows(a: Cluster) -> None:
    summary = a.restore("options", suffix="_meta", meta_only=True)
    assert (summary["rows"], summary["jobs"]) == (0, 0)
    name = CollectionName("options", "first_meta")
    assert data.count(a.contents(name, load=False)) == 0
    assert data.indexes(a.client("options"), "first_meta") == data.indexes(a.client("options"), "first")


def test_shards_are_capped(a: Cluster) -> None:
    a.restore("options", collections="options.first", suffix="_capped", max_shards=1)
    name = CollectionName("options", "first_capped")
    assert a.server.describe(name).shards_num == 1
    assert sorted(a.contents(name, load=False)["_default"]) == list(range(50))


def test_without_indexes_nothing_is_loaded(a: Cluster) -> None:
    a.restore("options", suffix="_bare", restore_indexes=False, meta_only=True)
    assert data.indexes(a.client("options"), "first_bare") == {}
    assert data.load_states(a.client("options"), "first_bare") == {"": "NotLoad", "_default": "NotLoad"}


@pytest.mark.parametrize(
    ("load", "states"), [("always", ("Loaded", "Loaded")), ("never", ("NotLoad", "NotLoad")), ("as_backed_up", ("Loaded", "NotLoad"))]
)
def test_load(a: Cluster, load: str, states: tuple[str, str]) -> None:
    a.restore("options", suffix=f"_{load}", load=load, meta_only=True)
    for name, state in zip((FIRST, SECOND), states, strict=True):
        assert a.client("options").get_load_state(f"{name.collection}_{load}")["state"].name == state


def test_skip_flush_backs_up_what_is_flushed(a: Cluster) -> None:
    shape = a.create(data.docs("skipped", "options"), range(20))
    shape.insert(a.client("options"), range(20, 40))
    assert a.backup("skipped", "options.skipped", "skip_flush")["rows"] == 20
    a.restore("skipped", suffix="_bak", load="always")
    assert sorted(a.contents(CollectionName("options", "skipped_bak"), load=False)["_default"]) == list(range(20))


def test_a_large_partition_comes_back_in_several_jobs(a: Cluster, zoo: Zoo) -> None:
    size = next(one for one in zoo.summary["collections"] if one["name"] == "zoo_many")["bytes"]
    small = replace(a.settings, max_job_bytes=size // 4)
    summary = a.restore(zoo.name, settings=small, collections="zoo_many", suffix="_jobs")
    assert 4 <= summary["jobs"] < 8
    assert a.contents(CollectionName("default", "zoo_many_jobs"), load=False) == zoo.rows[data.MANY.name]


def test_another_worker_can_finish_what_one_has_started(a: Cluster) -> None:
    one, other = RestoreRun.open(a.settings, Reporter(a.log)), RestoreRun.open(a.settings, Reporter(a.log))
    one.start("options", "handed-over", RestoreOptions(collections="options.first", suffix="_over"))
    one.close()
    state = other.states.load("options", "handed-over")
    other.wait(state, 1.0)
    summary: dict[str, Any] = other.finish(state)
    assert other.finish(other.states.load("options", "handed-over")) == summary
    other.close()
    assert sorted(a.contents(CollectionName("options", "first_over"), load=False)["_default"]) == list(range(50))
