"""Collections of every shape, restored over REST: keys of all kinds, partitions by key, other shards, nothing in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import finishing
from airflow_provider_milvus_backup.core.errors import ServerError
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.contract import shapes
from tests.contract.profiles import PROFILES

from .restoring import BACK, NAME, RESTORE_ID, creates, deletes, once_each, restoring, segments
from .worlds import World

LINES = ["2.4.5", "2.5.10", "2.6.20", "3.0.1"]
VECTOR = shapes.field("v", shapes.FLOAT_VECTOR, dim="2")


def both(world: World, **options: Any) -> dict[str, Any]:
    """Back up, restore, check that nothing is there twice, and return the rows that came back."""
    world.backup()
    world.restore(suffix="_back", **options)
    assert once_each(world)
    return dict(world.model.rows(BACK))


@pytest.mark.parametrize("version", LINES)
def test_keys_that_are_texts_or_given_by_milvus(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    model = world.model
    texts, given = NAME, ("default", "given")
    model.create_collection(texts, shapes.schema("docs", shapes.field("id", shapes.VARCHAR, key=True, max_length="20"), VECTOR), shards=2)
    model.insert(texts, [{"id": f"key {number} ü", "v": [float(number), 0.5]} for number in range(10)])
    model.flush(texts)
    model.delete(texts, ["key 3 ü"])
    model.create_collection(given, shapes.schema("given", shapes.field("id", shapes.INT64, key=True, autoID=True), VECTOR))
    keys = model.insert(given, [{"v": [float(number), 0.5]} for number in range(10)])
    model.flush(given)
    model.delete(given, keys[:2])
    rows, more = model.rows(texts), model.rows(given)
    assert both(world) == rows
    assert model.rows(("default", "given_back")) == more
    assert {*more["_default"]} == {*keys[2:]}


@pytest.mark.parametrize("version", LINES)
def test_rows_stay_in_the_partition_that_their_key_chose(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    model = world.model
    keyed = shapes.field("tenant", shapes.VARCHAR, max_length="20", is_partition_key=True)
    model.create_collection(NAME, shapes.schema("docs", shapes.field("id", shapes.INT64, key=True), keyed, VECTOR))
    model.insert(NAME, [shapes.row(number, tenant=f"t{number % 7}") for number in range(40)])
    model.flush(NAME)
    model.delete(NAME, [4, 5])
    model.upsert(NAME, [shapes.row(6, tenant="t1")])
    rows = model.rows(NAME)
    assert len([name for name, found in rows.items() if found]) > 3
    assert both(world) == rows
    assert all(body.get("partitionName", "_default_0") in rows for body in creates(world))


@pytest.mark.parametrize("version", ["2.4.5", "2.6.20"])
def test_deletes_reach_their_rows_in_other_shards(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    assert both(world, max_shards=1) == rows
    assert world.model.collection(BACK).shards == 1


@pytest.mark.parametrize("version", ["2.5.10", "3.0.1"])
def test_a_collection_of_nothing_but_deletes(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    model = world.model
    model.create_collection(NAME, shapes.schema("docs"))
    model.create_partition(NAME, "second")
    model.delete(NAME, [1, 2])
    model.flush(NAME)
    assert both(world) == {"_default": {}, "second": {}}
    model.insert(BACK, [shapes.row(1)])
    assert {*model.rows(BACK)["_default"]} == {1}


@pytest.mark.parametrize("version", ["2.5.10", "3.0.1"])
def test_an_empty_collection_needs_no_job(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    world.model.create_collection(NAME, shapes.schema("docs"))
    assert both(world) == {"_default": {}}
    assert creates(world) == []


@pytest.mark.parametrize("version", ["2.5.10", "3.0.1"])
def test_a_collection_of_which_every_row_is_deleted(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    model = world.model
    model.create_collection(NAME, shapes.schema("docs"))
    model.insert(NAME, [shapes.row(number) for number in range(5)])
    model.flush(NAME)
    model.delete(NAME, range(5))
    assert both(world) == {"_default": {}}


@pytest.mark.parametrize("version", [name for name, profile in PROFILES.items() if profile.nullable][::2])
def test_fields_that_are_null_or_have_a_default(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fields = (shapes.field("n", shapes.INT64, nullable=True), shapes.field("d", shapes.INT64, default=7))
    world.model.create_collection(NAME, shapes.schema("docs", shapes.field("id", shapes.INT64, key=True), VECTOR, *fields))
    world.model.insert(NAME, [shapes.row(1, n=None), shapes.row(2, n=5, d=9), shapes.row(3)])
    rows = world.model.rows(NAME)
    assert (rows["_default"][3]["n"], rows["_default"][3]["d"]) == (None, 7)
    assert both(world) == rows


@pytest.mark.parametrize("version", ["2.4.24", "2.6.20", "3.0.1"])
def test_a_collection_is_replaced_when_the_restored_one_is_complete(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.backup()
    world.model.delete(NAME, range(200))
    world.model.insert(NAME, [shapes.row(999)])
    old = world.model.collection(NAME).id
    world.restore(if_exists="replace")
    assert world.model.rows(NAME) == rows
    assert world.model.collection(NAME).id != old
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_a_collection_that_milvus_gives_up_loading_is_named_and_a_further_try_loads_it(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing, "IDLE_LOOKS", 2)
    world = milvus("2.6.4")
    segments(world, 1, indexes=True)
    world.backup()
    with monkeypatch.context() as patch, restoring(world) as run:
        patch.setattr(world.model, "load", lambda *_: None)
        state = run.start("nightly", RESTORE_ID, RestoreOptions(suffix="_back", load="always"))
        run.wait(state, 0.1)
        with pytest.raises(ServerError, match=r"^Milvus has given up loading default\.docs_back, whose rows are all imported"):
            run.finish(state)
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, RestoreOptions(suffix="_back", load="always"))
        assert run.finish(state)["collections"]
    assert world.model.collection(BACK).loaded
