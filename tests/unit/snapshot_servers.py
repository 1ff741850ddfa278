"""Strict servers with a collection to export, and what is left of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_milvus_backup.core import snapshots
from airflow_provider_milvus_backup.core.imports import JobState, JobStatus
from airflow_provider_milvus_backup.core.meta import SnapshotBackup
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from airflow_provider_milvus_backup.core.snapshot_plan import SnapshotPlace
from tests.contract import shapes
from tests.contract.buckets import MemoryBucket
from tests.contract.refusals import Refusal
from tests.contract.servers import ContractServer, contract_server

DOCS, RESTORED = CollectionName("default", "docs"), CollectionName("default", "__restore_0123456789abcdef")
TARGET = SnapshotPlace("s3://vault/backups/nightly/bundle")


class Lines:
    """A log that is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, form: str, *values: object) -> None:
        self.lines.append(form % values)

    warning = info


@contextmanager
def running(version: str = "3.0.1", patience: Patience | None = None) -> Iterator[tuple[ContractServer, MilvusServer]]:
    with contract_server(version) as contract:
        contract.model.buckets["vault"] = MemoryBucket()
        server = MilvusServer(MilvusAddress(contract.host, contract.port), patience)
        try:
            yield contract, server
        finally:
            server.close()


def filled(contract: ContractServer) -> int:
    """Make a collection with five flushed rows, one of them deleted, and an index; return its id."""
    made = contract.model.create_collection(DOCS, shapes.schema("docs"), shards=2)
    contract.model.create_index(DOCS, "v", "v", {"index_type": "FLAT", "metric_type": "L2"})
    contract.model.insert(DOCS, [shapes.row(number) for number in range(5)])
    contract.model.flush(DOCS)
    contract.model.delete(DOCS, [1])
    contract.model.flush(DOCS)
    return made.id


def export(
    contract: ContractServer, server: MilvusServer, log: Lines | None = None, place: SnapshotPlace = TARGET
) -> tuple[SnapshotBackup, int]:
    number = contract.model.collection(DOCS).id
    return snapshots.export_snapshot(server, DOCS, number, "nightly", place, Reporter(log or Lines()))


def left(contract: ContractServer) -> list[str]:
    return [snapshot.name for snapshot in contract.model.snapshots_of(DOCS)]


def ended(server: MilvusServer, job_id: int, name: CollectionName = RESTORED) -> JobStatus:
    until = time.monotonic() + 60
    while (status := snapshots.snapshot_state(server, job_id, name)).state is JobState.RUNNING and time.monotonic() < until:
        time.sleep(0.005)
    return status


def refusing(*refusals: Refusal) -> Callable[..., Any]:
    waiting = list(refusals)

    def refuse(*_: Any, **__: Any) -> Any:
        raise waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return refuse
