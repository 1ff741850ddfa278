"""What was asked of a server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the name of an RPC or the path of a REST request, and all it said."""

    name: str
    body: Any
    headers: Mapping[str, str]


class Recorder:
    """Counts and keeps requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: How many requests of each name came, whatever became of them.
        self.counts: Counter[str] = Counter()
        self.requests: list[Request] = []
        #: Called with each request before it is answered, on the thread that answers; it may block.
        #: A Refusal that it raises is the answer, a ConnectionResetError ends the connection.
        self.before: Callable[[Request], None] | None = None

    def note(self, name: str, body: Any, headers: Mapping[str, str]) -> None:
        """Keep a request."""
        request = Request(name, body, headers)
        with self._lock:
            self.counts[name] += 1
            self.requests.append(request)
        if self.before:
            self.before(request)

    def of(self, name: str) -> list[Any]:
        """Return the bodies of all requests of one name."""
        with self._lock:
            return [request.body for request in self.requests if request.name == name]
