"""Two real Milvus, one real S3, and collections to back up, shared by the whole test session.

Milvus A keeps its data in ``a-bucket``, Milvus B (which asks for a password) in ``b-bucket``. Each knows a key of its own that the other's
bucket is closed to, a third key opens only ``migration``, the bucket in between, and a fourth may only read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from demo import servers

#: A key that sees one bucket, as ``{"name", "access_key", "secret_key", "actions"}``.
KEYS = {
    name: {
        "name": name,
        "access_key": f"AKPLANTED{name.upper()}",
        "secret_key": f"planted-secret-of-{name}",
        "actions": [f"{action}:{bucket}" for action in actions for bucket in buckets],
    }
    for name, buckets, actions in (
        ("a", ("a-bucket", "backups"), ("Read", "Write", "List", "Tagging")),
        ("b", ("b-bucket",), ("Read", "Write", "List", "Tagging")),
        ("between", ("migration",), ("Read", "Write", "List", "Tagging")),
        ("reader", ("a-bucket",), ("Read", "List")),
    )
}
DIMENSION = 8
#: Partitions of the collection ``wide``: each is an import job, and Milvus takes about two seconds for one after the other.
PARTITIONS = [f"part_{i}" for i in range(3)]


@dataclass
class Stack:
    """What runs, and how to look into it."""

    s3: servers.S3Server
    milvus: servers.MilvusServer
    clients: dict[tuple[int, str], Any] = field(default_factory=dict)

    def client(self, database: str = "default", server: servers.MilvusServer | None = None) -> Any:
        """Return a pymilvus client, opened once per server and database."""
        from pymilvus import MilvusClient

        server = server or self.milvus
        key = (server.port, database)
        if key not in self.clients:
            self.clients[key] = MilvusClient(
                f"http://{server.host}:{server.port}", user=server.user, password=server.password, db_name=database
            )
        return self.clients[key]

    def rows(self, name: str, server: servers.MilvusServer | None = None) -> dict[Any, dict[str, Any]]:
        """Return every row of ``coll`` or ``db.coll`` by its primary key; the collection must be loaded."""
        database, _, collection = name.rpartition(".")
        client = self.client(database or "default", server)
        (key,) = [f for f in client.describe_collection(collection)["fields"] if f.get("is_primary")]
        everything = f"{key['name']} >= {0 if key['type'] == 5 else repr('')}"
        found = client.query(collection, filter=everything, output_fields=["*"], consistency_level="Strong", limit=16384)
        rows = {row[key["name"]]: dict(row) for row in found}
        assert len(rows) == len(found), f"{name} has primary keys more than once"
        return rows

    def partitions(self, name: str, server: servers.MilvusServer | None = None) -> dict[str, int]:
        """Return how many rows of ``coll`` are visible in each partition."""
        client = self.client(server=server)
        everything = {"filter": "id >= 0", "output_fields": ["id"], "consistency_level": "Strong", "limit": 16384}
        return {
            partition: len(client.query(name, partition_names=[partition], **everything)) for partition in client.list_partitions(name)
        }

    def loaded(self, name: str) -> bool:
        """Return whether a collection of the default database is loaded."""
        return str(self.client().get_load_state(name)["state"]) == "Loaded"

    def collections(self, database: str = "default") -> list[str]:
        """Return the names of all collections of a database."""
        return sorted(self.client(database).list_collections())

    def drop(self, *names: str) -> None:
        """Drop collections of the default database, also ones that do not exist."""
        for name in names:
            self.client().drop_collection(name)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return all keys of a bucket below a prefix."""
        if (0, "s3") not in self.clients:
            self.clients[0, "s3"] = self.s3.client()
        pages = self.clients[0, "s3"].get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def staged(self, restore_id: str = "") -> list[str]:
        """Return what restores, or one of them, have staged in Milvus's bucket and not removed."""
        return self.keys("a-bucket", f"restore-temp-{restore_id}")

    def remove_leases(self) -> None:
        """Remove the leases of restores that were killed while imports ran: they prove who has left the collections, until a later one."""
        for key in self.staged():
            if key.endswith("/lease.json"):
                self.s3.client().delete_object(Bucket="a-bucket", Key=key)

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return the connections of Milvus A as the fields of their JSON form."""
        return {
            "milvus_default": milvus_connection(self.milvus, "a-bucket", "aws_default"),
            "aws_default": self.aws_connection("a"),
        }

    def aws_connection(self, key: str) -> dict[str, Any]:
        """Return the connection of one of the KEYS."""
        return {
            "conn_type": "aws",
            "login": KEYS[key]["access_key"],
            "password": KEYS[key]["secret_key"],
            "extra": {"endpoint_url": self.s3.endpoint_url, "region_name": "us-east-1"},
        }


def milvus_connection(server: servers.MilvusServer, bucket: str, aws_conn_id: str) -> dict[str, Any]:
    """Return a ``milvus`` connection as the fields of its JSON form."""
    fields = {"conn_type": "milvus", "host": server.host, "port": server.port}
    if server.user:
        fields |= {"login": server.user, "password": server.password}
    return {**fields, "extra": {"bucket_name": bucket, "aws_conn_id": aws_conn_id}}


@contextmanager
def in_environment(connections: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Set connections in their JSON form, as a deployment does."""
    with pytest.MonkeyPatch.context() as patch:
        for conn_id, fields in connections.items():
            patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        yield


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """Run an S3 with all buckets and keys."""
    with servers.s3_server(tmp_path_factory.mktemp("s3"), identities=list(KEYS.values())) as running:
        for bucket in ("a-bucket", "b-bucket", "backups", "migration"):
            running.create_bucket(bucket)
        yield running


