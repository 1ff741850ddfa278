"""The frame of Milvus's binlogs of storage version 1.

A file is a magic number, a descriptor event, which says what the file holds, and one or more data events, each of which ends in a Parquet
file (``internal/storage/binlog_writer.go``, ``event_header.go``, ``event_data.go`` of ``milvus-io/milvus``; read as of 2.3 to 3.0).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from . import parquet
from .errors import BackupDamaged

MAGIC = 0xFFFABC
DESCRIPTOR, INSERT, DELETE = 0, 1, 2
_HEADER = struct.Struct("<QbiI")  # timestamp, type code, length of the event, position of the next event
#: Bytes of a data event before its Parquet file: the header, and two timestamps.
DATA = _HEADER.size + 16


class Event(NamedTuple):
    """One event: its type code, its first byte, the byte after its last one, and where its header says that the next one begins."""

    kind: int
    start: int
    end: int
    next: int

    @property
    def body(self) -> int:
        """The first byte after its header."""
        return self.start + _HEADER.size


def event_at(content: bytes, start: int) -> Event:
    """Return the event at a byte; raises ValueError when it is not whole."""
    if start + _HEADER.size > len(content):
        raise ValueError(f"the event at byte {start:,} goes beyond the end")
    _, kind, length, following = _HEADER.unpack_from(content, start)
    if length < _HEADER.size or start + length > len(content):
        raise ValueError(f"the event at byte {start:,} goes beyond the end: {length:,} bytes")
    return Event(kind, start, start + length, following)


def events(content: bytes) -> Iterator[Event]:
    """Iterate over the events, the descriptor first; raises ValueError when there is no magic number or an event is not whole."""
    if int.from_bytes(content[:4], "little") != MAGIC:
        raise ValueError("the magic number is missing")
    start = 4
    while start < len(content):
        event = event_at(content, start)
        yield event
        start = event.end


def count_rows(content: bytes, key: str) -> int:
    """Return the number of entries in a delta log, a binlog or a plain Parquet file; raises BackupDamaged when it cannot be read."""
    try:
        if content.startswith(parquet.MAGIC):
            return parquet.footer_rows(content, 0, len(content))
        return sum(parquet.footer_rows(content, event.body, event.end) for event in islice(events(content), 1, None))
    except ValueError as error:
        raise BackupDamaged(f"delta log {key!r} ({len(content):,} bytes) is not readable: {error}") from None
