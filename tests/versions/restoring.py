"""What the tests of restores have in common: a collection with some of everything, runs in steps, and what may answer instead of REST."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.settings import Settings
from tests.contract import shapes
from tests.contract.grpc_server import Servicer, grpc_server
from tests.contract.http_side import rest
from tests.contract.jobs import Job
from tests.contract.ports import LOOPBACK, http_only, port
from tests.contract.rest_api import RestApi
from tests.contract.tls import Certificates

from .worlds import World

NAME, BACK = ("default", "docs"), ("default", "docs_back")
CREATE, LIST, DESCRIBE, GET_PROGRESS = (f"jobs/import/{verb}" for verb in ("create", "list", "describe", "get_progress"))
RESTORE_ID = "0123456789abcdef"


def segments(world: World, count: int, name: tuple[str, str] = NAME, per_segment: int = 2, *, indexes: bool = False) -> dict[str, Any]:
    """Make a collection of so many flushed segments in one channel, and return its rows."""
    model = world.model
    model.create_collection(name, shapes.schema(name[1]), shards=1)
    for number in range(count):
        model.insert(name, [shapes.row(number * per_segment + i) for i in range(per_segment)])
        model.flush(name)
    if indexes:
        model.create_index(name, "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    return dict(model.rows(name))


def deletes(world: World, name: tuple[str, str] = NAME) -> dict[str, Any]:
    """Make a collection with L0 segments of one partition and of all, in two channels, and return its rows.

    1, 2 and 101 are deleted in all partitions, 3 and 102 in one, 5 is updated, 7 deleted, and 1 and 7 are inserted again afterwards.
    """
    model = world.model
    model.create_collection(name, shapes.schema(name[1]), shards=2)
    model.create_partition(name, "second")
    model.insert(name, [shapes.row(number) for number in range(20)])
    model.insert(name, [shapes.row(number) for number in range(100, 110)], "second")
    model.flush(name)
    model.delete(name, [1, 2, 101])
    model.delete(name, [3, 102], "second")
    model.delete(name, [102, 103], "_default")
    model.upsert(name, [{"id": 5, "v": [-5.0, 0.5]}])
    model.flush(name)
    model.delete(name, [7])
    model.insert(name, [shapes.row(number) for number in (1, 7)])
    model.flush(name)
    rows = dict(model.rows(name))
    assert {*rows["_default"]} == {*range(20)} - {2}
    assert {*rows["second"]} == {*range(100, 110)} - {101, 102}
    assert rows["_default"][5]["v"] == [-5.0, 0.5]
    return rows


@contextmanager
def restoring(world: World, *, settings: Settings | None = None, resumable: bool = True) -> Iterator[RestoreRun]:
    """Open a run, as one worker does."""
    run = RestoreRun.open(settings or world.settings, Reporter(world.log), Patience(timeout=250), resumable=resumable)
    try:
        yield run
    finally:
        run.close()


def headers(world: World, request: str) -> list[Mapping[str, str]]:
    """Return the headers of all requests of one name."""
    return [came.headers for came in world.server.recorder.requests if came.name == request]


def creates(world: World) -> list[Any]:
    """Return the bodies of all requests that were to create a job."""
    return world.server.recorder.of(CREATE)


def jobs(world: World, name: tuple[str, str] | None = None) -> list[Job]:
    """Return all jobs that were ever made and not forgotten, the oldest first."""
    return [job for job in world.model.jobs.values() if name in (None, job.collection)]


def once_each(world: World, name: tuple[str, str] = BACK) -> bool:
    """Return whether no row is there twice."""
    return set(world.model.copies(name).values()) <= {1}


# ---- what answers --------------------------------------------------------------------------------------------------------------------


@contextmanager
def front(world: World, certificates: Certificates | None = None) -> Iterator[int]:
    """Serve REST on a port of its own, as ``proxy.http.port`` does, and yield its number."""
    server = world.server
    handler = rest(RestApi(server.model, server.recorder, server.accounts))
    with port(http_only(handler, certificates.context() if certificates else None)) as opened:
        yield opened.number


@contextmanager
def grpc_only(world: World) -> Iterator[int]:
    """Serve gRPC alone, as a Milvus with ``proxy.http.enabled: false`` does, and yield the port."""
    server = world.server
    with grpc_server(Servicer(server.model, server.recorder, server.accounts, 0.1), None) as number:
        yield number


@contextmanager
def answering(*answers: tuple[int, str]) -> Iterator[str]:
    """Answer HTTP requests with these statuses and bodies, one after the other, the last one for ever; yields the URL."""
    left: list[tuple[int, str]] = list(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, text = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
            """Say nothing."""

    with port(http_only(Handler)) as opened:
        yield f"http://{LOOPBACK}:{opened.number}"
