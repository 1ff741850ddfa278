"""A contract server with its bucket and its backups, as the tests see them."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
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
from tests import format_reader
from tests.contract.buckets import S3Bucket
from tests.contract.clients import stub
from tests.contract.model import Model
from tests.contract.recording import Request
from tests.contract.servers import ContractServer, contract_server
from tests.integration.clusters import Lines

BUCKET = "a-bucket"


class Log(Lines):
    """A logger that keeps what is written to it, and lets something happen when a line is."""

    def __init__(self) -> None:
        super().__init__()
        #: What happens at the first line with a text, once.
        self.actions: dict[str, Callable[[], object]] = {}

    def info(self, text: str, *args: object) -> None:
        """Keep a line."""
        super().info(text, *args)
        for part in [part for part in self.actions if part in self.lines[-1]]:
            self.actions.pop(part)()

    warning = info


@cache
def _session(access_key: str, secret_key: str) -> boto3.Session:
    return boto3.Session(access_key, secret_key, region_name="us-east-1")


@dataclass
class World:
    """One Milvus of one version."""

    server: ContractServer
    s3: servers.S3Server
    #: Above both Milvus's own root path and that of the backups.
    root: str
    log: Log = field(default_factory=Log)
    #: What replaces the address.
    address: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Model:
        """What is behind the server."""
        return self.server.model

    def location(self, path: str, bucket: str = BUCKET) -> S3Location:
        """Return a place in the store."""
        session = partial(_session, self.s3.access_key, self.s3.secret_key)
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
        patience = more.pop("patience", None) or Patience(timeout=250)
        run = BackupRun.open(settings or self.settings, Reporter(self.log), patience, owner, gc_pause)
        try:
            return run.backup(name, collections, strategy, **more).to_dict()
        finally:
            run.server.close()

    def restore(self, name: str = "nightly", *, settings: Settings | None = None, restore_id: str = "", **options: Any) -> dict[str, Any]:
        """Restore, wait, finish, and return the summary."""
        run = RestoreRun.open(settings or self.settings, Reporter(self.log), Patience(timeout=250), resumable=bool(restore_id))
        try:
            state = run.start(name, restore_id or uuid.uuid4().hex[:16], RestoreOptions(**options))
            run.wait(state, 0.05)
            return run.finish(state)
        finally:
            run.close()

    def restore_into(self, other: World, name: str = "nightly", **options: Any) -> dict[str, Any]:
        """Restore a backup of this Milvus into another one."""
        return other.restore(name, settings=replace(other.settings, backup_storage=self.settings.backup_storage), **options)

    def said(self, text: str) -> bool:
        """Return whether a line with this text was written."""
        return any(text in line for line in self.log.lines)

    # ---- what happens meanwhile --------------------------------------------------------------------------------------------

    def at(self, request: str, *actions: Callable[[], object]) -> None:
        """Let the actions happen one by one, each right before a request of this name is answered; one that raises is the answer."""
        waiting, earlier = deque(actions), self.server.recorder.before

        def before(came: Request) -> None:
            if came.name == request and waiting:
                waiting.popleft()()
            elif earlier:
                earlier(came)

        self.server.recorder.before = before

    # ---- what is there -----------------------------------------------------------------------------------------------------

    def keys(self, path: str) -> list[str]:
        """Return the keys below a path, from there on."""
        prefix = f"{self.root}/{path}/"
        return [key.removeprefix(prefix) for key in self.model.bucket.list(prefix)]

    def read(self, path: str) -> bytes:
        """Return an object."""
        return self.model.bucket.get(f"{self.root}/{path}")

    def full_meta(self, name: str = "nightly") -> dict[str, Any]:
        """Return what full_meta.json of a backup says."""
        found: dict[str, Any] = json.loads(self.read(f"backup/{name}/meta/full_meta.json"))
        return found

    def saved(self, name: str = "nightly") -> dict[int, Any]:
        """Return the segments of a backup of one collection as full_meta.json has them, by id."""
        (collection,) = self.full_meta(name)["collection_backups"]
        segments = [segment for partition in collection["partition_backups"] for segment in partition.get("segment_backups", [])]
        return {segment["segment_id"]: segment for segment in segments + collection.get("l0_segments", [])}

    def checked(self, name: str = "nightly") -> format_reader.CheckedBackup:
        """Return a backup as the reader that knows nothing but the official format reads it."""
        keys = {f"{self.root}/backup/{name}/{key}": f"backup/{name}/{key}" for key in self.keys(f"backup/{name}")}
        sizes = {key: len(self.read(path)) for key, path in keys.items()}
        root, milvus_root = f"{self.root}/backup", f"{self.root}/files"
        return format_reader.check_backup(sizes, lambda key: self.read(keys[key]), root, name, milvus_root=milvus_root)

    def ask(self, rpc: str, request: Any, database: str = "default") -> Any:
        """Send a request, as any client might."""
        with stub(self.server) as client:
            answer = getattr(client, rpc)(request, metadata=[("dbname", database)])
        status = answer if hasattr(answer, "error_code") else answer.status
        assert (status.code, status.error_code) == (0, 0), status
        return answer


@contextmanager
def world(version: str, s3: servers.S3Server, **options: Any) -> Iterator[World]:
    """Run one Milvus; ``options`` are those of :func:`.contract_server`."""
    root = uuid.uuid4().hex[:8]
    keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "region": "us-east-1"}
    store = S3Store(BUCKET, endpoint=s3.endpoint_url, client_options={"allow_http": True}, **keys)
    with contract_server(version, S3Bucket(store), root_path=f"{root}/files", bucket_name=BUCKET, **options) as server:
        server.model.flush_seconds = 0.0
        yield World(server, s3, root)
