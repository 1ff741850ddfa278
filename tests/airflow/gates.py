"""Proxies between Airflow and its servers that stop at a chosen request, so that a kill comes at a chosen moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pymilvus.grpc_gen import milvus_pb2

from tests.airflow.stack import Stack, in_environment
from tests.breaking.faults import Script
from tests.breaking.faulty_grpc import FaultyGrpc, faulty_grpc
from tests.breaking.faulty_s3 import FaultyS3, faulty_s3


class Gate:
    """Holds every request of one operation back, from the n-th on, until it is opened."""

    def __init__(self, operation: str, number: int) -> None:
        self.operation, self.number = operation, number
        self.reached, self.opened = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._seen = 0

    @contextmanager
    def closed(self) -> Iterator[Gate]:
        """Open it at the end of the block, whatever happens there."""
        try:
            yield self
        finally:
            self.opened.set()

    def __call__(self, operation: str, path: str = "") -> None:
        if operation != self.operation or self.opened.is_set():
            return
        with self._lock:
            self._seen += 1
            held = self._seen >= self.number
        if held:
            self.reached.set()
            self.opened.wait(600)


class Stalled:
    """Says of every import job that it still runs, however fast Milvus is, for as long as ``silent`` is set."""

    def __init__(self) -> None:
        self.silent = threading.Event()
        #: The jobs that were asked for.
        self.asked: set[int] = set()

    def __call__(self, operation: str, request: bytes) -> bytes | None:
        if operation != "GetImportState":
            return None
        self.asked.add(milvus_pb2.GetImportStateRequest.FromString(request).task)
        return milvus_pb2.GetImportStateResponse().SerializeToString() if self.silent.is_set() else None  # pending, without an error


def behind(stack: Stack, *, milvus: FaultyGrpc | None = None, s3: FaultyS3 | None = None) -> Stack:
    """Return the stack as a client sees it that comes through the proxies."""
    return replace(
        stack,
        milvus=replace(stack.milvus, port=milvus.port) if milvus else stack.milvus,
        s3=replace(stack.s3, endpoint_url=s3.endpoint_url) if s3 else stack.s3,
        clients={},
    )


@contextmanager
def milvus_proxy(stack: Stack, schedule: Any = None) -> Iterator[FaultyGrpc]:
    """Run a proxy in front of Milvus A. It never cancels a request, which would crash this Milvus when a client dies."""
    with faulty_grpc(stack.milvus.host, stack.milvus.port, schedule or Script({})) as proxy:
        yield proxy


@contextmanager
def s3_proxy(stack: Stack, schedule: Any = None) -> Iterator[FaultyS3]:
    """Run a proxy in front of the S3."""
    with faulty_s3(stack.s3.endpoint_url, schedule or Script({})) as proxy:
        yield proxy


@contextmanager
def stalled_imports(stack: Stack) -> Iterator[None]:
    """Let the connections lead to a Milvus that says of every import job that it still runs."""
    with milvus_proxy(stack) as milvus, in_environment(behind(stack, milvus=milvus).connections()):
        milvus.instead = stalled = Stalled()
        stalled.silent.set()
        yield
