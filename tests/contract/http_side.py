"""HTTP/1.1 with keep-alive on connections that somebody else accepted."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .gc import ROUTE, GarbageCollector
from .rest_api import Answer, RestApi

_POSTS_DISMISSED = Answer(404, None)
Get = Callable[[str, Mapping[str, str]], Answer]
Post = Callable[[str, Mapping[str, str], bytes], Answer]


def rest(api: RestApi) -> type[BaseHTTPRequestHandler]:
    """Return the handler of the proxy's port."""
    return _handler(lambda path, params: Answer(404, None), api.answer)


def management(gc: GarbageCollector) -> type[BaseHTTPRequestHandler]:
    """Return the handler of the management port: no login in any version."""

    def get(path: str, params: Mapping[str, str]) -> Answer:
        if path == "/healthz":
            return Answer(200, {"state": "OK"})
        return Answer(*gc.answer(path.removeprefix(ROUTE), params)) if path.startswith(ROUTE) else Answer(404, None)

    return _handler(get, lambda path, headers, body: _POSTS_DISMISSED)


def _handler(get: Get, post: Post) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body go out together; else each answer waits for the client's delayed ACK.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            self._send(get(url.path, dict(parse_qsl(url.query))))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {key.lower(): value.encode("latin-1").decode(errors="replace") for key, value in self.headers.items()}
            try:
                self._send(post(self.path, headers, body))
            except ConnectionResetError:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send(self, answer: Answer) -> None:
            plain = answer.document is None
            content = b"404 page not found" if plain else json.dumps(answer.document).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/plain" if plain else "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
            """Say nothing."""

    return Handler
