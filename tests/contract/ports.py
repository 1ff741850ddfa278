"""Ports of loopback, and one that gRPC and REST share, as they do on a real proxy (``internal/distributed/proxy/listener_manager.go``)."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

LOOPBACK = "127.0.0.1"
_BACKLOG = 1024
_HTTP2 = b"PRI * HTTP/2"
_TLS = b"\x16\x03"
#: The name of HTTP/2 in the list of protocols of a TLS ClientHello.
_ALPN_H2 = b"\x02h2"
_FIRST_BYTES_SECONDS = 60.0

Serve = Callable[[socket.socket], None]


class Port:
    """A listening socket, with one thread per connection; :func:`port` makes and ends it."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._listener = socket.create_server((LOOPBACK, 0), backlog=_BACKLOG)
        self.number: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._ended = False
        self._acceptor = threading.Thread(target=self._accept, name="contract-port", daemon=True)
        self._acceptor.start()

    def keep(self, connection: socket.socket) -> bool:
        """Have a socket shut down when the port ends; return False when it has ended already."""
        with self._lock:
            if not self._ended:
                self._open.add(connection)
            return not self._ended

    def let_go(self, connection: socket.socket) -> None:
        """Close a socket."""
        with self._lock:
            self._open.discard(connection)
        connection.close()

    def spawn(self, target: Callable[..., None], *args: Any) -> threading.Thread:
        """Start a thread that the end of the port waits for."""
        thread = threading.Thread(target=target, args=args, name="contract-connection", daemon=True)
        with self._lock:
            self._threads = {old for old in self._threads if old.is_alive()} | {thread}
            thread.start()
        return thread

    def disconnect(self) -> None:
        """End all connections that are open now, as a restarted proxy does."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening, end all connections, and wait for their threads."""
        with self._lock:
            self._ended = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self.disconnect()
        for thread in list(self._threads):
            thread.join(timeout=60)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self.keep(connection):
                    self.spawn(self._connected, connection)
                else:
                    connection.close()

    def _connected(self, connection: socket.socket) -> None:
        try:
            with suppress(OSError):
                self._serve(connection)
        finally:
            self.let_go(connection)


@contextmanager
def port(make: Callable[[Callable[[], Port]], Serve]) -> Iterator[Port]:
    """Serve connections until the block ends.

    :param make: given a function that returns the port, returns what serves one connection until it ends
    """
    holder: list[Port] = []
    opened = Port(make(lambda: holder[0]))
    holder.append(opened)
    try:
        yield opened
    finally:
        opened.close()


def http_only(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Callable[[Callable[[], Port]], Serve]:
    """Return what serves HTTP/1.1, over TLS when there is a context."""

    def make(opened: Callable[[], Port]) -> Serve:
        def serve(connection: socket.socket) -> None:
            if context is None:
                handler(connection, connection.getpeername(), opened())  # type: ignore[arg-type]
                return
            with context.wrap_socket(connection, server_side=True) as secure:
                if opened().keep(secure):
                    try:
                        handler(secure, secure.getpeername(), opened())  # type: ignore[arg-type]
                    finally:
                        opened().let_go(secure)

        return serve

    return make


def shared(
    handler: type[BaseHTTPRequestHandler], grpc_port: int, context: ssl.SSLContext | None = None
) -> Callable[[Callable[[], Port]], Serve]:
    """Return what hands HTTP/2 on to a gRPC server, byte by byte, and serves everything else as HTTP/1.1."""
    http = http_only(handler, context)

    def make(opened: Callable[[], Port]) -> Serve:
        serve_http = http(opened)

        def serve(connection: socket.socket) -> None:
            if not _wants_http2(connection):
                serve_http(connection)
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with socket.create_connection((LOOPBACK, grpc_port)) as far:
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not opened().keep(far):
                    return
                try:
                    back = opened().spawn(_pump, far, connection)
                    _pump(connection, far)
                    back.join()
                finally:
                    opened().let_go(far)

        return serve

    return make


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            sink.sendall(chunk)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _wants_http2(connection: socket.socket) -> bool:
    """Look at the first bytes, without taking them: HTTP/2's preface, or a TLS ClientHello that offers HTTP/2."""
    until = time.monotonic() + _FIRST_BYTES_SECONDS
    while True:
        connection.settimeout(max(0.001, until - time.monotonic()))
        seen = connection.recv(1 << 14, socket.MSG_PEEK)
        connection.settimeout(None)
        if seen[:2] == _TLS and len(seen) >= 5:
            enough = 5 + int.from_bytes(seen[3:5], "big")
            if len(seen) >= enough:
                return _ALPN_H2 in seen[:enough]
        elif not seen or not _HTTP2.startswith(seen[: len(_HTTP2)]) or len(seen) >= len(_HTTP2):
            return seen.startswith(_HTTP2)
        if time.monotonic() >= until:
            return False
        time.sleep(0.001)
