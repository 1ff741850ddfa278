"""One listening port for gRPC and REST, as Milvus's proxy has it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from demo.servers import LOOPBACK

#: How a client of HTTP/2, and so of gRPC, begins.
PREFACE = b"PRI"


class Mux:
    """Hands each connection to gRPC or to REST, by its first three bytes.

    :param grpc_port: where gRPC listens on loopback; its connections are relayed
    :param rest: takes a connection and closes it
    """

    def __init__(self, grpc_port: int, rest: Callable[[socket.socket, Any], None]) -> None:
        self._grpc_port, self._rest = grpc_port, rest
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def start(self) -> None:
        """Accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            threads = list(self._threads)
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, address = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection, address), daemon=True)
                with self._lock:
                    self._threads.add(thread)
                    self._open.add(connection)
                thread.start()

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            with connection, suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                first = connection.recv(len(PREFACE), socket.MSG_PEEK | socket.MSG_WAITALL)
                if first == PREFACE:
                    self._relay(connection)
                elif first:
                    self._rest(connection, address)
        finally:
            with self._lock:
                self._open.discard(connection)
                self._threads.discard(threading.current_thread())

    def _relay(self, near: socket.socket) -> None:
        with socket.create_connection((LOOPBACK, self._grpc_port)) as far:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(far)
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            _pump(near, far)
            back.join()
            with self._lock:
                self._open.discard(far)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
