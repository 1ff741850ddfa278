"""Each fault of the S3 proxy does what it says, in front of an HTTP server that only remembers."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.breaking.faults import Fault, Script
from tests.breaking.faulty_s3 import FaultyS3, Message, faulty_s3, operation_of

BODY = b"0123456789" * 10


class Upstream(BaseHTTPRequestHandler):
    """Keeps every request; ``/b/chunked`` and ``/b/unframed`` are answered in those ways."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        body = self._chunks() if "Transfer-Encoding" in self.headers else self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked_at = time.monotonic()  # type: ignore[attr-defined]
        self.server.seen.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        if self.command == "DELETE":
            self.send_response(204)
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/b/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            content = b"%x\r\n%s\r\n%x;ext=1\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (60, BODY[:60], 40, BODY[60:])
        else:
            if self.path != "/b/unframed":
                self.send_header("Content-Length", str(len(BODY)))
            content = BODY
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = self.path == "/b/unframed"

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 (the base class's)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """The upstream and what it has seen."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Upstream)
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.asked_at = 0.0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def upstream() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def connect(proxy: FaultyS3) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(urlsplit(proxy.endpoint_url).netloc, timeout=60))


def ask(connection: http.client.HTTPConnection, method: str = "GET", path: str = "/b/k", body: Any = None, **headers: str) -> bytes:
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse().read()


def fail(connection: http.client.HTTPConnection) -> None:
    with pytest.raises(ConnectionError):
        ask(connection)


def test_one_connection_serves_every_kind_of_request_unchanged(upstream: Server) -> None:
    with faulty_s3(upstream.url, Script({})) as proxy, connect(proxy) as connection:
        assert ask(connection, Host="signed.example") == BODY
        assert upstream.seen[-1][2]["Host"] == "signed.example"
        own = connection.sock
        assert ask(connection, "PUT", "/b/k?x=%2F", b"content") == BODY
        assert upstream.seen[-1][:2] + upstream.seen[-1][3:] == ("PUT", "/b/k?x=%2F", b"content")
        assert ask(connection, "PUT", "/b/k", iter([b"con", b"tent"])) == BODY  # chunked
        assert upstream.seen[-1][3] == b"content"
        assert ask(connection, "HEAD") == b""
        assert ask(connection, "DELETE") == b""
        assert ask(connection, "GET", "/b/chunked") == BODY
        assert connection.sock is own
        assert ask(connection, "GET", "/b/unframed") == BODY  # ends with the connection
        assert ask(connection) == BODY
        assert proxy.requests == {"get": 4, "put": 2, "head": 1, "delete": 1}


def test_a_fault_may_depend_on_the_path_and_the_schedule_comes_first(upstream: Server) -> None:
    asked = []

    def by_path(operation: str, path: str) -> Fault | None:
        asked.append((operation, path))
        return Fault.THROTTLE if path == "/b/l" else None

    with faulty_s3(upstream.url, Script({("get", 1): Fault.ERROR})) as proxy, connect(proxy) as connection:
        proxy.by_path = by_path
        answers = [ask(connection, path=path) for path in ("/b/l", "/b/k", "/b/l")]
    assert [next((code for code in (b"InternalError", b"SlowDown") if code in answer), BODY) for answer in answers] == [
        b"InternalError",
        BODY,
        b"SlowDown",
    ]
    assert asked == [("get", "/b/k"), ("get", "/b/l")]
    assert [request[1] for request in upstream.seen] == ["/b/k"]


