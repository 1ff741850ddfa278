"""What a collection is beside its schema comes back too: partitions, indexes, load states, consistency, aliases, keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pymilvus.grpc_gen import milvus_pb2

from airflow_provider_milvus_backup.core.errors import ConfigError
from tests.contract import shapes

from .everything import INT64, NAME, VARCHAR, described, field, indexes
from .worlds import World

VERSIONS = ["2.4.5", "3.0.0"]
LOADED, NOT_LOADED = 3, 1


def filled(world: World, name: tuple[str, str] = NAME) -> None:
    world.model.create_collection(name, shapes.schema(name[1]))
    world.model.insert(name, [shapes.row(number) for number in range(3)])


def load_states(world: World, name: tuple[str, str] = NAME) -> dict[str, int]:
    """Return what GetLoadState says of the collection and of each partition."""
    wanted = ["", *(partition.name for partition in world.model.collection(name).partitions)]
    requests = {one: milvus_pb2.GetLoadStateRequest(collection_name=name[1], partition_names=[one] if one else []) for one in wanted}
    return {one: world.ask("GetLoadState", request, name[0]).state for one, request in requests.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_partitions_come_back_by_name_empty_ones_too_and_are_loaded_one_by_one_as_they_were(
    milvus: Callable[..., World], version: str
) -> None:
    source, target = milvus(version), milvus(version)
    filled(source)
    for partition in ("second", "third", "empty"):
        source.model.create_partition(NAME, partition)
    source.model.insert(NAME, [shapes.row(number) for number in range(10, 14)], "second")
    source.model.insert(NAME, [shapes.row(20)], "third")
    source.model.create_index(NAME, "v", "v", {"index_type": "FLAT", "metric_type": "L2"})
    source.model.load(NAME, ["second", "empty"])
    source.backup()
    found = source.checked().collections[NAME].raw
    assert {p["partition_name"]: p["load_state"] for p in found["partition_backups"]} == {
        "_default": "NotLoad",
        "second": "Loaded",
        "third": "NotLoad",
        "empty": "Loaded",
    }
    source.restore_into(target)
    assert load_states(target) == load_states(source)
    assert load_states(target) == {"": LOADED, "_default": NOT_LOADED, "second": LOADED, "third": NOT_LOADED, "empty": LOADED}
    assert target.model.rows(NAME) == source.model.rows(NAME)
    assert list(target.model.rows(NAME)) == ["_default", "second", "third", "empty"]


def test_every_consistency_level_comes_back(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.6.4"), milvus("2.6.4")
    names = {level: ("default", f"level_{level}") for level in range(5)}
    for level, name in names.items():
        source.model.create_collection(name, shapes.schema(name[1]), consistency_level=level)
    source.backup()
    source.restore_into(target)
    assert {level: target.model.collection(name).consistency_level for level, name in names.items()} == {level: level for level in names}
    assert [described(target, name) for name in names.values()] == [described(source, name) for name in names.values()]


@pytest.mark.parametrize("version", VERSIONS)
def test_indexes_come_back_with_all_their_parameters_and_a_collection_that_was_not_loaded_is_not(
    milvus: Callable[..., World], version: str
) -> None:
    source, target = milvus(version), milvus(version)
    filled(source)
    params = {"index_type": "HNSW", "metric_type": "COSINE", "params": '{"M":"30","efConstruction":"360"}', "mmap.enabled": "true"}
    source.model.create_index(NAME, "v", "by_vector", params)
    source.model.create_index(NAME, "id", "by_id", {"index_type": "STL_SORT"})
    source.backup()
    source.restore_into(target)
    assert indexes(target) == indexes(source) == {"by_vector": ("v", params), "by_id": ("id", {"index_type": "STL_SORT"})}
    assert set(load_states(target).values()) == {NOT_LOADED}


@pytest.mark.parametrize("version", ["2.4.5", "3.0.0"])
def test_keys_that_milvus_made_up_itself_are_kept(milvus: Callable[..., World], version: str) -> None:
    source, target = milvus(version), milvus(version, first_id=470_000_000_000_000_000)
    for name, kind in (("numbers", INT64), ("words", VARCHAR)):
        key = field("id", kind, {"max_length": 99} if kind == VARCHAR else {}, is_primary_key=True, autoID=True)
        source.model.create_collection(("default", name), shapes.schema(name, key, field("v", 101, {"dim": 2})))
        source.model.insert(("default", name), [{"v": [float(number), 0.0]} for number in range(5)])
    source.backup()
    source.restore_into(target)
    for name in (("default", "numbers"), ("default", "words")):
        assert target.model.rows(name) == source.model.rows(name)
        assert described(target, name) == described(source, name)


def test_aliases_come_back_only_when_they_are_asked_for(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.6.4"), milvus("2.6.4")
    filled(source)
    source.model.create_alias(NAME, "live")
    source.backup()
    source.restore_into(target)
    assert target.model.databases["default"].aliases == {}
    source.restore_into(target, suffix="_again", restore_aliases=True)
    assert target.model.databases["default"].aliases == {"live": "docs_again"}


def test_rows_in_many_partitions_by_key_and_channels_are_where_they_were(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.6.20"), milvus("2.6.20")
    keyed = shapes.schema("docs", *shapes.schema("docs").fields, field("tenant", VARCHAR, {"max_length": 9}, is_partition_key=True))
    source.model.create_collection(NAME, keyed, shards=3, partitions=5)
    source.model.insert(NAME, [shapes.row(number, tenant=f"t{number % 7}") for number in range(30)])
    source.model.upsert(NAME, [shapes.row(4, tenant="t9")])
    source.backup()
    source.restore_into(target)
    assert target.model.rows(NAME) == source.model.rows(NAME)
    assert [partition for partition, rows in target.model.rows(NAME).items() if 4 in rows] == [
        partition for partition, rows in source.model.rows(NAME).items() if any(row["tenant"] == "t9" for row in rows.values())
    ]
    assert described(target) == described(source)


@pytest.mark.parametrize("version", ["2.4.5", "3.0.0"])
def test_an_empty_collection_comes_back_empty(milvus: Callable[..., World], version: str) -> None:
    source, target = milvus(version), milvus(version)
    source.model.create_collection(NAME, shapes.schema("docs", dynamic=True), shards=4, properties={"mmap.enabled": "false"})
    source.backup()
    source.restore_into(target)
    assert target.model.rows(NAME) == {"_default": {}}
    assert described(target) == described(source)
    assert source.checked().collections[NAME].rows == 0


def test_a_selection_of_external_collections_alone_is_refused(milvus: Callable[..., World]) -> None:
    world = milvus("3.0.0")
    schema = shapes.schema("outside")
    schema.external_source = "s3://elsewhere/table"
    world.model.create_collection(("default", "outside"), schema)
    with pytest.raises(ConfigError, match=r"external collections, whose data is not in Milvus: default\.outside"):
        world.backup()
    assert not [key for key in world.keys("backup/nightly") if "lease" not in key]
