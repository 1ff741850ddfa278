"""Reading JSON that somebody else wrote: every access checks the type and names the place that is wrong."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from typing import Any

from .errors import BackupDamaged

MAX_INT64 = 2**63 - 1
MAX_UINT64 = 2**64 - 1
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Node:
    """One JSON object and where it stands. A missing key reads as the zero value, as in Go."""

    __slots__ = ("value", "where")

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise BackupDamaged(f"{where} is {_shown(value)}, not an object")
        self.value: dict[str, Any] = value
        self.where = where

    @classmethod
    def parse(cls, data: bytes, file: str) -> Node:
        """Return the root of a file; raises BackupDamaged when it is not JSON or not an object."""
        try:
            # Given bytes, json.loads would let half characters pass.
            value = json.loads(data.decode())
            if _SURROGATE.search(data):  # half a character can be read, but neither be sent nor written again
                json.dumps(value, ensure_ascii=False).encode()
            return cls(value, file)
        except (ValueError, RecursionError) as error:
            raise BackupDamaged(f"{file} is not readable JSON ({len(data)} bytes): {error}") from None

    def integer(self, key: str, low: int = 0, high: int = MAX_INT64) -> int:
        """Return an integer within ``low`` .. ``high``."""
        value = self.value.get(key)
        if value is None:
            return 0
        if type(value) is not int:
            raise self.wrong(key, "an integer")
        if not low <= value <= high:
            raise self.wrong(key, f"between {low} and {high}")
        return value

    def number(self, key: str) -> float:
        """Return a finite number that is not negative."""
        value = self.value.get(key)
        if value is None:
            return 0.0
        if type(value) not in (int, float) or not 0 <= value <= MAX_INT64:
            raise self.wrong(key, f"a number between 0 and {MAX_INT64}")
        return float(value)

    def string(self, key: str) -> str:
        """Return a string."""
        value = self.value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value

    def boolean(self, key: str) -> bool:
        """Return a boolean."""
        value = self.value.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def items(self, key: str, kind: type | None = None) -> list[Any]:
        """Return a list, all of whose items are of ``kind``."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or (kind and not all(type(item) is kind for item in value)):
            raise self.wrong(key, f"a list{f' of {kind.__name__}' if kind else ''}")
        return value

    def nodes(self, key: str) -> Iterator[Node]:
        """Iterate over a list of objects."""
        for index, item in enumerate(self.items(key)):
            yield Node(item, f"{self.where}.{key}[{index}]")

    def strings(self, key: str) -> dict[str, str]:
        """Return an object whose values are all strings."""
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise self.wrong(key, "an object with string values")
        return value

    def pairs(self, key: str) -> list[tuple[str, str]]:
        """Return a list of ``{"key": …, "value": …}`` objects as pairs."""
        return [(node.string("key"), node.string("value")) for node in self.nodes(key)]

    def wrong(self, key: str, expected: str) -> BackupDamaged:
        """Return the error for a value that is not what was expected."""
        return BackupDamaged(f"{self.where}.{key} is {_shown(self.value.get(key))}, not {expected}")


def _shown(value: Any) -> str:
    text = _REPR.repr(value)  # which stops after a few levels, where repr could exceed the recursion limit
    return text if len(text) <= 60 else f"{text[:57]}…"
