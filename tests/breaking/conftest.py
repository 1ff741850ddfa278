"""A real S3 and a real Milvus for the session, of which these tests lose, break and kill what they can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import servers  # before grpc is imported
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, location


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow for the time that the first test of a module spends on servers and on what all of them share, on a machine that is busy."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """An S3 with a bucket for Milvus and another one for backups."""
    with servers.s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(A_BUCKET)
        server.create_bucket(VAULT)
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, s3: servers.S3Server) -> Iterator[Cluster]:
    """A Milvus with its storage; its backups go into its own bucket unless a test says otherwise."""
    with servers.milvus_server(tmp_path_factory.mktemp("milvus"), s3, bucket=A_BUCKET) as milvus:
        one = Cluster(milvus, s3, location(s3, A_BUCKET))
        yield one
        one.close()
