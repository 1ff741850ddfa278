"""A real Milvus on a real S3, and the settings to back up from and restore into it."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_milvus_backup.core.settings import MilvusAddress, Settings
from demo import servers

from .collection import location


@contextlib.contextmanager
def cluster() -> Iterator[tuple[Settings, Any]]:
    """Yield (settings, MilvusClient)."""
    from pymilvus import MilvusClient

    with (
        tempfile.TemporaryDirectory() as directory,
        servers.s3_server(Path(directory) / "s3") as s3,
        servers.milvus_server(Path(directory) / "milvus", s3) as milvus,
    ):
        keys = (s3.access_key, s3.secret_key)
        client = MilvusClient(f"http://{milvus.host}:{milvus.port}")
        yield (
            Settings(
                MilvusAddress(milvus.host, milvus.port),
                location(s3.endpoint_url, keys, milvus.root_path, milvus.bucket),
                location(s3.endpoint_url, keys, "backup", milvus.bucket),
            ),
            client,
        )
        client.close()


def rows(first: int, count: int, dim: int) -> Sequence[dict[str, Any]]:
    """Return rows with the ids ``first`` .. and random vectors."""
    return [{"id": first + number, "vector": [random.random() for _ in range(dim)]} for number in range(count)]
