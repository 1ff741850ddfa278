"""Real servers for the session, and one collection of every shape, backed up and restored once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.settings import S3Location
from demo import servers
from tests.door.door import VERSION, door
from tests.integration import data
from tests.integration.clusters import A_BUCKET, B_BUCKET, ONLY_B, USERS, VAULT, Cluster, location

#: Modules that say nothing about the provider behind the door: servers alone, moments of copying, races that are staged in gRPC, drills,
#: and what needs the backup storage alone.
NOT_THROUGH_THE_DOOR = (
    "test_catalog",
    "test_damage",
    "test_delete",
    "test_door",
    "test_drill",
    "test_freshness",
    "test_large_objects",
    "test_locks",
    "test_races",
    "test_resume_backup",
    "test_resume_restore",
    "test_servers",
    "test_verify",
)
#: Modules and tests with deletes in L0 segments: for a server before 3.0 they are not folded, and 2.3.5 cannot import them.
WITH_L0 = ("test_golden_backups", "test_deletes_in_l0_segments_are_folded_for_a_milvus_that_does_not_know_them")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option that puts a newer server's REST in front of both real ones."""
    parser.addoption("--door", nargs="?", const=VERSION, help=f"go through a door that makes Milvus 2.3.5 look newer: {VERSION} or another")


def _left_out(config: pytest.Config) -> tuple[str, ...]:
    version = config.getoption("--door", default=None)
    if not version:
        return ()
    return NOT_THROUGH_THE_DOOR if version.startswith("v3.") else NOT_THROUGH_THE_DOOR + WITH_L0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the modules that are not for the door."""
    return True if collection_path.stem in _left_out(config) else None


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Leave out the tests that are not for the door, and allow for the time that the first test of a module spends on servers."""
    items[:] = [item for item in items if getattr(item, "originalname", "") not in _left_out(config)]
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """The S3 of Milvus A, with a second bucket for backups."""
    with servers.s3_server(tmp_path_factory.mktemp("s3"), identities=[user.identity() for user in USERS]) as server:
        server.create_bucket(A_BUCKET)
        server.create_bucket(VAULT)
        yield server


@pytest.fixture(scope="session")
def other_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """Another endpoint with other credentials."""
    with servers.s3_server(tmp_path_factory.mktemp("other-s3"), identities=[user.identity() for user in USERS]) as server:
        server.create_bucket(B_BUCKET)
        server.create_bucket(VAULT)
        yield server


@contextmanager
def cluster_of(milvus: servers.MilvusServer, s3: servers.S3Server, backups: S3Location, config: pytest.Config) -> Iterator[Cluster]:
    """Yield a cluster, behind a door when that was asked for."""
    version = config.getoption("--door", default=None)
    with door(milvus, s3, version) if version else nullcontext() as opened:
        cluster = Cluster(milvus, s3, backups, door=opened)
        yield cluster
        cluster.close()


@pytest.fixture(scope="session")
def a(tmp_path_factory: pytest.TempPathFactory, s3: servers.S3Server, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Milvus A: open to everybody, backups in its own bucket."""
    with (
        servers.milvus_server(tmp_path_factory.mktemp("a"), s3, bucket=A_BUCKET) as milvus,
        cluster_of(milvus, s3, location(s3, A_BUCKET), pytestconfig) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="session")
def b(tmp_path_factory: pytest.TempPathFactory, other_s3: servers.S3Server, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Milvus B: asks for a password, elsewhere, with a deep root path and credentials for its own bucket only."""
    identity = ONLY_B.identity()
    limited = replace(other_s3, access_key=identity["access_key"], secret_key=identity["secret_key"])
    with (
        servers.milvus_server(tmp_path_factory.mktemp("b"), limited, bucket=B_BUCKET, root_path="deep/er", auth=True) as milvus,
        cluster_of(milvus, limited, location(limited, B_BUCKET), pytestconfig) as cluster,
    ):
        yield cluster


@dataclass(frozen=True)
class Zoo:
    """One collection of every shape on Milvus A, as it was when it was backed up."""

    cluster: Cluster
    #: Rows by collection, read just before the backup.
    rows: dict[CollectionName, data.Contents]
    summary: dict[str, Any]
    #: Between which moments it was backed up.
    began: datetime
    ended: datetime
    name: str = "zoo"


@pytest.fixture(scope="session")
def zoo(a: Cluster) -> Zoo:
    """Every shape, backed up as ``zoo``; some loaded, some not, some in part."""
    data.make_zoo(a.client, a.server)
    rows = {shape.name: a.contents(shape.name, load=False) for shape in data.ZOO if shape is not data.BARE}
    rows[data.BARE.name] = {"_default": {n: data.BARE.row(n) for n in range(40)}}
    a.server.release_collection(data.VARCHAR.name)
    a.server.release_collection(data.AUTO.name)
    a.server.load(data.AUTO.name, partitions=["loaded", "_default"])
    data.wait_until(lambda: a.server.load_state(data.AUTO.name) == "Loaded")
    began = datetime.now(timezone.utc)
    summary = a.backup("zoo", [str(shape.name) for shape in data.ZOO])
    return Zoo(a, rows, summary, began, datetime.now(timezone.utc))


@pytest.fixture(scope="session")
def head(zoo: Zoo) -> dict[str, Any]:
    """A backup of MANY alone, as ``head``."""
    return zoo.cluster.backup("head", "zoo_many")
