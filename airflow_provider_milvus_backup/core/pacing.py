"""At most so many bytes a second: pure arithmetic over a clock that is given to it."""

from __future__ import annotations

import math

from .errors import ConfigError


class Pace:
    """A rate that many streams share. Each takes what it is about to read, and waits for as long as it is told.

    After a pause a burst of at most one second's bytes goes at once.

    :param rate: bytes a second; None for as many as come
    :raises ConfigError: it is not a number above 0
    """

    def __init__(self, rate: float | None) -> None:
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf):
            raise ConfigError(f"max_bytes_per_second {rate!r} is not a number above 0; leave it out to read as fast as possible")
        self.rate = rate
        #: When everything that was taken so far has been paid for.
        self._paid = -math.inf

    def take(self, count: int, now: float) -> float:
        """Take so many bytes at a moment; returns the seconds to wait before they are read.

        :param now: seconds of a clock that never goes back
        """
        if self.rate is None:
            return 0.0
        start = max(self._paid, now - 1)
        self._paid = start + count / self.rate
        return max(0.0, self._paid - now)
