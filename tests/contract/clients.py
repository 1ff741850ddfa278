"""Plain clients of contract servers, and something for them to ask about."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from pymilvus.grpc_gen import milvus_pb2_grpc

from . import shapes
from .scenes import SOURCE, TARGET, dirs, options
from .servers import ContractServer


@contextmanager
def stub(server: ContractServer, *, channel: Any = None) -> Iterator[Any]:
    """Yield the generated stub on a channel of its own, or on one that is given."""
    opened = channel or grpc.insecure_channel(f"{server.host}:{server.port}")
    with opened:
        yield milvus_pb2_grpc.MilvusServiceStub(opened)


class Rest:
    """One connection to REST, kept alive."""

    def __init__(self, server: ContractServer, headers: Mapping[str, str] | None = None, context: ssl.SSLContext | None = None) -> None:
        kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
        more: dict[str, Any] = {"context": context} if context else {}
        self._connection, self._headers = kind(server.host, server.port, timeout=60, **more), dict(headers or {})

    def __enter__(self) -> Rest:  # noqa: PYI034 (Self came with Python 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def raw(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a body as it is."""
        self._connection.request("POST", f"/v2/vectordb/{path}", body, self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def post(self, path: str, document: Any) -> dict[str, Any]:
        """Send a document and return the answer, which must be JSON with status 200."""
        status, body = self.raw(path, json.dumps(document).encode())
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        return answer


def fill(server: ContractServer) -> Any:
    """Give a server a collection with flushed rows, and an empty one."""
    source = server.model.create_collection(SOURCE, shapes.schema("source"), shards=2)
    server.model.insert(SOURCE, [shapes.row(number) for number in range(5)])
    server.model.flush(SOURCE)
    server.model.create_collection(TARGET, shapes.schema("target"))
    return source


def create(server: ContractServer, source: Any, **more: Any) -> dict[str, Any]:
    """Return a request for an import of all there is."""
    return {
        "collectionName": "target",
        "partitionName": "_default",
        "files": [dirs(source)],
        "options": options(server.model),
        **more,
    }


def get(server: ContractServer, path: str) -> tuple[int, Any]:
    """Ask the management port and return status and answer."""
    connection = http.client.HTTPConnection(server.host, server.management_port, timeout=60)
    try:
        connection.request("GET", f"/management/datacoord/garbage_collection/{path}")
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body.startswith(b"{") else body
    finally:
        connection.close()


def ended(rest: Rest, job_id: str) -> dict[str, Any]:
    """Poll a job until it has ended."""
    for _ in range(500):
        data = rest.post("jobs/import/get_progress", {"jobId": job_id})["data"]
        if data["state"] in ("Completed", "Failed"):
            return dict(data)
        time.sleep(0.005)
    raise AssertionError(f"job {job_id} does not end")
