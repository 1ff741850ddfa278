"""At most so many bytes a second: pure arithmetic over a clock that is given to it."""

from __future__ import annotations

import math
import re

from .errors import ConfigError

_UNITS = {"": 1, "b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmg]?i?b|)(?:/s)?", re.IGNORECASE)


def rate_of(given: float | str | None) -> float | None:
    """Return bytes a second: a number, or a text such as ``50MiB``, ``1.5 GB/s`` or ``1000000``; None for as many as come.

    :raises ConfigError: it is not more than none
    """
    value: object = given
    if isinstance(given, str) and (found := _WRITTEN.fullmatch(given.strip())):
        value = float(found[1]) * _UNITS.get(found[2].lower(), math.nan)
    if given is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf):
        raise ConfigError(
            f"max_bytes_per_second {given!r} is neither a number above 0 nor a text such as '50MiB'; leave it out to read at full speed"
        )
    return None if given is None else float(value)  # type: ignore[arg-type]


class Pace:
    """A rate that many streams share. Each takes what it is about to read, and waits for as long as it is told.

    After a pause a burst of at most one second's bytes goes at once.

    :param rate: as :func:`rate_of` takes it
    :raises ConfigError: it means nothing
    """

    def __init__(self, rate: float | str | None) -> None:
        self.rate = rate_of(rate)
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
