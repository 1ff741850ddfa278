"""A Milvus, its bucket and its backups, as the tests see them."""

from __future__ import annotations

import re
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import obstore
from obstore.store import S3Store
from pymilvus import MilvusClient

from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.plan import FLUSH
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress, S3Location, Settings
from demo import servers
from tests.integration import data

if TYPE_CHECKING:
    from tests.door.door import Door

Listing = dict[str, tuple[int, str]]


class User(NamedTuple):
    """One identity of an S3."""

    name: str
    actions: tuple[str, ...]

    @property
    def key(self) -> str:
        """The access key; the secret one is longer."""
        return f"AK{self.name.upper()}"

    def identity(self) -> dict[str, Any]:
        """Return what :func:`servers.s3_server` takes."""
        return {"name": self.name, "access_key": self.key, "secret_key": f"secret of {self.name}", "actions": list(self.actions)}


def _all(bucket: str) -> tuple[str, ...]:
    return (f"Read:{bucket}", f"Write:{bucket}", f"List:{bucket}")


A_BUCKET, B_BUCKET, VAULT = "a-bucket", "b-bucket", "vault"
ONLY_A, ONLY_B, ONLY_VAULT = (User(f"only{b[0]}", _all(b)) for b in (A_BUCKET, B_BUCKET, VAULT))
READER = User("reader", ("Read", "List"))
STRANGER = User("stranger", _all("nowhere"))
USERS = [ONLY_A, ONLY_B, ONLY_VAULT, READER, STRANGER]


def location(s3: servers.S3Server, bucket: str, root_path: str = "backup", user: User | None = None, label: str = "") -> S3Location:
    """Return a place in a bucket; without a user the admin's credentials are used."""
    key, secret = (user.key, f"secret of {user.name}") if user else (s3.access_key, s3.secret_key)
    return S3Location(bucket, root_path, lambda: _session(key, secret, threading.get_ident()), endpoint_url=s3.endpoint_url, label=label)


@cache
def _session(key: str, secret: str, _thread: int) -> boto3.Session:
    """Each reads all it knows of S3 from files, which takes a good part of a second; threads must not share one."""
    return boto3.Session(key, secret, region_name="us-east-1")


class Lines:
    """A logger that keeps what is written to it; pytest shows it when a test fails."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str, *args: object) -> None:
        """Keep a line."""
        self.lines.append(text % args)
        print(self.lines[-1])  # noqa: T201

    warning = info


@dataclass
class Cluster:
    """One Milvus with its storage."""

    milvus: servers.MilvusServer
    s3: servers.S3Server
    #: Where its backups go unless a test says otherwise.
    backups: S3Location
    log: Lines = field(default_factory=Lines)
    #: What the provider goes through, so that it sees a newer server.
    door: Door | None = None
    _clients: dict[str, MilvusClient] = field(default_factory=dict)

    @property
    def address(self) -> MilvusAddress:
        """How the provider reaches it."""
        m = self.milvus
        address = MilvusAddress(m.host, m.port, user=m.user, password=m.password, label="connection 'milvus_test'")
        if self.door:
            address = replace(address, port=self.door.port, management_endpoint=f"http://{m.host}:{self.door.management_port}")
        return address

    @property
    def storage(self) -> S3Location:
        """The bucket it keeps its data in."""
        return location(self.s3, self.milvus.bucket, self.milvus.root_path, label="connection 'milvus_test'")

    @property
    def settings(self) -> Settings:
        """The settings of its backups and restores; tests replace what they need otherwise."""
        return Settings(self.address, self.storage, self.backups)

    def client(self, database: str = "default") -> MilvusClient:
        """Return pymilvus's client for one database, always the same."""
        if database not in self._clients:
            uri, m = f"http://{self.address.host}:{self.address.port}", self.milvus
            self._clients[database] = MilvusClient(uri, user=m.user, password=m.password, db_name=database)
        return self._clients[database]

    @property
    def server(self) -> MilvusServer:
        """The provider's own view of the server, on one channel."""
        if not hasattr(self, "_server"):
            self._server = MilvusServer(self.address)
        return self._server

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()
        self.server.close()

    # ---- what the tests do ---------------------------------------------------------------------------------------------------

    def create(self, shape: data.Collection, rows: range = range(0), *, load: bool = False) -> data.Collection:
        """Create a collection with some rows, flushed, and maybe load it."""
        database = shape.name.database
        if database not in self.server.databases():
            self.server.create_database(database)
        shape.create(self.client(database), self.server)
        if rows:
            shape.insert(self.client(database), rows)
            data.flush(self.server, [shape])
        if load:
            data.load(self.server, [shape.name])
        return shape

    def drop(self, *names: CollectionName) -> None:
        """Drop collections; those that do not exist are ignored."""
        for name in names:
            if name.collection in self.client(name.database).list_collections():
                self.client(name.database).drop_collection(name.collection)

    def backup(
        self,
        name: str,
        collections: Any = None,
        strategy: str = FLUSH,
        if_exists: str = "fail",
        *,
        settings: Settings | None = None,
        owner: Owner | None = None,
    ) -> dict[str, Any]:
        """Back up and return the summary."""
        run = BackupRun.open(settings or self.settings, Reporter(self.log), owner=owner)
        try:
            return run.backup(name, collections, strategy, if_exists).to_dict()
        finally:
            run.server.close()

    def restore(self, name: str, *, settings: Settings | None = None, restore_id: str = "", **options: Any) -> dict[str, Any]:
        """Restore, wait, finish, and return the summary; with a ``restore_id`` an error that passes leaves it to a further try."""
        run = RestoreRun.open(settings or self.settings, Reporter(self.log), Patience(timeout=280), resumable=bool(restore_id))
        try:
            state = run.start(name, restore_id or uuid.uuid4().hex[:16], RestoreOptions(**options))
            run.wait(state, 1.0)
            return run.finish(state)
        finally:
            run.close()

    def restore_all(self, options: Mapping[str, RestoreOptions]) -> dict[str, dict[str, Any]]:
        """Restore backups by name and return their summaries: submitted together, for each alone waits some seconds for Milvus."""
        begun = {}
        for name, chosen in options.items():
            run = RestoreRun.open(self.settings, Reporter(self.log), Patience(timeout=560))
            begun[name] = run, run.start(name, name, chosen)
        summaries = {}
        for name, (run, state) in begun.items():
            run.wait(state, 1.0)
            summaries[name] = run.finish(state)
            run.close()
        return summaries

    def contents(self, name: CollectionName, *, load: bool = True) -> data.Contents:
        """Return every row of a collection, loading it completely first."""
        if load:
            data.load(self.server, [name])
        return data.contents(self.client(name.database), name.collection)

    def collections(self) -> dict[str, list[str]]:
        """Return the names of all collections by database."""
        return {database: sorted(self.client(database).list_collections()) for database in sorted(self.server.databases())}


