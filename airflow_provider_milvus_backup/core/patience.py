"""How long to wait, and when to stop: one object for the kill flag, the deadline and whatever else ends a run early.

Every loop that waits goes through :meth:`Patience.pause`, so that a kill, a timeout and a lost lease reach it within half a second.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

from .errors import Cancelled, MilvusBackupError, WaitTimeout

_LOOK = 0.5


@dataclass(slots=True)
class Patience:
    """What may end a run before it is done.

    :param stop: set by a kill, from any thread
    :param timeout: seconds the run may take, counted from the start; None is as long as it needs
    """

    stop: threading.Event = field(default_factory=threading.Event)
    timeout: float | None = None
    #: Raised by whoever waits next; set by the thread that renews the lease.
    failure: MilvusBackupError | None = None
    #: Seconds since the epoch.
    deadline: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = None if self.timeout is None else time.time() + self.timeout

    def over(self) -> bool:
        """Return whether to stop."""
        return self.failure is not None or self.stop.is_set() or (self.deadline is not None and time.time() >= self.deadline)

    def check(self, doing: str) -> None:
        """Raise what ended the run, if anything did.

        :param doing: what is left unfinished, and how to go on with it
        :raises Cancelled: a kill
        :raises WaitTimeout: the deadline has passed
        """
        if self.failure is not None:
            raise self.failure
        if self.stop.is_set():
            raise Cancelled(f"stopped while {doing}")
        if self.deadline is not None and time.time() >= self.deadline:
            raise WaitTimeout(f"out of time while {doing}")

    def pause(self, seconds: float, doing: str) -> None:
        """Wait; raises as :meth:`check` as soon as there is a reason to."""
        until = time.monotonic() + seconds
        while True:
            self.check(doing)
            left = until - time.monotonic()
            if left <= 0:
                return
            if self.deadline is not None:
                left = min(left, max(0.01, self.deadline - time.time()))
            self.stop.wait(min(left, _LOOK))


def is_seconds(value: object) -> bool:
    """Return whether a value is a number above 0."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


class Backoff:
    """Pauses between attempts at the same request: jittered, doubling up to ten seconds, inside a budget.

    :param budget: seconds after which there is no further attempt
    :param patience: what ends the attempts early
    """

    def __init__(self, budget: float, patience: Patience, first: float = 0.2) -> None:
        self._until = time.monotonic() + budget
        self._patience = patience
        self._delay = first
        #: Attempts after the first.
        self.repeats = 0

    def again(self, doing: str) -> bool:
        """Wait before the next attempt; returns False, at once, when the budget would be used up by then."""
        delay = self._delay * random.uniform(0.5, 1)  # noqa: S311 (jitter)
        if time.monotonic() + delay > self._until:
            return False
        self._delay = min(10.0, self._delay * 2)
        self.repeats += 1
        self._patience.pause(delay, doing)
        return True
