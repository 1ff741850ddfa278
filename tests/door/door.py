"""A door in front of a real Milvus 2.3.5: through it, the server looks like a newer one, and real rows move over REST."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo.servers import LOOPBACK, MilvusServer, S3Server
from tests.door.grpc_side import GrpcSide
from tests.door.jobs import Jobs, Release
from tests.door.management import Management
from tests.door.mux import Mux
from tests.door.rest_side import RestSide
from tests.door.upstream import Upstream

VERSION = "v2.5.10"


class Door:
    """The open door; :func:`door` makes it.

    :param version: the release that it looks like, from 2.4.0 on. What it does as that release does is REST v2 of imports and segments,
        and pausing garbage collection; one before 3.0 has L0 imports as far as anybody can see, but refuses them
    """

    host = LOOPBACK

    def __init__(self, milvus: MilvusServer, s3: S3Server, version: str = VERSION) -> None:
        self.version = version
        release = _release(version)
        self.grpc = GrpcSide(milvus.host, milvus.port, version)
        upstream = Upstream(milvus, s3, self.grpc)
        self.jobs = Jobs(upstream, release)
        #: How many requests came, by RPC (``Flush``) or REST path (``jobs/import/create``).
        self.requests: Counter[str] = self.grpc.requests
        self.rest = RestSide(upstream, self.jobs, release, self.requests)
        self.management = Management(tickets=release >= (2, 6, 8))
        self._mux: Mux | None = None

    @property
    def port(self) -> int:
        """Where clients of gRPC and REST find it."""
        assert self._mux
        return self._mux.port

    @property
    def management_port(self) -> int:
        """Where garbage collection is paused."""
        return int(self.management.server_address[1])

    @property
    def created(self) -> list[dict[str, Any]]:
        """The bodies of all requests for an import job, in their order."""
        return self.rest.created

    @property
    def gc_calls(self) -> list[tuple[str, dict[str, str]]]:
        """Every ``pause`` and ``resume`` with its parameters, in their order."""
        return self.management.calls

    def start(self) -> None:
        """Listen on free ports."""
        self.grpc.start()
        self.management.start()
        self._mux = Mux(self.grpc.port, self.rest.serve)
        self._mux.start()

    def stop(self) -> None:
        """Close everything, after the answers that the real server still owes."""
        if self._mux:
            self._mux.stop()
        self.management.stop()
        self.rest.server_close()
        self.grpc.stop()


@contextmanager
def door(milvus: MilvusServer, s3: S3Server, version: str = VERSION) -> Iterator[Door]:
    """Open a door in front of a Milvus; ``s3`` has the credentials that Milvus itself uses."""
    opened = Door(milvus, s3, version)
    opened.start()
    try:
        yield opened
    finally:
        opened.stop()
    if errors := [*opened.rest.errors, *opened.grpc.errors]:
        raise errors[0]


def _release(version: str) -> Release:
    major, minor, patch = (int(part) for part in version.lstrip("v").split("-")[0].split("."))
    return major, minor, patch