def test_a_client_that_expects_100_continue_gets_it_before_it_sends_its_body(upstream: Server) -> None:
    with faulty_s3(upstream.url, Script({})) as proxy, connect(proxy) as connection:
        connection.connect()
        stream = connection.sock.makefile("rwb")
        stream.write(b"PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
        stream.flush()
        assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
        stream.readline()
        stream.write(b"content")
        stream.flush()
        assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
        stream.close()
    assert upstream.seen[-1][3] == b"content"


@pytest.mark.parametrize(
    ("operation", "method", "target", "headers"),
    [
        ("list", "GET", "/b?list-type=2&prefix=x%2F", ""),
        ("list", "GET", "/b/?prefix=x", ""),
        ("list", "GET", "/b", ""),
        ("other", "GET", "/", ""),
        ("other", "GET", "/b?location", ""),
        ("other", "PUT", "/b", ""),
        ("get", "GET", "/b/k/1", "Range: bytes=0-3"),
        ("head", "HEAD", "/b/k", ""),
        ("put", "PUT", "/b/k", ""),
        ("put-if", "PUT", "/b/k", "If-None-Match: *"),
        ("put-if", "PUT", "/b/k", "if-match: etag"),
        ("copy", "PUT", "/b/k", "X-Amz-Copy-Source: b/other"),
        ("delete", "DELETE", "/b/k", ""),
        ("delete", "POST", "/b?delete", ""),
        ("multipart", "POST", "/b/k?uploads", ""),
        ("multipart", "PUT", "/b/k?partNumber=1&uploadId=u", "x-amz-copy-source: b/other"),
        ("multipart", "POST", "/b/k?uploadId=u", ""),
        ("multipart", "DELETE", "/b/k?uploadId=u", ""),
    ],
)
def test_each_request_is_recognised(operation: str, method: str, target: str, headers: str) -> None:
    assert operation_of(Message(f"{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n".encode())) == operation


@pytest.mark.parametrize(("fault", "status", "code"), [(Fault.ERROR, 500, b"InternalError"), (Fault.THROTTLE, 503, b"SlowDown")])
def test_a_refusal_is_s3s_own_and_is_not_forwarded(upstream: Server, fault: Fault, status: int, code: bytes) -> None:
    schedule = Script({("put", 1): fault, ("head", 1): fault})
    with faulty_s3(upstream.url, schedule) as proxy, connect(proxy) as connection:
        connection.request("PUT", "/b/k", b"content")
        answer = connection.getresponse()
        assert answer.status == status
        assert code in answer.read()
        assert ask(connection, "HEAD") == b""
        assert upstream.seen == []
        assert ask(connection, "PUT", body=b"content") == BODY
    assert schedule.injected == [("put", 1, fault), ("head", 1, fault)]


def test_reset_forwards_nothing(upstream: Server) -> None:
    with faulty_s3(upstream.url, Script({("put", 1): Fault.RESET})) as proxy, connect(proxy) as connection:
        connection.request("PUT", "/b/k", b"content")
        with pytest.raises(ConnectionResetError) as caught:
            connection.getresponse()
        assert not isinstance(caught.value, http.client.RemoteDisconnected)
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("fault", "method"), [(Fault.LOST, "PUT"), (Fault.LOST, "GET"), (Fault.TRUNCATED, "HEAD"), (Fault.TRUNCATED, "DELETE")]
)
def test_a_lost_request_happens_and_nobody_hears_of_it(upstream: Server, fault: Fault, method: str) -> None:
    with faulty_s3(upstream.url, Script({("*", 1): fault})) as proxy, connect(proxy) as connection:
        connection.request(method, "/b/k", b"content" if method == "PUT" else None)
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        assert [seen[0] for seen in upstream.seen] == [method]


@pytest.mark.parametrize("path", ["/b/k", "/b/chunked"])
def test_truncated_ends_in_the_middle_of_the_body(upstream: Server, path: str) -> None:
    with faulty_s3(upstream.url, Script({("get", 1): Fault.TRUNCATED})) as proxy, connect(proxy) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_slow_delays_the_answer_and_not_the_request(upstream: Server) -> None:
    with faulty_s3(upstream.url, Script({("get", 1): Fault.SLOW})) as proxy, connect(proxy) as connection:
        proxy.slow_seconds = 0.2
        assert ask(connection) == BODY
        assert time.monotonic() - upstream.asked_at >= 0.2


