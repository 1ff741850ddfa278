"""A contract server with its bucket and its backups, as the tests see them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import boto3
from obstore.store import S3Store

from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.plan import FLUSH
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.settings import MilvusAddress, S3Location, Settings
from demo import servers
from tests.contract.buckets import S3Bucket
from tests.contract.model import Model
from tests.contract.servers import ContractServer, contract_server
from tests.integration.clusters import Lines

BUCKET = "a-bucket"


@dataclass
class World:
    """One Milvus of one version."""

    server: ContractServer
    s3: servers.S3Server
    #: Above both Milvus's own root path and that of the backups.
    root: str
    log: Lines = field(default_factory=Lines)
    #: What replaces the address.
    address: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """What is behind the server."""
        return self.server.model

    def location(self, path: str, bucket: str = BUCKET) -> S3Location:
        """Return a place in the store."""
        session = partial(boto3.Session, self.s3.access_key, self.s3.secret_key, region_name="us-east-1")
        return S3Location(bucket, path, session, endpoint_url=self.s3.endpoint_url)

    @property
    def settings(self) -> Settings:
        """The settings of its backups and restores."""
        address = MilvusAddress(self.server.host, self.server.port, management_endpoint=self.server.management_endpoint)
        own, backups = self.location(f"{self.root}/files"), self.location(f"{self.root}/backup")
        return Settings(replace(address, **self.address), own, backups)

    def backup(
        self, name: str = "nightly", collections: Any = None, strategy: str = FLUSH, *, settings: Settings | None = None, **more: Any
    ) -> dict[str, Any]:
        """Back up and return the summary."""
        gc_pause, owner = more.pop("gc_pause", "auto"), more.pop("owner", Owner())
        run = BackupRun.open(settings or self.settings, Reporter(self.log), Patience(timeout=60), owner, gc_pause)
        try:
            return run.backup(name, collections, strategy, **more).to_dict()
        finally:
            run.server.close()

    def restore(
        self, name: str = "nightly", *, settings: Settings | None = None, restore_id: str = "", **options: Any
    ) -> dict[str, Any]:
        """Restore, wait, finish, and return the summary."""
        run = RestoreRun.open(settings or self.settings, Reporter(self.log), Patience(timeout=60), resumable=bool(restore_id))
        try:
            state = run.start(name, restore_id or uuid.uuid4().hex[:16], RestoreOptions(**options))
            run.wait(state, 0.2)
            return run.finish(state)
        finally:
            run.close()

    def restore_into(self, other: World, name: str = "nightly", **options: Any) -> dict[str, Any]:
        """Restore a backup of this Milvus into another one."""
        return other.restore(name, settings=replace(other.settings, backup_storage=self.settings.backup_storage), **options)

    def said(self, text: str) -> bool:
        """Return whether a line with this text was written."""
        return any(text in line for line in self.log.lines)


@contextmanager
def world(version: str, s3: servers.S3Server, **options: Any) -> Iterator[World]:
    """Run one Milvus; ``options`` are those of :func:`.contract_server`."""
    root = uuid.uuid4().hex[:8]
    keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "region": "us-east-1"}
    store = S3Store(BUCKET, endpoint=s3.endpoint_url, client_options={"allow_http": True}, **keys)
    with contract_server(version, S3Bucket(store), root_path=f"{root}/files", bucket_name=BUCKET, **options) as server:
        yield World(server, s3, root)
