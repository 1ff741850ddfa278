"""The door's port for management: pausing garbage collection, for the whole cluster as before 2.6.8. Nothing is paused."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from demo.servers import LOOPBACK

PATH = "/management/datacoord/garbage_collection/"


class Management(ThreadingHTTPServer):
    """Answers ``pause`` and ``resume``, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        #: (``pause`` or ``resume``, its parameters), in their order.
        self.calls: list[tuple[str, dict[str, str]]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> None:
        """Answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Management

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        action, parameters = url.path.removeprefix(PATH), dict(parse_qsl(url.query))
        if not url.path.startswith(PATH) or action not in ("pause", "resume"):
            self._send(404, "404 page not found")
            return
        self.server.calls.append((action, parameters))
        if action == "pause" and not parameters.get("pause_seconds", "").isdecimal():
            self._send(500, '{"msg": "failed to pause garbage collection, pause duration not valid"}')
        else:
            self._send(200, '{"msg": "OK"}')

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the base class)
        pass
