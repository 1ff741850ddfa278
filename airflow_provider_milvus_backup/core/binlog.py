"""Just enough of Milvus's binlog format to count the entries of a delta log.

A file is a magic number, a descriptor event and one or more data events (``internal/storage/binlog_writer.go``, ``event_header.go`` of
``milvus-io/milvus``); each data event ends in a Parquet file whose footer says how many rows it has.
"""

from __future__ import annotations

import struct

from .errors import BackupDamaged

MAGIC = 0xFFFABC
_HEADER = struct.Struct("<QbiI")  # timestamp, type code, length of the event, position of the next event
_PARQUET_END = b"PAR1"
#: Thrift types of a fixed number of bytes; true and false are part of the field's header.
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}
#: Parquet's own footers are four levels deep.
_DEEPEST = 20


def count_rows(content: bytes, key: str) -> int:
    """Return the number of entries in a delta log; raises BackupDamaged when it cannot be read."""
    try:
        if int.from_bytes(content[:4], "little") != MAGIC:
            raise ValueError("the magic number is missing")
        rows, position, first = 0, 4, True
        while position < len(content):
            _, _, length, _ = _HEADER.unpack_from(content, position)
            if length <= 0 or position + length > len(content):
                raise ValueError(f"an event at byte {position:,} goes beyond the end")
            if not first:
                rows += _parquet_rows(content[position : position + length])
            first = False
            position += length
    except (ValueError, struct.error, IndexError) as error:
        raise BackupDamaged(f"delta log {key!r} ({len(content):,} bytes) is not readable: {error}") from None
    return rows


def _parquet_rows(event: bytes) -> int:
    if event[-4:] != _PARQUET_END:
        raise ValueError("an event does not end in Parquet")
    (length,) = struct.unpack_from("<I", event, len(event) - 8)
    if length > len(event) - 8:
        raise ValueError(f"a Parquet footer of {length:,} bytes is longer than its event")
    return _num_rows(event[len(event) - 8 - length : -8])


def _num_rows(footer: bytes) -> int:
    """Return field 3, num_rows, of Parquet's FileMetaData in Thrift's compact protocol."""
    reader = _Compact(footer)
    field = 0
    while True:
        delta, kind = reader.field()
        if kind == 0:
            raise ValueError("the Parquet footer has no row count")
        field = field + delta if delta else reader.zigzag()
        if field == 3:
            rows = reader.zigzag()
            if not 0 <= rows < 2**63:
                raise ValueError(f"{rows} is not a row count")
            return rows
        reader.skip(kind)


class _Compact:
    """A reader of Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        value = self.data[self.at]
        self.at += 1
        return value

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number in the Parquet footer has more than 64 bits")

    def zigzag(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def field(self) -> tuple[int, int]:
        byte = self.byte()
        return byte >> 4, byte & 15

    def pass_over(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise ValueError(f"a value of {count:,} bytes goes beyond the end of the Parquet footer")
        self.at += count

    def skip(self, kind: int, depth: int = 0) -> None:
        if depth > _DEEPEST:
            raise ValueError(f"the Parquet footer is nested more than {_DEEPEST} levels deep")
        if kind in _FIXED:
            self.pass_over(_FIXED[kind])
        elif kind in (4, 5, 6):
            self.varint()
        elif kind == 8:
            self.pass_over(self.varint())
        elif kind in (9, 10):
            byte = self.byte()
            count = byte >> 4 if byte >> 4 < 15 else self.varint()
            for _ in range(count):
                self.skip(3 if byte & 15 in (1, 2) else byte & 15, depth + 1)  # in a list, true and false are a byte each
        elif kind == 12:
            while True:
                delta, inner = self.field()
                if inner == 0:
                    return
                if not delta:
                    self.zigzag()
                self.skip(inner, depth + 1)
        else:
            raise ValueError(f"unknown Thrift type {kind}")
