"""A collection without a Milvus: the keys in its bucket, and a server that reports its segments."""

# ruff: noqa: ARG002 (the methods have the arguments of those they replace)

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from threading import get_ident
from typing import Any

import boto3

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.errors import UnsupportedServer
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.server import Flushed, MilvusServer, ServerSegment
from airflow_provider_milvus_backup.core.settings import MilvusAddress, S3Location, Settings

BUCKET, ROOT, BACKUPS = "a-bucket", "files", "backup"
COLLECTION, PARTITION, FIRST_ID = 446930823172398000, 446930823172398001, 446930823172400000
FIELDS = (0, 1, *range(100, 118))  # two system fields, 18 of the user's


@dataclass(frozen=True)
class Shape:
    """``segments`` segments with ``logs`` binlogs of each of 20 fields."""

    segments: int
    logs: int

    @property
    def objects(self) -> int:
        return self.segments * len(FIELDS) * self.logs

    def segment_ids(self) -> list[int]:
        return [FIRST_ID + 1000 * number for number in range(self.segments)]

    def sizes(self) -> dict[str, int]:
        """Return the size of every object by ``bucket/key``."""
        keys = (
            layout.source_insert(ROOT, COLLECTION, PARTITION, segment, field, segment + log)
            for segment in self.segment_ids()
            for field in FIELDS
            for log in range(self.logs)
        )
        return {f"{BUCKET}/{key}": 10_000 + number % 1000 for number, key in enumerate(keys)}


class ReportedMilvus(MilvusServer):
    """Answers what a backup asks as Milvus would, for one collection ``coll`` of a shape."""

    version = "v2.3.5"
    release = (2, 3, 5)

    def __init__(self, shape: Shape) -> None:
        super().__init__(MilvusAddress("nowhere"))
        self.shape = shape

    def databases(self) -> list[str]:
        return ["default"]

    def collections(self, database: str) -> list[str]:
        return ["coll"]

    def describe_database(self, database: str) -> Any:
        raise UnsupportedServer(f"Milvus {self.version} does not describe databases")

    def describe(self, name: CollectionName) -> Any:
        from pymilvus.grpc_gen import milvus_pb2, schema_pb2

        types = schema_pb2.DataType
        described = milvus_pb2.DescribeCollectionResponse(collectionID=COLLECTION, shards_num=2, db_name="default")
        described.schema.name = "coll"
        described.schema.fields.add(fieldID=100, name="id", data_type=types.Int64, is_primary_key=True)
        vector = described.schema.fields.add(fieldID=101, name="vector", data_type=types.FloatVector)
        vector.type_params.add(key="dim", value="768")
        for field_id in FIELDS[4:]:
            described.schema.fields.add(fieldID=field_id, name=f"f{field_id}", data_type=types.Double)
        return described

    def load_state(self, name: CollectionName, partition: str | None = None) -> str:
        return "NotLoad"

    def partitions(self, name: CollectionName) -> list[tuple[int, str]]:
        return [(PARTITION, "_default")]

    def indexes(self, name: CollectionName) -> list[Any]:
        return []

    def segments(self, name: CollectionName) -> list[ServerSegment]:
        return [
            ServerSegment(segment, PARTITION, 1000, is_l0=False, storage_version=0, v_channel="") for segment in self.shape.segment_ids()
        ]

    def flush(self, name: CollectionName) -> Flushed:
        return Flushed([], 446930823172399999, 1700000000, {})

    def flush_done(self, name: CollectionName, flushed: Flushed) -> bool:
        return True


class Quiet(Reporter):
    """Says nothing: stdout and stderr belong to the results."""

    @contextlib.contextmanager
    def phase(self, title: str) -> Any:
        yield

    def line(self, text: str) -> None:
        pass


def location(endpoint: str, keys: Sequence[str], root: str, bucket: str = BUCKET) -> S3Location:
    """Return a place in a bucket; ``keys`` are access key and secret key."""
    return S3Location(bucket, root, lambda: _session(*keys, get_ident()), endpoint_url=endpoint)


@cache
def _session(access: str, secret: str, _thread: int) -> boto3.Session:
    """Each reads all it knows of S3 from files, which takes longer than most tests; threads must not share one."""
    return boto3.Session(access, secret, region_name="us-east-1")


def backup_run(endpoint: str, shape: Shape) -> BackupRun:
    """Return a run that backs the collection up inside one slow store."""
    source, destination = (location(endpoint, ("key", "secret"), root) for root in (ROOT, BACKUPS))
    server = ReportedMilvus(shape)
    run = BackupRun.open(Settings(server.address, source, destination), Quiet())
    run.server = server
    return run