def _with_key(s3: servers.S3Server, key: str) -> servers.S3Server:
    return replace(s3, access_key=KEYS[key]["access_key"], secret_key=KEYS[key]["secret_key"])


@pytest.fixture(scope="session")
def stack(s3: servers.S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run Milvus A with ``coll`` and ``tags`` in the default database and ``docs`` in ``second``."""
    with servers.milvus_server(tmp_path_factory.mktemp("milvus-a"), _with_key(s3, "a")) as milvus:
        running = Stack(s3, milvus)
        _fill(running)
        yield running
        for client in running.clients.values():
            client.close()


@pytest.fixture(scope="session")
def milvus_b(s3: servers.S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MilvusServer]:
    """Run Milvus B: empty, in another bucket, with another key, and it asks for a password."""
    with servers.milvus_server(tmp_path_factory.mktemp("milvus-b"), _with_key(s3, "b"), bucket="b-bucket", auth=True) as milvus:
        yield milvus


@pytest.fixture
def connected(stack: Stack) -> Iterator[Stack]:
    """Set ``milvus_default`` and ``aws_default`` to Milvus A and its key."""
    with in_environment(stack.connections()):
        yield stack


@pytest.fixture(scope="session")
def backed_up(stack: Stack) -> dict[str, Any]:
    """Back ``coll`` up as ``shared`` into the bucket ``backups``, so that a restore has to stage; returns the summary."""
    from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook

    with in_environment(stack.connections()):
        return MilvusBackupHook(backup_bucket="backups").backup("shared", ["coll"])


@pytest.fixture(scope="session")
def wide(stack: Stack) -> dict[Any, dict[str, Any]]:
    """Back a collection with many partitions up as ``wide``, beside ``shared`` and, in place, into Milvus's own bucket.

    Returns its rows. A restore of it waits for six seconds and more.
    """
    from pymilvus import DataType

    from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook

    client = stack.client()
    schema = client.create_schema(enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
    client.create_collection("wide", schema=schema)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_index("wide", index)
    rows = {}
    for number, partition in enumerate(PARTITIONS):
        client.create_partition("wide", partition)
        some = [{"id": i, "vector": [(i * 7 + k) % 512 / 512 for k in range(DIMENSION)]} for i in range(number * 40, number * 40 + 40)]
        client.insert("wide", some, partition_name=partition)
        rows.update({row["id"]: row for row in some})
    with in_environment(stack.connections()):
        MilvusBackupHook(backup_bucket="backups").backup("wide", ["wide"])
        MilvusBackupHook().backup("wide", ["wide"])
    client.drop_collection("wide")
    return rows


def broken_backup(stack: Stack, name: str) -> None:
    """Make a copy of the backup ``shared`` in which one insert log has its size, but not its content."""
    client = stack.s3.client()
    keys = stack.keys("backups", "backup/shared/")
    for key in keys:
        client.copy_object(Bucket="backups", Key=key.replace("/shared/", f"/{name}/", 1), CopySource={"Bucket": "backups", "Key": key})
    log = next(key for key in keys if "/insert_log/" in key and key.split("/")[-2] == "100")  # of the primary key
    size = client.head_object(Bucket="backups", Key=log)["ContentLength"]
    client.put_object(Bucket="backups", Key=log.replace("/shared/", f"/{name}/", 1), Body=b"x" * size)


def _fill(stack: Stack) -> None:
    """Create what is backed up: two partitions, deletes flushed and not, rows not flushed, another database, another kind of key."""
    from pymilvus import DataType

    client = stack.client()
    client.create_database("second")
    second = stack.client("second")
    numbers = random.Random(2026)

    def create(client: Any, name: str, key: Callable[[Any], None], *, dynamic: bool) -> None:
        schema = client.create_schema(enable_dynamic_field=dynamic)
        key(schema)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
        schema.add_field("title", DataType.VARCHAR, max_length=100)
        schema.add_field("doc", DataType.JSON)
        client.create_collection(name, schema=schema)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="IVF_FLAT", metric_type="L2", params={"nlist": 16})
        client.create_index(name, index)

    def rows(first: int, last: int, **more: Any) -> list[dict[str, Any]]:
        return [
            {
                "vector": [numbers.random() for _ in range(DIMENSION)],
                "title": f"title {i} é",
                "doc": {"n": i, "tags": [i % 3, "x"]},
                **{name: value(i) for name, value in more.items()},
            }
            for i in range(first, last)
        ]

    numbered: dict[str, Any] = {"id": int, "color": lambda i: ["red", "green"][i % 2]}  # color is dynamic
    create(client, "coll", lambda schema: schema.add_field("id", DataType.INT64, is_primary=True), dynamic=True)
    client.create_partition("coll", "archive")
    client.insert("coll", rows(0, 800, **numbered))
    client.insert("coll", rows(800, 1200, **numbered), partition_name="archive")
    client.delete("coll", filter="id in [3, 5, 801]")
    client.flush("coll")
    client.load_collection("coll", _async=True)
    client.insert("coll", rows(1200, 1300, **numbered))
    client.delete("coll", filter="id in [7, 900, 1201]")

    create(client, "tags", lambda schema: schema.add_field("name", DataType.VARCHAR, max_length=40, is_primary=True), dynamic=False)
    client.insert("tags", rows(0, 120, name=lambda i: f"tag-{i}"))
    client.load_collection("tags", _async=True)
    create(second, "docs", lambda schema: schema.add_field("id", DataType.INT64, is_primary=True, auto_id=True), dynamic=False)
    second.insert("docs", rows(0, 80))
    second.load_collection("docs")
    for name in ("coll", "tags"):
        client.load_collection(name)  # waits