@cache
def admin(s3: servers.S3Server) -> Any:
    """Return boto3's client for the admin; one for all, for each takes half a second to make."""
    return s3.client()


@cache
def _bucket(s3: servers.S3Server, bucket: str) -> S3Store:
    keys = {"access_key_id": s3.access_key, "secret_access_key": s3.secret_key, "region": "us-east-1"}
    return S3Store(bucket, endpoint=s3.endpoint_url, client_options={"allow_http": True}, **keys)


def listing(s3: servers.S3Server, bucket: str, prefix: str = "") -> Listing:
    """Return (size, ETag) of every object whose key begins with ``prefix``; boto3 would need seconds for all that is there in the end."""
    below = prefix.rpartition("/")[0]
    found = (item for page in obstore.list(_bucket(s3, bucket), below or None) for item in page)
    return {item["path"]: (item["size"], item["e_tag"] or "") for item in found if item["path"].startswith(prefix)}


def everything(cluster: Cluster, *more: servers.S3Server) -> dict[str, Any]:
    """Return what a refused request must leave as it was: all buckets but for Milvus's own data, and all collections.

    Milvus itself writes at any time below its root path, but only index and binlog files, and it deletes nothing during a test.
    """
    found: dict[str, Any] = {"collections": cluster.collections()}
    for s3 in {s.endpoint_url: s for s in (cluster.s3, *more)}.values():
        for bucket in admin(s3).list_buckets()["Buckets"]:
            name = bucket["Name"]
            own = f"{cluster.milvus.root_path}/" if name == cluster.milvus.bucket else "\0"
            found[f"{s3.endpoint_url}/{name}"] = {k: v for k, v in listing(s3, name).items() if not k.startswith(own)}
    return found


@contextmanager
def counting_relay(endpoint_url: str, pattern: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the URL of a relay to an endpoint and the list of all request lines that match ``pattern`` so far."""
    host, port = endpoint_url.rpartition("/")[2].split(":")
    matches: list[bytes] = []
    connections: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket, *, requests: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if requests:
                    matches.extend(re.findall(rb"(?m)^[A-Z]+ [^\r\n]*" + pattern + rb"[^\r\n]*", chunk))
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((host, int(port)))
                connections.extend([near, far])
                for source, sink, requests in ((near, far, True), (far, near, False)):
                    threading.Thread(target=pump, args=(source, sink), kwargs={"requests": requests}, daemon=True).start()

    with socket.create_server((servers.LOOPBACK, 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield f"http://{servers.LOOPBACK}:{listener.getsockname()[1]}", matches
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                connection.close()


def moved(place: S3Location, endpoint_url: str) -> S3Location:
    """Return the same place behind another endpoint."""
    return replace(place, endpoint_url=endpoint_url)
