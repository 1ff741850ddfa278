"""The door's REST v2: what is asked, who asks, and what the answer looks like (``handler_v2.go``, ``request_v2.go`` of 2.5)."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.door import segments
from tests.door.jobs import CreateRequest, Jobs, Release
from tests.door.refused import FORMAT, MISSING, Refused
from tests.door.upstream import Caller, Upstream

PREFIX = "/v2/vectordb/"
Body = dict[str, Any]

#: Fields of a request: its name, what Go calls its type, whether its absence is an error.
Fields = dict[str, tuple[str, bool]]
CREATE: Fields = {
    "dbName": ("string", False),
    "collectionName": ("string", True),
    "partitionName": ("string", False),
    "files": ("[][]string", True),
    "options": ("map[string]string", False),
}
LIST: Fields = {"dbName": ("string", False), "collectionName": ("string", False)}
JOB: Fields = {"jobId": ("string", True)}
SEGMENTS: Fields = {"dbName": ("string", False), "collectionID": ("int64", False), "segmentIDs": ("[]int64", False)}


class RestSide(ThreadingHTTPServer):
    """Serves the connections that the mux hands it; it has no port of its own.

    :param requests: counts the requests by their path below ``/v2/vectordb/``
    """

    daemon_threads = True

    def __init__(self, upstream: Upstream, jobs: Jobs, release: Release, requests: Counter[str]) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.upstream, self.jobs, self.requests = upstream, jobs, requests
        #: The bodies of all requests for a job, in their order.
        self.created: list[Body] = []
        #: What went wrong in the door itself.
        self.errors: list[Exception] = []
        self.lock = threading.Lock()
        self.routes: dict[str, tuple[Fields, Callable[[Caller, Body], Body]]] = {
            "jobs/import/create": (CREATE, self._create),
            "jobs/import/list": (LIST, lambda caller, body: jobs.list(caller, body["collectionName"])),
            "jobs/import/get_progress": (JOB, lambda caller, body: jobs.describe(caller, body["jobId"])),
        }
        if release >= (2, 4, 13):
            self.routes["jobs/import/describe"] = self.routes["jobs/import/get_progress"]
        if release >= (2, 5, 8):
            self.routes["segments/describe"] = (SEGMENTS, self._segments)

    def serve(self, connection: socket.socket, address: Any) -> None:
        """Answer all requests of one connection."""
        self.finish_request(connection, address)

    def answer(self, path: str, content: bytes, authorization: str, database: str) -> tuple[int, Body | None]:
        """Return status and body of the answer to one request; None where there is no such path."""
        with self.lock:
            self.requests[path] += 1
        if path not in self.routes:
            return 404, None
        fields, act = self.routes[path]
        try:
            self.upstream.caller(authorization, "default")
            body = bind(content, fields)
            caller = self.upstream.caller(authorization, body.get("dbName") or database or "default")
            return 200, {"code": 0, "data": act(caller, body)}
        except Refused as refused:
            return refused.status, refused.body()
        except Exception as error:  # noqa: BLE001 (raised again in the test's thread)
            self.errors.append(error)
            return 500, {"code": 65535, "message": f"the door failed: {error!r}"}

    def _create(self, caller: Caller, body: Body) -> Body:
        with self.lock:
            self.created.append(body)
        request = CreateRequest(body["collectionName"], body["partitionName"], body["files"], body["options"])
        return self.jobs.create(caller, request)

    def _segments(self, caller: Caller, body: Body) -> Body:
        return segments.describe(self.upstream, caller, body["collectionID"], body["segmentIDs"])


class _Handler(BaseHTTPRequestHandler):
    server: RestSide
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # or headers and body would leave as two packets, and the second wait for an acknowledgement

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.removeprefix(PREFIX) if self.path.startswith(PREFIX) else self.path
        headers = self.headers
        status, body = self.server.answer(path, content, headers.get("Authorization", ""), headers.get("DB-Name", ""))
        self._send(status, json.dumps(body) if body is not None else "404 page not found")

    def do_GET(self) -> None:
        self._send(404, "404 page not found")

    def _send(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8" if text.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the base class)
        pass


def bind(content: bytes, fields: Fields) -> Body:
    """Read a body as Go does: names in any case, unknown ones ignored, absent ones empty, and no value of another type.

    :raises Refused: it is no such body
    """
    wrong = "can only accept json format request"
    if not content:
        raise Refused(FORMAT, f"{wrong}, the request body should be nil, however {{}} is valid")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise Refused(FORMAT, f"{wrong}, error: {error}") from None
    if not isinstance(document, dict):
        raise Refused(FORMAT, f"{wrong}, error: json: cannot unmarshal {_kind(document)} into Go value")
    known = {name.lower(): name for name in fields}
    given = {known[name.lower()]: value for name, value in document.items() if name.lower() in known and value is not None}
    body: Body = {}
    for name, (kind, required) in fields.items():
        value = given.get(name, _EMPTY[kind])
        if misfit := _misfit(value, kind):
            raise Refused(FORMAT, f"{wrong}, error: json: cannot unmarshal {misfit} into Go struct field .{name} of type {kind}")
        if required and (name not in given or value == ""):
            field = name[0].upper() + name[1:]
            raise Refused(MISSING, f"missing required parameters, error: Field validation for '{field}' failed on the 'required' tag")
        body[name] = value
    return body


_EMPTY: dict[str, Any] = {"string": "", "int64": 0, "[]int64": [], "[][]string": [], "map[string]string": {}}


def _misfit(value: Any, kind: str) -> str:
    """Return what JSON calls the first part of a value that does not fit Go's type, empty when all do."""
    if kind.startswith("[]"):
        return next(filter(None, (_misfit(item, kind[2:]) for item in value)), "") if isinstance(value, list) else _kind(value)
    if kind.startswith("map"):
        return next(filter(None, (_misfit(item, "string") for item in value.values())), "") if isinstance(value, dict) else _kind(value)
    fits = isinstance(value, str) if kind == "string" else isinstance(value, int) and not isinstance(value, bool)
    return "" if fits else _kind(value)


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
