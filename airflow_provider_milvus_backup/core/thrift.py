"""A reader of Thrift's compact protocol, in which Parquet writes its footers and page headers; nothing that is read is kept.

The protocol is that of ``doc/specs/thrift-compact-protocol.md`` of ``apache/thrift``.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Types that are written alike: integers of 16, 32 and 64 bits.
_INTEGERS = (4, 5, 6)
BINARY, LIST, SET, STRUCT = 8, 9, 10, 12
#: Types of a fixed number of bytes; true and false are part of the field's header.
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}
#: Parquet's own structures are four levels deep.
_DEEPEST = 20


class Compact:
    """Reads one structure that lies somewhere in a larger content.

    Every method raises ValueError for what is not Thrift or goes beyond ``end``. No method recurses deeper than a fixed number of levels,
    and each reads every byte once, so that no content can make it take long.

    :param content: where the structure is
    :param at: its first byte; after reading, the byte that follows
    :param end: the byte after the last one that may be read
    """

    def __init__(self, content: bytes, at: int, end: int) -> None:
        self.content, self.at, self.end = content, at, min(end, len(content))

    def fields(self) -> Iterator[tuple[int, int]]:
        """Iterate over (id, type) of a structure's fields; the caller reads or skips each value before it takes the next."""
        field = 0
        while True:
            byte = self._byte()
            if not (kind := byte & 15):
                return
            field = field + (byte >> 4) if byte >> 4 else self._zigzag()
            yield field, kind

    def signed(self, kind: int, what: str) -> int:
        """Return an integer; ``what`` names it when it is something else."""
        if kind not in _INTEGERS:
            raise ValueError(f"the {what} is of Thrift type {kind}, not an integer")
        return self._zigzag()

    def integer(self, kind: int, what: str) -> int:
        """Return an integer that is not negative; ``what`` names it when it is something else."""
        value = self.signed(kind, what)
        if not 0 <= value < 2**63:
            raise ValueError(f"{value} is no {what}")
        return value

    def structures(self, kind: int, what: str) -> Iterator[None]:
        """Iterate over a list of structures, each of which the caller reads; ``what`` names them when they are something else."""
        if kind != LIST:
            raise ValueError(f"the {what} are of Thrift type {kind}, not a list")
        count, item = self._list_header()
        if item != STRUCT and count:
            raise ValueError(f"the {what} are of Thrift type {item}, not structures")
        for _ in range(count):
            yield

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value of any type."""
        if depth > _DEEPEST:
            raise ValueError(f"the Thrift structure is nested more than {_DEEPEST} levels deep")
        if kind in _FIXED:
            self._pass_over(_FIXED[kind])
        elif kind in _INTEGERS:
            self._varint()
        elif kind == BINARY:
            self._pass_over(self._varint())
        elif kind in (LIST, SET):
            count, item = self._list_header()
            for _ in range(count):
                self.skip(3 if item in (1, 2) else item, depth + 1)  # in a list, true and false are a byte each
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise ValueError(f"unknown Thrift type {kind}")

    def _list_header(self) -> tuple[int, int]:
        byte = self._byte()
        return byte >> 4 if byte >> 4 < 15 else self._varint(), byte & 15

    def _byte(self) -> int:
        if self.at >= self.end:
            raise ValueError("a Thrift structure goes beyond its end")
        value = self.content[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a Thrift number has more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _pass_over(self, count: int) -> None:
        if count > self.end - self.at:
            raise ValueError(f"a Thrift value of {count:,} bytes goes beyond the end of its structure")
        self.at += count
