"""Pauses of the garbage collector, by the management port.

``internal/proxy/management.go`` and ``internal/datacoord/garbage_collector.go``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

ROUTE = "/management/datacoord/garbage_collection/"


class GarbageCollector:
    """Which pauses there are.

    :param tickets: whether a pause is for one collection and has a ticket
    """

    def __init__(self, *, tickets: bool, monotonic: Callable[[], float]) -> None:
        self.tickets, self._monotonic = tickets, monotonic
        #: Ends of pauses by (collection, 0 = all; ticket).
        self._until: dict[tuple[int, str], float] = {}
        #: Every pause and resume, with its parameters.
        self.history: list[tuple[str, dict[str, str]]] = []
        #: What every request is answered with instead, a status and a text: a port that is reached and refuses.
        self.broken: tuple[int, str] | None = None

    def paused(self, collection_id: int = 0) -> bool:
        """Return whether the files of a collection are safe now."""
        now = self._monotonic()
        return any(until > now and collection in (0, collection_id) for (collection, _), until in self._until.items())

    def answer(self, action: str, params: Mapping[str, str]) -> tuple[int, Any]:
        """Answer ``pause`` or ``resume``: an HTTP status and a JSON document, None for what is not there."""
        self.history.append((action, dict(params)))
        if self.broken:
            return self.broken[0], {"msg": self.broken[1]}
        if action == "pause":
            return self._pause(params)
        return self._resume(params) if action == "resume" else (404, None)

    def _pause(self, params: Mapping[str, str]) -> tuple[int, Any]:
        seconds = params.get("pause_seconds", "")
        if not seconds.lstrip("-").isdigit():
            return 500, {"msg": f'failed to pause garbage collection, pause duration not valid, strconv.ParseInt: parsing "{seconds}"'}
        until = self._monotonic() + int(seconds)
        if not self.tickets:
            # Whatever collection is named, the whole cluster is paused, and a later pause only extends.
            self._until[0, ""] = max(until, self._until.get((0, ""), 0.0))
            return 200, {"msg": "OK"}
        ticket = params.get("ticket") or uuid.uuid4().hex
        self._until[self._collection(params), ticket] = until
        return 200, {"msg": "OK", "ticket": ticket}

    def _resume(self, params: Mapping[str, str]) -> tuple[int, Any]:
        if not self.tickets:
            self._until.clear()  # the pauses of all others, too
            return 200, {"msg": "OK"}
        ticket = params.get("ticket", "")
        if ticket:
            self._until = {key: until for key, until in self._until.items() if key[1] != ticket}
        else:
            self._until = {key: until for key, until in self._until.items() if key[0] != self._collection(params)}
        return 200, {"msg": "OK"}

    @staticmethod
    def _collection(params: Mapping[str, str]) -> int:
        text = params.get("collection_id", "0")
        return max(0, int(text)) if text.lstrip("-").isdigit() else 0
