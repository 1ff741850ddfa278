"""Binlogs for the tests of what reads them: real ones, and a writer of every form of their frame that some Milvus has written."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.contract.binlogs import Column, column_group

BINLOGS = Path(__file__).parent / "binlogs"
MAGIC = (0xFFFABC).to_bytes(4, "little")
DESCRIPTOR, INSERT, DELETE = 0, 1, 2
HEADER = struct.Struct("<QbiI")
EVENT_LENGTHS = bytes((52, 16, 16, 16, 16, 16, 16, 16))
#: The position of the next event where the file was written in a stream.
STREAMED = 0xFFFFFFFF

INSERT_KEY = "b/n/binlogs/insert_log/1/2/3/3/101/9"
DELTA_KEY = "b/n/binlogs/delta_log/1/2/3/3/9"
L0_KEY = "b/n/binlogs/delta_log/1/-1/3/9"


class Real(NamedTuple):
    """One real log: its key below ``binlogs/``, its field (-1 of a delta log), its segment, its content."""

    key: str
    field: int
    segment: int
    content: bytes


@cache
def real() -> list[Real]:
    """Return all real logs, in the order of their keys."""
    found = []
    for path in sorted(path for path in BINLOGS.rglob("*") if path.is_file() and path.suffix != ".md"):
        parts = path.relative_to(BINLOGS).parts
        found.append(Real("/".join(parts), int(parts[5]) if parts[0] == "insert_log" else -1, int(parts[4]), path.read_bytes()))
    return found


def parquet(rows: int = 3) -> bytes:
    """Return a Parquet file."""
    return column_group([Column(101, 5, "", list(range(rows)))])


class Frame(NamedTuple):
    """A binlog by the parts of its frame; what is not given is as a flush of 2.3.5 writes it."""

    kind: int = INSERT
    ids: tuple[int, int, int, int] = (1, 2, 3, 101)
    extras: Any = {"original_size": "24"}  # noqa: RUF012 - never changed
    times: tuple[int, int] = (7, 8)
    payloads: tuple[bytes, ...] = (parquet(),)
    event_lengths: bytes = EVENT_LENGTHS
    #: Added to the position of the next event, or :data:`STREAMED`.
    next_off: int = 0
    descriptor_next_off: int = 0
    descriptor_kind: int = DESCRIPTOR
    tail: bytes = b""

    def content(self) -> bytes:
        """Return the file."""
        extras = self.extras if isinstance(self.extras, bytes) else json.dumps(self.extras).encode()
        fixed = struct.pack("<qqqqQQi", *self.ids, *self.times, 5)
        head = fixed + self.event_lengths + struct.pack("<i", len(extras)) + extras
        out = MAGIC + self._event(4, self.descriptor_kind, head, self.descriptor_next_off)
        for payload in self.payloads:
            out += self._event(len(out), self.kind, struct.pack("<QQ", *self.times) + payload, self.next_off)
        return out + self.tail

    @staticmethod
    def _event(at: int, kind: int, body: bytes, off: int) -> bytes:
        length = HEADER.size + len(body)
        return HEADER.pack(0, kind, length, STREAMED if off == STREAMED else at + length + off) + body
