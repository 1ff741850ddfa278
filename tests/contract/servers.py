"""A contract server: gRPC and REST on one port, management on another, in front of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from .accounts import Accounts
from .buckets import Bucket, MemoryBucket
from .gc import GarbageCollector
from .grpc_server import Servicer, grpc_server
from .http_side import management, rest
from .model import Model
from .ports import LOOPBACK, Port, http_only, port, shared
from .profiles import PROFILES, Profile
from .recording import Recorder
from .rest_api import RestApi
from .tls import Certificates


@dataclass
class ContractServer:
    """A running server; :func:`contract_server` makes it."""

    profile: Profile
    model: Model
    port: int
    management_port: int
    recorder: Recorder
    accounts: Accounts
    gc: GarbageCollector
    #: Where it listens.
    host: str = LOOPBACK
    _proxy: Port | None = field(default=None, repr=False)

    @property
    def requests(self) -> Any:
        """How many requests of each name came: RPCs by name, REST by its path below ``/v2/vectordb/``."""
        return self.recorder.counts

    @property
    def rest_endpoint(self) -> str:
        """The URL of REST, without TLS."""
        return f"http://{self.host}:{self.port}"

    @property
    def management_endpoint(self) -> str:
        """The URL of the management port."""
        return f"http://{self.host}:{self.management_port}"

    def disconnect(self) -> None:
        """End all connections of gRPC and REST, as a restarted proxy does; the state stays."""
        assert self._proxy is not None
        self._proxy.disconnect()


@contextmanager
def contract_server(
    profile: Profile | str,
    bucket: Bucket | None = None,
    *,
    passwords: Mapping[str, str] | None = None,
    api_keys: set[str] | None = None,
    root_path: str = "files",
    bucket_name: str = "a-bucket",
    flush_interval: float | None = 0.1,
    certificates: Certificates | None = None,
    model: Model | None = None,
    **options: Any,
) -> Iterator[ContractServer]:
    """Run a server.

    :param profile: a version, or its name in :data:`.profiles.PROFILES`
    :param bucket: where its data goes, None = into memory
    :param passwords: users that must log in; with neither these nor ``api_keys`` everyone may ask
    :param flush_interval: seconds between two flushes of one collection, None = the ten of the real configuration
    :param certificates: TLS for gRPC and REST
    :param model: a model that is there already, of a server that ran before
    :param options: more arguments of :class:`.model.Model`
    """
    chosen = PROFILES[profile] if isinstance(profile, str) else profile
    if model is None:
        model = Model(chosen, MemoryBucket() if bucket is None else bucket, root_path=root_path, bucket_name=bucket_name, **options)
    recorder, accounts = Recorder(), Accounts(dict(passwords or {}), api_keys)
    gc = GarbageCollector(tickets=model.profile.gc_tickets, monotonic=model.monotonic)
    context = certificates.context() if certificates else None
    with ExitStack() as running:
        grpc_port = running.enter_context(grpc_server(Servicer(model, recorder, accounts, flush_interval), certificates))
        proxy = running.enter_context(port(shared(rest(RestApi(model, recorder, accounts)), grpc_port, context)))
        manager = running.enter_context(port(http_only(management(gc))))
        yield ContractServer(model.profile, model, proxy.number, manager.number, recorder, accounts, gc, _proxy=proxy)
