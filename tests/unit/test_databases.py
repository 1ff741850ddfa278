"""Databases are described with their properties, and created again with those that mean something there."""

from __future__ import annotations

import pytest
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from airflow_provider_milvus_backup.core.databases import describe_database, to_create
from airflow_provider_milvus_backup.core.meta import Database
from tests.unit.rbac_server import OldServer, RbacServer, serving

PROPERTIES = [("database.replica.number", "2"), ("database.max.collections", "10"), ("mmap.enabled", "true"), ("timezone", "UTC")]


def test_a_database_is_described_with_its_id_and_all_properties() -> None:
    milvus = RbacServer()
    described = milvus_pb2.DescribeDatabaseResponse(db_name="shop", dbID=451)
    for key, value in [*PROPERTIES, ("cipher.key", "arn:1")]:
        described.properties.append(common_pb2.KeyValuePair(key=key, value=value))
    milvus.databases["shop"] = described
    with serving(milvus) as server:
        assert describe_database(server, "shop") == Database("shop", 451, [*PROPERTIES, ("cipher.key", "arn:1")])


def test_a_server_that_cannot_describe_databases_gives_their_names() -> None:
    with serving(OldServer()) as server:
        assert describe_database(server, "shop") == Database("shop")


def test_a_database_is_created_with_the_properties_of_the_backup() -> None:
    milvus = RbacServer()
    properties, lines = to_create(Database("shop", 451, PROPERTIES))
    with serving(milvus) as server:
        server.create_database("shop", properties)
        server.create_database("plain")
        assert describe_database(server, "shop").properties == PROPERTIES
        assert describe_database(server, "plain").properties == []
    assert lines == []


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("cipher.enabled", "encryption"),
        ("cipher.key", "encryption"),
        ("cipher.ezID", "encryption"),
        ("replicate.id", "replica"),
        ("replicate.endTS", "replica"),
        ("database.resource_groups", "resource groups"),
        ("database.force.deny.writing", "refuse the restore"),
        ("database.force.deny.ddl", "refuse the restore"),
    ],
)
def test_what_belongs_to_the_source_alone_is_left_out_and_said_without_its_value(key: str, reason: str) -> None:
    properties, [line] = to_create(Database("shop", 451, [*PROPERTIES, (key, "value-of-it")]))
    assert properties == PROPERTIES
    assert key in line
    assert "'shop'" in line
    assert reason in line
    assert "value-of-it" not in line


@pytest.mark.parametrize("key", ["ciphertext", "my.cipher.key", "database.resource_groups.mine", "replicates"])
def test_a_property_that_only_looks_like_one_of_those_is_kept(key: str) -> None:
    assert to_create(Database("shop", 451, [(key, "1")])) == ([(key, "1")], [])
