"""The gRPC side of a contract server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from pymilvus.grpc_gen import milvus_pb2_grpc

from .grpc_catalog import CatalogRpcs
from .grpc_data import DataRpcs
from .grpc_more import MoreRpcs
from .tls import Certificates

_HANDLERS = 16
# A second server on the same port would get some of the first one's requests.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]


class Servicer(CatalogRpcs, DataRpcs, MoreRpcs, milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
    """Every RPC a backup or a restore may send; all others are UNIMPLEMENTED."""


@contextmanager
def grpc_server(servicer: Servicer, certificates: Certificates | None = None) -> Iterator[int]:
    """Serve on a free port of loopback and yield the port."""
    pool = ThreadPoolExecutor(_HANDLERS, thread_name_prefix="contract-grpc")
    server = grpc.server(pool, options=_OPTIONS)
    register: Any = milvus_pb2_grpc.add_MilvusServiceServicer_to_server
    register(servicer, server)
    credentials = certificates.grpc() if certificates else None
    port = server.add_secure_port("127.0.0.1:0", credentials) if credentials else server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(0.2).wait()
        pool.shutdown()
