"""The door's port for management: pausing garbage collection, by tickets from 2.6.8 on. Nothing is paused."""

from __future__ import annotations

import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from demo.servers import LOOPBACK

PATH = "/management/datacoord/garbage_collection/"


class Management(ThreadingHTTPServer):
    """Answers ``pause`` and ``resume``, and keeps what it was asked.

    :param tickets: each pause has a ticket, and only that ends it
    """

    daemon_threads = True

    def __init__(self, *, tickets: bool) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        #: The tickets that were not given back; None when there are none.
        self.tickets: set[str] | None = set() if tickets else None
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
        tickets = self.server.tickets
        if action == "pause" and not parameters.get("pause_seconds", "").isdecimal():
            self._send(500, '{"msg": "failed to pause garbage collection, pause duration not valid"}')
        elif tickets is None:
            self._send(200, '{"msg": "OK"}')
        elif action == "pause":
            tickets.add(ticket := uuid.uuid4().hex)
            self._send(200, f'{{"msg": "OK", "ticket": "{ticket}"}}')
        elif (ticket := parameters.get("ticket", "")) in tickets:
            tickets.remove(ticket)
            self._send(200, '{"msg": "OK"}')
        else:
            self._send(500, '{"msg": "failed to resume garbage collection, ticket not found"}')

    def _send(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the base class)
        pass
