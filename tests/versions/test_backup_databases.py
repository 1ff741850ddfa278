"""What databases have comes back with them, and what a backup could not bring back is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_milvus_backup.core.errors import UnsupportedFormat
from tests.contract import shapes

from .worlds import World

PROD = ("prod", "docs")


@pytest.mark.parametrize("version", ["2.4.5", "2.6.20"])
def test_databases_come_back_with_their_properties(milvus: Callable[..., World], version: str) -> None:
    source, target = milvus(version), milvus(version)
    properties = {"database.replica.number": "2", "database.max.collections": "10", "timezone": "Europe/Berlin"}
    source.model.create_database("prod", properties)
    source.model.create_collection(PROD, shapes.schema("docs"))
    source.model.insert(PROD, [shapes.row(number) for number in range(4)])
    source.backup()
    kept = {database["db_name"]: database for database in source.checked().raw["database_backups"]}
    assert {pair["key"]: pair["value"] for pair in kept["prod"]["properties"]} == properties
    assert kept["prod"]["db_id"] == source.model.databases["prod"].id
    source.restore_into(target)
    assert target.model.databases["prod"].properties == properties
    assert target.model.rows(PROD) == source.model.rows(PROD)


def test_properties_that_mean_nothing_elsewhere_are_kept_and_not_restored_with_a_line_each(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.6.20"), milvus("2.6.20")
    left_out = {"database.resource_groups": "rg1", "replicate.id": "from-far", "database.force.deny.writing": "true"}
    source.model.create_database("prod", {"database.max.collections": "10", **left_out})
    source.model.create_collection(PROD, shapes.schema("docs"))
    source.backup()
    (database,) = source.checked().raw["database_backups"]
    assert left_out.keys() < {pair["key"] for pair in database["properties"]}
    source.restore_into(target)
    assert target.model.databases["prod"].properties == {"database.max.collections": "10"}
    assert [target.said(f"property {key!r} of database 'prod' is not restored") for key in left_out] == [True] * 3


def test_an_encrypted_database_is_refused_before_anything_is_flushed(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    world.model.create_collection(("default", "docs"), shapes.schema("docs"))
    world.model.create_database("prod", {"cipher.enabled": "true", "cipher.ezID": "7", "cipher.key": "planted-root-key"})
    world.model.create_collection(PROD, shapes.schema("docs"))
    with pytest.raises(UnsupportedFormat, match="database 'prod' is encrypted, and a backup without its key could not be restored"):
        world.backup()
    assert (world.server.requests["Flush"], world.keys("backup")) == (0, [])
    world.backup(collections="default.*")  # the others can be backed up
    assert "planted-root-key" not in "".join(map(str, map(world.read, (f"backup/{key}" for key in world.keys("backup")))))
