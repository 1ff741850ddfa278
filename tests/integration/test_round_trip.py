"""What comes back is what was backed up: rows, schemas, indexes, load states, properties, aliases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.integration import data
from tests.integration.clusters import Cluster
from tests.integration.conftest import Zoo

SUFFIX = "_bak"
by_shape = pytest.mark.parametrize("shape", data.ZOO, ids=lambda shape: str(shape.name))


def restored(name: CollectionName) -> CollectionName:
    return name._replace(collection=name.collection + SUFFIX)


@dataclass(frozen=True)
class Restored:
    """The zoo under other names, and what it looked like before a test loaded anything."""

    summary: dict[str, Any]
    load_states: dict[CollectionName, dict[str, str]]


@pytest.fixture(scope="module")
def back(zoo: Zoo) -> Restored:
    summary = zoo.cluster.restore(zoo.name, suffix=SUFFIX)
    names = [name for shape in data.ZOO for name in (shape.name, restored(shape.name))]
    states = {name: data.load_states(zoo.cluster.client(name.database), name.collection) for name in names}
    bare = restored(data.BARE.name)
    zoo.cluster.server.create_index(bare, data.FLAT)  # or nobody could look inside
    data.load(zoo.cluster.server, [restored(shape.name) for shape in data.ZOO])
    return Restored(summary, states)


@by_shape
def test_every_row_comes_back_as_it_was(a: Cluster, zoo: Zoo, back: Restored, shape: data.Collection) -> None:
    expected, name = zoo.rows[shape.name], restored(shape.name)
    found = a.contents(name, load=False)
    assert found.keys() == expected.keys()
    for partition, rows in expected.items():
        assert found[partition].keys() == rows.keys()
        for key, row in rows.items():
            assert found[partition][key] == row
    assert (data.count(expected) == 0) == (shape in (data.EMPTY, data.DELETED))


@by_shape
def test_every_schema_comes_back_field_by_field(a: Cluster, back: Restored, shape: data.Collection) -> None:
    expected, found = a.server.describe(shape.name), a.server.describe(restored(shape.name))
    expected.schema.name += SUFFIX
    assert [field.name for field in found.schema.fields] == [field["field_name"] for field in shape.fields]
    for before, after in zip(expected.schema.fields, found.schema.fields, strict=True):
        assert after == before
    assert found.schema == expected.schema
    assert found.shards_num == expected.shards_num == shape.options.get("num_shards", 1)
    assert found.consistency_level == expected.consistency_level
    assert list(found.properties) == list(expected.properties)


def test_properties_come_back(a: Cluster, back: Restored) -> None:
    assert a.client().describe_collection("zoo_types_bak")["properties"] == {"collection.ttl.seconds": data.TTL}


@by_shape
def test_every_partition_comes_back(a: Cluster, back: Restored, shape: data.Collection) -> None:
    client = a.client(shape.name.database)
    expected = client.list_partitions(shape.name.collection)
    assert sorted(client.list_partitions(restored(shape.name).collection)) == sorted(expected)
    assert set(shape.partitions) <= set(expected)


@by_shape
def test_every_index_comes_back(a: Cluster, back: Restored, shape: data.Collection) -> None:
    client = a.client(shape.name.database)
    expected = data.indexes(client, shape.name.collection)
    if shape is data.BARE:
        assert expected == {}
    else:
        assert data.indexes(client, restored(shape.name).collection) == expected
        assert len(expected) == 1 + len(shape.more_indexes)


@by_shape
def test_what_was_loaded_is_loaded_and_nothing_else(back: Restored, shape: data.Collection) -> None:
    expected = back.load_states[shape.name]
    assert back.load_states[restored(shape.name)] == expected
    if shape in (data.BARE, data.VARCHAR):
        assert set(expected.values()) == {"NotLoad"}
    elif shape is data.AUTO:
        assert expected == {"": "Loaded", "_default": "Loaded", "loaded": "Loaded", "released": "NotLoad"}
    else:
        assert set(expected.values()) == {"Loaded"}


def test_a_search_finds_the_same_rows(a: Cluster, zoo: Zoo, back: Restored) -> None:
    rows = [row for partition in zoo.rows[data.TYPES.name].values() for row in partition.values()]
    for row in rows[::50]:
        found = a.client().search("zoo_types_bak", [row["vector"]], limit=1, consistency_level="Strong")
        assert found[0][0]["id"] == row["id"]


@pytest.mark.parametrize("tenant", range(data.TENANTS))
def test_rows_are_found_by_their_partition_key(a: Cluster, zoo: Zoo, back: Restored, tenant: int) -> None:
    found = a.client().query("zoo_keyed_bak", filter=f'tenant == "tenant {tenant}"', output_fields=["id"], consistency_level="Strong")
    rows = zoo.rows[data.PARTITION_KEY.name][data.KEYED].values()
    assert {row["id"] for row in found} == {row["id"] for row in rows if row["tenant"] == f"tenant {tenant}"} != set()


def test_rows_can_be_written_after_a_restore(a: Cluster, zoo: Zoo, back: Restored) -> None:
    one = zoo.rows[data.SAME_NAME.name]["_default"]
    client = a.client(data.SAME_NAME.name.database)
    (key,) = client.insert("zoo_types_bak", [data.SAME_NAME.row(1000)])["ids"]
    try:
        assert key not in one
        assert len(client.query("zoo_types_bak", filter='key != ""', output_fields=["key"], consistency_level="Strong")) == len(one) + 1
    finally:
        client.delete("zoo_types_bak", ids=[key])


def test_the_summary_says_what_was_restored(zoo: Zoo, back: Restored) -> None:
    assert back.summary["collection_count"] == len(data.ZOO)
    listed = {CollectionName(one["database"], one["name"]): one["rows"] for one in back.summary["collections"]}
    assert listed == {restored(name): data.count(rows) for name, rows in zoo.rows.items()}
    assert back.summary["rows"] == sum(listed.values())


def test_aliases_come_back_when_asked_for(a: Cluster, zoo: Zoo) -> None:
    names = {"zoo_types": "aliased.zoo_types", "zoo_auto": "aliased.zoo_auto"}
    a.restore(zoo.name, collections=list(names), rename=names, meta_only=True, restore_aliases=True, load="never")
    try:
        for name, aliases in data.ALIASES.items():
            assert sorted(a.client("aliased").describe_collection(name.collection)["aliases"]) == aliases
    finally:
        for alias in ("live", "newest", "numbers"):
            a.client("aliased").drop_alias(alias)
        a.drop(*(CollectionName("aliased", name) for name in names))


def test_aliases_stay_where_they_are_unless_asked_for(a: Cluster, back: Restored) -> None:
    assert a.client().describe_collection("zoo_types_bak")["aliases"] == []
    assert sorted(a.client().describe_collection("zoo_types")["aliases"]) == ["live", "newest"]


def test_nothing_named_backs_up_everything(a: Cluster, back: Restored) -> None:
    summary = a.backup("everything", strategy="meta_only")
    existing = {(database, name) for database, names in a.collections().items() for name in names}
    assert {(one["database"], one["name"]) for one in summary["collections"]} == existing


def test_each_of_several_backups_restores_its_own_moment(a: Cluster) -> None:
    shape = a.create(data.docs("moments"), range(30), load=True)
    moments = {}
    for moment in ("first_moment", "second_moment"):
        moments[moment] = a.contents(shape.name, load=False)
        a.backup(moment, "moments")
        a.client().delete("moments", ids=list(range(10)))
        shape.insert(a.client(), range(30, 50))
    targets = [CollectionName("default", f"moments_{moment}") for moment in moments]
    a.restore_all({moment: RestoreOptions(suffix=f"_{moment}") for moment in moments})
    assert [a.contents(target, load=False) for target in targets] == list(moments.values())
    assert [data.count(moment) for moment in moments.values()] == [30, 40]
    a.drop(shape.name, *targets)
