"""The objects a model writes. Their frame is Milvus's own, what is inside the Parquet part is private, but for delta logs.

Frame: ``internal/storage/binlog_writer.go``, ``event_header.go`` and ``event_data.go``; entries of delta logs: the JSON of
``internal/storage/delta_log.go``. A column group (storage version 2) is a plain Parquet file.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

MAGIC = (0xFFFABC).to_bytes(4, "little")
PARQUET = b"PAR1"
DESCRIPTOR, INSERT, DELETE = 0, 1, 2
_HEADER = struct.Struct("<QbiI")
_INT64, _VARCHAR = 5, 21
#: Delta logs are of no field.
_NO_FIELD = -1
#: Lengths of the fixed parts of the eight kinds of events.
_FIXED_PARTS = bytes((52, 16, 16, 16, 16, 16, 16, 16))


class BadObject(Exception):
    """An object that Milvus could not read; the text is the reason its job would fail with."""


class Delete(NamedTuple):
    """A primary key, and the timestamp before which its rows are gone."""

    pk: Any
    ts: int


class Column(NamedTuple):
    """The values of one field in one log."""

    field_id: int
    data_type: int
    dim: str
    values: list[Any]


# ---- column logs -------------------------------------------------------------------------------------------------------------------


def insert_log(column: Column) -> bytes:
    """Return an insert binlog of storage version 1: one field."""
    return _framed(INSERT, column.field_id, _parquet(_columns_json([column]), len(column.values)))


def column_group(columns: Sequence[Column]) -> bytes:
    """Return a column group of storage version 2."""
    return _parquet(_columns_json(columns), len(columns[0].values))


def read_insert_log(content: bytes, key: str) -> Column:
    """Return the one column of an insert binlog."""
    return _columns(_unframed(content, key, INSERT), key)[0]


def read_column_group(content: bytes, key: str) -> list[Column]:
    """Return the columns of a column group."""
    return _columns(content, key)


def _columns_json(columns: Sequence[Column]) -> bytes:
    return json.dumps([column._asdict() for column in columns], default=_plain).encode()


def _columns(parquet: bytes, key: str) -> list[Column]:
    try:
        return [Column(**column) for column in json.loads(_inside(parquet, key), object_hook=_rich)]
    except (ValueError, TypeError) as error:
        raise BadObject(f"failed to read data, error: {error}, binlog:{key}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"\0bytes": base64.b64encode(value).decode()}
    raise TypeError(f"{value!r} is no value of a row")


def _rich(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["\0bytes"]) if set(value) == {"\0bytes"} else value


# ---- delta logs --------------------------------------------------------------------------------------------------------------------


def delta_log(deletes: Iterable[Delete]) -> bytes:
    """Return a delta log."""
    lines = [
        json.dumps({"pk": delete.pk, "ts": delete.ts, "pkType": _INT64 if isinstance(delete.pk, int) else _VARCHAR}) for delete in deletes
    ]
    return _framed(DELETE, _NO_FIELD, _parquet("\n".join(lines).encode(), len(lines)))


def read_delta_log(content: bytes, key: str) -> list[Delete]:
    """Return the deletes of a delta log."""
    inside = _inside(_unframed(content, key, DELETE), key)
    return [Delete(entry["pk"], entry["ts"]) for entry in map(json.loads, inside.decode().splitlines())]


# ---- frames ------------------------------------------------------------------------------------------------------------------------


def _framed(kind: int, field: int, payload: bytes) -> bytes:
    extras = json.dumps({"original_size": str(len(payload))}).encode()
    # Collection, partition and segment are in the key, and 0 says nothing of them; the rest says that the file covers all time.
    fixed = struct.pack("<qqqqQQi", 0, 0, 0, field, 0, 2**64 - 1, _VARCHAR)
    descriptor = fixed + _FIXED_PARTS + struct.pack("<i", len(extras)) + extras
    content = MAGIC
    for event, body in ((DESCRIPTOR, descriptor), (kind, struct.pack("<QQ", 0, 2**64 - 1) + payload)):
        length = _HEADER.size + len(body)
        content += _HEADER.pack(0, event, length, len(content) + length) + body
    return content


def _unframed(content: bytes, key: str, kind: int) -> bytes:
    if content[:4] != MAGIC:
        found = int.from_bytes(content[:4], "little", signed=True)
        wrong = f"parse magic number failed, expected: {0xFFFABC}, actual: {found}: invalid parameter"
        raise BadObject(f"failed to create reader, binlog:{key}, error:{wrong}")
    position, payload = 4, None
    try:
        while position < len(content):
            _, event, length, _ = _HEADER.unpack_from(content, position)
            if length <= 0 or position + length > len(content):
                raise BadObject(f"failed to read data, error: unexpected EOF, binlog:{key}")
            if event == kind:
                payload = content[position + _HEADER.size + 16 : position + length]
            elif event != DESCRIPTOR:
                raise BadObject(f"wrong binlog type, expect:{kind}, actual:{event}, binlog:{key}")
            position += length
    except struct.error:
        raise BadObject(f"failed to read data, error: unexpected EOF, binlog:{key}") from None
    if payload is None:
        raise BadObject(f"wrong binlog type, no event of type {kind}, binlog:{key}")
    return payload


def _inside(parquet: bytes, key: str) -> bytes:
    if len(parquet) < 12 or parquet[:4] != PARQUET or parquet[-4:] != PARQUET:
        raise BadObject(f"Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file: {key}")
    (footer,) = struct.unpack_from("<I", parquet, len(parquet) - 8)
    if footer > len(parquet) - 12:
        raise BadObject(f"parquet: file is smaller than indicated metadata size: {key}")
    return parquet[4 + len(_page_header(0, 0)) : len(parquet) - 8 - footer]


# ---- Parquet: a page, and a FileMetaData that tells of it, in Thrift's compact protocol ----------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(value: int) -> bytes:
    return _varint(value << 1)  # zigzag; there is nothing negative here


def _long_number(value: int) -> bytes:
    """Return a number in five bytes whatever it is, so that all headers of pages have the same length."""
    return bytes((value << 1) >> shift & 0x7F | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))


def _text(value: str) -> bytes:
    return _varint(len(value.encode())) + value.encode()


def _page_header(size: int, rows: int) -> bytes:
    # A header byte is (distance to the last field << 4) | type. PageHeader: 1 type, 2 and 3 sizes, 5 header of a data page: 1 number of
    # values, 2 to 4 encodings.
    data_page = b"\x15" + _long_number(rows) + b"\x15" + _number(0) + b"\x15" + _number(3) + b"\x15" + _number(3) + b"\x00"
    return b"\x15" + _number(0) + b"\x15" + _long_number(size) + b"\x15" + _long_number(size) + b"\x2c" + data_page + b"\x00"


def _parquet(inside: bytes, rows: int) -> bytes:
    page = _page_header(len(inside), rows) + inside
    # SchemaElement: 1 type, 3 repetition, 4 name, 5 number of children.
    root = b"\x48" + _text("schema") + b"\x15" + _number(1) + b"\x00"
    value = b"\x15" + _number(6) + b"\x25" + _number(0) + b"\x18" + _text("val") + b"\x00"
    # ColumnMetaData: 1 type, 2 encodings, 3 path, 4 codec, 5 number of values, 6 and 7 sizes, 9 where the page is.
    size = b"\x16" + _number(len(page))
    about = b"\x15" + _number(6) + b"\x19\x15" + _number(0) + b"\x19\x18" + _text("val") + b"\x15" + _number(0)
    about += b"\x16" + _number(rows) + size + size + b"\x26" + _number(len(PARQUET)) + b"\x00"
    # ColumnChunk: 2 offset, 3 about it. RowGroup: 1 columns, 2 size, 3 number of rows.
    column = b"\x26" + _number(0) + b"\x1c" + about + b"\x00"
    group = b"\x19\x1c" + column + size + b"\x16" + _number(rows) + b"\x00"
    # FileMetaData: 1 version, 2 schema, 3 number of rows, 4 row groups.
    footer = b"\x15" + _number(1) + b"\x19" + b"\x2c" + root + value + b"\x16" + _number(rows) + b"\x19\x1c" + group + b"\x00"
    return PARQUET + page + footer + struct.pack("<I", len(footer)) + PARQUET
