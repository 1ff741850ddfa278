"""Which part of a backup a verification reads: pure functions.

A part is made of whole segments, so that their rows can be counted, chosen by a hash of what they are called. So the parts of a rota do not
depend on the order of anything, are disjoint, and together are everything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ConfigError

_ROTA = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")


@dataclass(frozen=True, slots=True)
class Sample:
    """A part of all segments.

    :param text: as it was asked for
    :param part: the number of the part of a rota, 0 for a percentage
    :param parts: how many parts the rota has
    :param share: the part that a percentage is, of 1
    :param salt: makes one percentage another one than the last
    """

    text: str
    part: int = 0
    parts: int = 0
    share: float = 0.0
    salt: str = ""

    @classmethod
    def parse(cls, text: str, salt: Callable[[], str]) -> Sample:
        """Return the sample that a text means: ``3/30`` is the third of thirty parts, ``5%`` is another twentieth every time.

        :param salt: what makes a percentage another one every time
        :raises ConfigError: it means nothing, or lies outside of its range
        """
        written = text.strip() if isinstance(text, str) else ""
        if found := _ROTA.fullmatch(written):
            part, parts = int(found[1]), int(found[2])
            if not 1 <= part <= parts:
                raise ConfigError(f"sample {text!r}: the first number is that of a part, from 1 to {parts or 'the number of parts'}")
            return cls(written, part, parts)
        if found := _PERCENT.fullmatch(written):
            share = float(found[1]) / 100
            if not 0 < share <= 1:
                raise ConfigError(f"sample {text!r} is not more than 0% and at most 100%")
            return cls(written, share=share, salt=salt())
        raise ConfigError(f"sample {text!r} is neither a part of a rota, as '3/30', nor a percentage, as '5%'")

    def holds(self, unit: str) -> bool:
        """Return whether the part holds a segment (or an object that belongs to none), by what it is called."""
        return _place(unit) % self.parts == self.part - 1 if self.parts else self.rank(unit) < self.share

    def rank(self, unit: str) -> float:
        """Return where between 0 and 1 a segment stands, for a percentage."""
        return _place(f"{self.salt}:{unit}") / 2**64


def unit_of(key: str) -> str:
    """Return what an object is sampled with, by its key below the backup's directory: a segment's objects belong together.

    Insert and delta logs lie in ``binlogs/<kind>/<collection>/<partition>/…``, and the segment's id is above what differs in them.
    """
    parts = key.split("/")
    if len(parts) > 5 and parts[0] == "binlogs":
        return "/".join((parts[2], parts[3], parts[-3] if parts[1] == "insert_log" else parts[-2]))
    return key


def _place(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
