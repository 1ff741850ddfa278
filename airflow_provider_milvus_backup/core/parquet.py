"""Whether a Parquet file is whole, and how many rows it has, without decompressing anything.

Such a file is its magic number, pages one after another by row group and column, a footer, the footer's length, and the magic number again;
the structures are those of ``parquet.thrift`` of ``apache/parquet-format``. Page bodies are compressed: a changed byte in one shows only
where the writer has added a CRC to the page.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from .thrift import STRUCT, Compact

MAGIC = b"PAR1"
#: The magic number of files whose footer is encrypted.
ENCRYPTED = b"PARE"
_TAIL = 8
#: Kinds of pages.
_DATA, _DATA_V2 = 0, 3


@dataclass(slots=True)
class _Column:
    """One column of one row group: where its pages are, and how many values they hold."""

    values: int = -1
    size: int = -1
    data: int = -1
    dictionary: int = 0
    encrypted: bool = False


@dataclass(slots=True)
class _Footer:
    """What a footer says."""

    rows: int = -1
    columns: list[_Column] = field(default_factory=list)
    group_rows: int = 0
    groups: bool = False
    encrypted: bool = False


def footer_rows(content: bytes, start: int, end: int) -> int:
    """Return the number of rows that the footer of the Parquet file in these bytes tells, looking at nothing else.

    :raises ValueError: there is no footer, or it has no row count; the sentence says what is wrong
    """
    reader = _footer(content, start, end)
    for number, kind in reader.fields():
        if number == 3:
            return reader.integer(kind, "row count")
        reader.skip(kind)
    raise ValueError("the Parquet footer has no row count")


def check(content: bytes, start: int, end: int) -> int | None:
    """Return the number of rows of the Parquet file in these bytes, None when it is encrypted; byte numbers are those of ``content``.

    Every page is found where the footer says, and they hold as many values as it says.

    :raises ValueError: it is not a whole Parquet file; the sentence says what is wrong, and at which byte
    """
    if content[start : start + 4] == ENCRYPTED == content[end - 4 : end] and end - start >= 4 + _TAIL:
        return None
    if content[start : start + 4] != MAGIC:
        raise ValueError(f"the Parquet file at byte {start:,} does not begin with {MAGIC.decode()}")
    reader = _footer(content, start, end)
    pages_end = reader.at
    footer = _read_footer(reader)
    if footer.rows < 0:
        raise ValueError(f"the Parquet footer at byte {pages_end:,} has no row count")
    # An encrypted file whose footer is not has a signature behind it.
    if reader.at != reader.end and not footer.encrypted:
        raise ValueError(f"the Parquet footer ends at byte {reader.at:,}, not at {reader.end:,}")
    if not footer.groups or footer.group_rows != footer.rows:
        raise ValueError(f"the Parquet footer at byte {pages_end:,} counts {footer.rows:,} rows, its row groups {footer.group_rows:,}")
    if sum(column.size for column in footer.columns) > pages_end - start - 4:
        raise ValueError(f"the Parquet footer at byte {pages_end:,} tells of more bytes than come before it")
    for column in footer.columns:
        if not footer.encrypted and not column.encrypted:
            _check_pages(content, start, pages_end, column)
    return footer.rows


def _footer(content: bytes, start: int, end: int) -> Compact:
    """Return a reader of the footer."""
    if end - start < 4 + _TAIL or content[end - 4 : end] != MAGIC:
        raise ValueError(f"the Parquet file at byte {start:,} does not end in {MAGIC.decode()} at byte {end:,}")
    (length,) = struct.unpack_from("<I", content, end - _TAIL)
    if length > end - start - 4 - _TAIL:
        raise ValueError(f"the Parquet footer that ends at byte {end:,} is longer than its event: {length:,} bytes")
    return Compact(content, end - _TAIL - length, end - _TAIL)


def _read_footer(reader: Compact) -> _Footer:
    footer = _Footer()
    for number, kind in reader.fields():
        if number == 3:
            footer.rows = reader.integer(kind, "row count")
        elif number == 4:
            footer.groups = True
            for _ in reader.structures(kind, "row groups"):
                _read_row_group(reader, footer)
        else:
            footer.encrypted |= number == 8
            reader.skip(kind)
    return footer


def _read_row_group(reader: Compact, footer: _Footer) -> None:
    for number, kind in reader.fields():
        if number == 3:
            footer.group_rows += reader.integer(kind, "row count of a row group")
        elif number == 1:
            for _ in reader.structures(kind, "columns"):
                footer.columns.append(_read_column(reader))
        else:
            reader.skip(kind)


def _read_column(reader: Compact) -> _Column:
    column = _Column()
    for number, kind in reader.fields():
        if number != 3 or kind != STRUCT:
            column.encrypted |= number == 8
            reader.skip(kind)
            continue
        for inner, inner_kind in reader.fields():
            if inner == 5:
                column.values = reader.integer(inner_kind, "number of values")
            elif inner == 7:
                column.size = reader.integer(inner_kind, "size of a column")
            elif inner == 9:
                column.data = reader.integer(inner_kind, "place of a page")
            elif inner == 11:
                column.dictionary = reader.integer(inner_kind, "place of a dictionary")
            else:
                reader.skip(inner_kind)
    if not column.encrypted and min(column.values, column.size, column.data) < 0:
        raise ValueError(f"a column of the Parquet footer, before byte {reader.at:,}, does not say where its pages are")
    column.size = max(column.size, 0)
    return column


def _check_pages(content: bytes, start: int, pages_end: int, column: _Column) -> None:
    if not column.size and not column.values:
        return  # a row group without rows has no pages, wherever they are said to be
    first = start + (column.dictionary if 0 < column.dictionary < column.data else column.data)
    at, end, values = first, first + column.size, 0
    if first < start + 4 or end > pages_end:
        raise ValueError(f"the Parquet pages of a column, bytes {first:,} to {end:,}, are not between the magic number and the footer")
    while at < end:
        size, held, crc, body = _read_page(content, at, end)
        if body + size > end:
            raise ValueError(f"the Parquet page at byte {at:,} goes beyond its column, which ends at byte {end:,}")
        if crc is not None and zlib.crc32(memoryview(content)[body : body + size]) != crc & 0xFFFFFFFF:
            raise ValueError(f"the Parquet page at byte {at:,} does not have the CRC that its header tells")
        values += held
        at = body + size
    if values != column.values:
        raise ValueError(f"the Parquet pages of a column from byte {first:,} on hold {values:,} values, not {column.values:,}")


def _read_page(content: bytes, at: int, end: int) -> tuple[int, int, int | None, int]:
    """Return (bytes, values, CRC, first byte of the body) of the page at a byte; dictionaries hold no values of their own."""
    reader = Compact(content, at, end)
    page, size, crc, held = -1, -1, None, {_DATA: -1, _DATA_V2: -1}
    for number, kind in reader.fields():
        if number == 1:
            page = reader.integer(kind, "kind of page")
        elif number == 3:
            size = reader.integer(kind, "size of a page")
        elif number == 4:
            crc = reader.signed(kind, "CRC of a page")
        elif number in (5, 8) and kind == STRUCT:
            for inner, inner_kind in reader.fields():
                if inner == 1:
                    held[_DATA if number == 5 else _DATA_V2] = reader.integer(inner_kind, "number of values of a page")
                else:
                    reader.skip(inner_kind)
        else:
            reader.skip(kind)
    if page < 0 or size < 0 or held.get(page, 0) < 0:
        raise ValueError(f"the header of the Parquet page at byte {at:,} is not complete")
    return size, held.get(page, 0), crc, reader.at
