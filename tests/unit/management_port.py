"""The management port of Milvus on loopback, as strict as Milvus or stricter, and what a test of it needs."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_milvus_backup.core.gc_pause import (
    GC_AUTO,
    GcPause,
)
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter

CLUSTER = 0
LEASE = {"pause_seconds": "3600"}
INVALID = 'strconv.ParseInt: parsing "": invalid syntax'
NO_SUCH_PATH = (404, "404 page not found\n")


@dataclass
class Milvus:
    """The management port of one Milvus: what it answers, and what is paused (nothing runs out while a test lasts).

    ``release`` is ``2.3.3`` (no such paths), ``2.5`` (cluster-wide) or ``2.6.20`` (tickets). ``answer`` replaces every answer.
    """

    release: str = "2.6.20"
    answer: tuple[int, str] | None = None
    hang: threading.Event | None = None
    root: str = ""
    enabled: bool = True
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    #: What Milvus keeps: the collection of every ticket, and whether the cluster is paused without one.
    tickets: dict[str, int] = field(default_factory=dict)
    cluster: bool = False
    #: What was paused after every request.
    history: list[set[int]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    #: What Milvus would take, and should never get.
    problems: list[str] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    @property
    def paused(self) -> set[int]:
        """The collections whose garbage collection stands still, 0 for all."""
        return set(self.tickets.values()) | ({CLUSTER} if self.cluster else set())

    def asked(self, verb: str) -> list[dict[str, str]]:
        """Return the parameters of all requests of a kind."""
        return [query for asked, query in self.requests if asked == verb]

    def get(self, target: str, authorization: str | None) -> tuple[int, str]:
        parts = urlsplit(target)
        directory, _, verb = parts.path.rpartition("/")
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        self.requests.append((verb, query))
        self.authorizations.append(authorization)
        if self.hang:
            self.hang.wait(250)
        if self.answer:
            return self.answer
        if self.root and authorization != "Basic " + base64.b64encode(self.root.encode()).decode():
            return 401, '{"msg":"only root"}'
        if self.release == "2.3.3" or directory != "/management/datacoord/garbage_collection" or verb not in ("pause", "resume"):
            return NO_SUCH_PATH
        status, text = self._pause(query) if verb == "pause" else self._resume(query)
        self.history.append(self.paused)
        return status, text

    def _pause(self, query: dict[str, str]) -> tuple[int, str]:
        if not re.fullmatch(r"-?\d+", query.get("pause_seconds", "")):
            return 500, f'{{"msg": "failed to pause garbage collection, pause duration not valid, {INVALID}"}}'
        if self.release == "2.5":
            if "collection_id" in query and self.cluster:
                self.problems.append(f"the whole cluster is paused again for {query}")
            self.cluster = True
            return 200, '{"msg": "OK"}'
        # Characters that do not survive a URL unless they are quoted.
        ticket = f"{len(self.requests)}+a/b c=="
        self.tickets[ticket] = int(query.get("collection_id", CLUSTER))
        return 200, f'{{"msg": "OK", "ticket": "{ticket}"}}'

    def _resume(self, query: dict[str, str]) -> tuple[int, str]:
        if not self.enabled:
            return 500, '{"msg": "failed to resume garbage collection, failed to pause gc, garbage collection not enabled"}'
        if self.release == "2.5":
            if set(query) - {"ticket"}:
                self.problems.append(f"nobody knows {query} here")
            self.cluster = False
            return 200, '{"msg": "OK"}'
        if not query.get("ticket"):
            return 500, f'{{"msg": "failed to resume garbage collection, {INVALID}"}}'
        if self.tickets.pop(query["ticket"], None) is None:
            self.problems.append(f"no pause has the ticket {query['ticket']!r}")
        return 200, '{"msg": "OK"}'


@contextmanager
def serving(milvus: Milvus, tls: ssl.SSLContext | None = None) -> Iterator[Milvus]:
    """Serve the management port of a Milvus on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            milvus.connections += 1
            super().setup()

        def finish(self) -> None:
            super().finish()
            milvus.connections -= 1

        def do_GET(self) -> None:
            status, text = milvus.get(self.path, self.headers.get("Authorization"))
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # whoever hung up

    server = Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    milvus.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield milvus
    finally:
        if milvus.hang:
            milvus.hang.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert milvus.problems == []


class Lines:
    """A logger that keeps apart what is a warning."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def info(self, text: str, *args: object) -> None:
        self.lines.append(text % args)

    def warning(self, text: str, *args: object) -> None:
        self.warnings.append(text % args)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so; a minute is too long."""
    late = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.005)


def refused() -> str:
    """Return a URL at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


New = Callable[..., GcPause]


@contextmanager
def making(log: Lines, clock: Clock) -> Iterator[New]:
    """Make pauses that a test need not wait for; none of them may leave a thread or a client behind."""
    made: list[GcPause] = []

    def make(url: str, *, per_collection: bool = True, mode: str = GC_AUTO, **options: Any) -> GcPause:
        given = {"renew_seconds": 60.0, "request_seconds": 60.0, "patience": Patience(), "clock": clock, **options}
        made.append(GcPause(url, per_collection=per_collection, mode=mode, reporter=Reporter(log), **given))
        return made[-1]

    yield make
    assert [pause for pause in made if "_client" in pause.__dict__] == []
    assert [thread.name for thread in threading.enumerate() if thread.name == "gc-pause"] == []
