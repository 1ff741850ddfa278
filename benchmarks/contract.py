"""A contract server (``tests/contract``) in a process of its own, so that what it costs is not taken for ours."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from demo import servers


class Remote(NamedTuple):
    """The server as this process sees it."""

    port: int
    pipe: Any

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``function(server, *arguments)`` returns in the server's process; it is found there by its module and name."""
        self.pipe.send((function, arguments))
        return self.pipe.recv()


@contextlib.contextmanager
def contract_process(version: str, s3: servers.S3Server | None = None, bucket: str = "", root_path: str = "files") -> Iterator[Remote]:
    """Run a server that keeps its data in ``bucket``, or in its memory when there is no S3."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    keys = (s3.endpoint_url, s3.access_key, s3.secret_key) if s3 else None
    server = context.Process(target=_serve, args=(theirs, version, keys, bucket, root_path), daemon=True)
    server.start()
    try:
        yield Remote(ours.recv(), ours)
    finally:
        server.kill()
        server.join()


def _serve(pipe: Any, version: str, s3: tuple[str, str, str] | None, bucket: str, root_path: str) -> None:
    from obstore.store import S3Store

    from tests.contract.buckets import MemoryBucket, S3Bucket
    from tests.contract.servers import contract_server

    store: Any = MemoryBucket()
    if s3:
        endpoint, access, secret = s3
        options = {"access_key_id": access, "secret_access_key": secret, "region": "us-east-1", "client_options": {"allow_http": True}}
        store = S3Bucket(S3Store(bucket, endpoint=endpoint, **options))
    with contract_server(version, store, root_path=root_path, bucket_name=bucket) as server:
        pipe.send(server.port)
        while True:
            function, arguments = pipe.recv()
            pipe.send(function(server, *arguments))