def test_hang_answers_nothing_until_its_time_is_over_and_holds_up_nobody_else(upstream: Server) -> None:
    schedule = Script({("get", 1): Fault.HANG})
    with faulty_s3(upstream.url, schedule) as proxy, connect(proxy) as hanging, connect(proxy) as other:
        proxy.hang_seconds = 0.3
        begin = time.monotonic()
        hanging.request("GET", "/b/k")
        wait_for(lambda: schedule.injected)
        assert ask(other) == BODY
        with pytest.raises(http.client.RemoteDisconnected):
            hanging.getresponse()
        assert time.monotonic() - begin >= 0.3
    assert len(upstream.seen) == 1


def test_the_end_of_the_proxy_ends_what_hangs(upstream: Server) -> None:
    schedule = Script({("get", 1): Fault.HANG})
    with faulty_s3(upstream.url, schedule) as proxy:
        hanging = http.client.HTTPConnection(urlsplit(proxy.endpoint_url).netloc, timeout=60)
        hanging.request("GET", "/b/k")
        wait_for(lambda: schedule.injected)
    with closing(hanging), pytest.raises(ConnectionError):
        hanging.getresponse()


def test_while_it_is_down_every_connection_is_closed_at_once_and_afterwards_all_is_well(upstream: Server) -> None:
    schedule = Script({("get", 2): Fault.HANG})
    with faulty_s3(upstream.url, schedule) as proxy, connect(proxy) as idle, connect(proxy) as pending, connect(proxy) as new:
        ask(idle)
        pending.request("GET", "/b/k")
        wait_for(lambda: schedule.injected)
        proxy.down = True
        with pytest.raises(ConnectionError):
            pending.getresponse()
        assert idle.sock.recv(1) == b""
        with pytest.raises(ConnectionError):
            ask(new)
        assert proxy.requests["get"] == 2
        proxy.down = False
        new.close()
        assert ask(new) == BODY


def test_the_hook_may_block_and_start_an_outage_at_an_exact_moment(upstream: Server) -> None:
    with faulty_s3(upstream.url, Script({})) as proxy, connect(proxy) as connection:
        called: list[tuple[str, str]] = []

        def strike(operation: str, path: str) -> None:
            called.append((operation, path))
            if len(called) == 2:
                time.sleep(0.05)
                proxy.down = True
                proxy.down = False  # the shortest outage costs the request all the same

        proxy.before = strike
        ask(connection, "GET", "/b/a%20key?versionId=1")
        with pytest.raises(ConnectionError):
            ask(connection, "PUT", "/b/k", b"content")
        assert called == [("get", "/b/a key"), ("put", "/b/k")]
    assert [seen[0] for seen in upstream.seen] == ["GET"]


def test_a_hook_that_blocks_holds_up_nobody_else(upstream: Server) -> None:
    go = threading.Event()

    def hold(operation: str, _: str) -> None:
        if operation == "put":
            assert go.wait(60)

    with ThreadPoolExecutor(1) as threads, faulty_s3(upstream.url, Script({})) as proxy, connect(proxy) as held, connect(proxy) as other:
        proxy.before = hold
        answer = threads.submit(ask, held, "PUT", "/b/k", b"content")
        wait_for(lambda: proxy.requests["put"] == 1)
        assert ask(other) == BODY
        assert [seen[0] for seen in upstream.seen] == ["GET"]
        go.set()
        assert answer.result() == BODY


@pytest.mark.parametrize("fault", [Fault.RATE_LIMIT, Fault.EXHAUSTED])
def test_a_fault_that_cannot_be_played_fails_the_test(upstream: Server, fault: Fault) -> None:
    with pytest.raises(ValueError, match="no fault of S3"):  # noqa: SIM117 (raised by the proxy's end)
        with faulty_s3(upstream.url, Script({("get", 1): fault})) as proxy, connect(proxy) as connection:
            fail(connection)


def test_a_server_that_is_gone_closes_the_connection_and_fails_no_test() -> None:
    with Server() as gone:
        url = gone.url
    with faulty_s3(url, Script({})) as proxy, connect(proxy) as connection, pytest.raises(ConnectionError):
        ask(connection)


def test_its_end_leaves_no_thread_behind(upstream: Server) -> None:
    with faulty_s3(upstream.url, Script({})) as proxy, connect(proxy) as connection:
        proxy.before = lambda _operation, _path: None
        ask(connection)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("faulty-s3")] == []


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
