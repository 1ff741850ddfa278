"""A Milvus and a store in which backups get old, for tests of freshness; a DAG file can let a backup happen while its task waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from airflow_provider_milvus_backup.core.names import CollectionName
from benchmarks.catalog import DelimitingStore, backup, stored
from benchmarks.collection import BACKUPS
from benchmarks.slow_s3 import Answer, in_thread
from tests.airflow.stack import in_environment
from tests.contract import shapes
from tests.contract.servers import ContractServer, contract_server

#: What happens when a task of the DAG ``ages`` has found its collection late, by the name of the collection.
MEANWHILE: list[Callable[[str], None]] = []


class AgingStore(DelimitingStore):
    """Says that everything was written an hour from now, so that the times count that backups record."""

    def _list(self, bucket: str, asked: dict[str, str]) -> Answer:
        answer = super()._list(bucket, asked)
        later = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return answer._replace(body=answer.body.replace(b"2026-01-01T00:00:00.000Z", later.encode()))


@dataclass
class Aging:
    """Both ends."""

    milvus: ContractServer
    served: AgingStore
    endpoint: str

    def create(self, *names: str) -> None:
        """Make collections that are older than any promise."""
        for name in names:
            self.milvus.model.create_collection(CollectionName("default", name), shapes.schema(name), shards=1).created = 1 << 18

    def backup(self, name: str, hours: float, *collections: str) -> None:
        """Make a backup so many hours ago."""
        files = backup(name)
        facts = json.loads(files[f"{BACKUPS}/{name}/provider/catalog.json"])
        facts["created"] = (datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat()
        facts["collections"] = [f"default.{collection}" for collection in collections]
        files[f"{BACKUPS}/{name}/provider/catalog.json"] = json.dumps(facts).encode()
        for key, content in stored(files).items():
            self.served._put(key, content)


@contextmanager
def aging() -> Iterator[Aging]:
    """Run both, with the connections ``milvus_default`` and ``aws_default``."""
    store = AgingStore({})
    with contract_server("2.6.20", passwords={"root": "planted-password"}) as milvus, in_thread(store) as endpoint:
        connections = {
            "milvus_default": {
                "conn_type": "milvus",
                "host": milvus.host,
                "port": milvus.port,
                "login": "root",
                "password": "planted-password",
            },
            "aws_default": {"conn_type": "aws", "login": "key", "password": "planted-secret", "extra": {"endpoint_url": endpoint}},
        }
        with in_environment(connections):
            yield Aging(milvus, store, endpoint)
