"""What may go wrong between a client and a server, and when."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

ANY = "*"


class Fault(str, Enum):
    """What goes wrong with one request; each proxy says which of them it plays."""

    #: S3: 500 InternalError, not forwarded.
    ERROR = "error"
    #: S3: 503 SlowDown, not forwarded.
    THROTTLE = "throttle"
    #: S3: the connection is reset, nothing is forwarded.
    RESET = "reset"
    #: Both: it happens, but the client does not hear of it.
    LOST = "lost"
    #: S3: it happens, and half of the answer's body arrives.
    TRUNCATED = "truncated"
    #: Both: it happens at once, but the answer comes late.
    SLOW = "slow"
    #: S3: no answer for a long time and nothing is forwarded.
    HANG = "hang"
    #: gRPC: UNAVAILABLE, not forwarded.
    UNAVAILABLE = "unavailable"
    #: gRPC: RESOURCE_EXHAUSTED, not forwarded.
    EXHAUSTED = "exhausted"
    #: gRPC: Milvus's own answer to too many requests, not forwarded.
    RATE_LIMIT = "rate limit"


#: Called once for every request with its operation and its number among the requests of that operation, from 1.
Schedule = Callable[[str, int], "Fault | None"]


class _Recorded(ABC):
    """A schedule that keeps what it injected; several proxies and threads may share it."""

    def __init__(self) -> None:
        #: (operation, number, fault) in the order of the requests.
        self.injected: list[tuple[str, int, Fault]] = []
        self._lock = threading.Lock()

    def __call__(self, operation: str, number: int) -> Fault | None:
        with self._lock:
            fault = self._choose(operation, number)
            if fault is not None:
                self.injected.append((operation, number, fault))
            return fault

    @abstractmethod
    def _choose(self, operation: str, number: int) -> Fault | None: ...

    def _history(self) -> str:
        return ", ".join(f"{operation} {number}: {fault.name}" for operation, number, fault in self.injected) or "nothing"


class Script(_Recorded):
    """Exact faults by (operation, number); the operation ``*`` counts the requests of all operations together."""

    def __init__(self, faults: Mapping[tuple[str, int], Fault]) -> None:
        super().__init__()
        self.faults = dict(faults)
        self._total = 0

    def _choose(self, operation: str, number: int) -> Fault | None:
        self._total += 1
        return self.faults.get((operation, number)) or self.faults.get((ANY, self._total))

    def __str__(self) -> str:
        planned = ", ".join(f"({operation!r}, {number}): Fault.{fault.name}" for (operation, number), fault in self.faults.items())
        return f"Script({{{planned}}}) injected {self._history()}"


class Random(_Recorded):
    """Random faults, at most ``limit`` in all: each operation has only those listed for it, ``*`` lists those of all others.

    Each operation draws from a stream of its own, so that how parallel requests of different operations happen to interleave changes
    nothing but where ``limit`` falls.
    """

    def __init__(self, seed: int, rate: float, faults: Mapping[str, Sequence[Fault]], limit: int) -> None:
        super().__init__()
        self.seed, self.rate, self.limit = seed, rate, limit
        self.faults = {operation: list(listed) for operation, listed in faults.items()}
        self._streams: dict[str, random.Random] = {}
        self._requests: defaultdict[str, int] = defaultdict(int)

    def _choose(self, operation: str, number: int) -> Fault | None:
        listed = self.faults.get(operation, self.faults.get(ANY, []))
        self._requests[operation] += 1
        stream = self._streams.setdefault(operation, random.Random(f"{self.seed} {operation}"))
        drawn = stream.random()  # even past the limit: a smaller limit only cuts the sequence off
        if not listed or drawn >= self.rate:
            return None
        fault = stream.choice(listed)
        return fault if len(self.injected) < self.limit else None

    def __str__(self) -> str:
        listed = {operation: [fault.name for fault in faults] for operation, faults in self.faults.items()}
        seen = sum(self._requests.values())
        arguments = f"seed={self.seed}, rate={self.rate}, faults={listed}, limit={self.limit}"
        return f"Random({arguments}) injected {self._history()} into {seen} requests"
