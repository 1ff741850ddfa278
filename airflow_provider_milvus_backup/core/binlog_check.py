"""Whether the binlogs of a segment are what Milvus has written: pure functions over their bytes and keys.

A file of storage version 1 (:mod:`.binlog`) says in its head which collection, partition, segment and field it belongs to; one of
version 2, a column group, is a plain Parquet file, which does not. What Milvus does with them, by release, decides what is damage:

* 2.4 and 2.5 write insert logs with collection 0, the official tool's ``l0compact`` delta logs with 0 everywhere: 0 and -1 are no ids.
* The position of the next event is -1 where a file is written in a stream (2.4 and later).
* 3.0 copies files byte by byte when it restores a snapshot, so all logs of a segment may name one other segment, of another collection.
* Deletes that wait to be written while their segment is compacted go to the segment it becomes, and name the one it was (2.3 and 2.4).
* A field that was added to the collection later has no logs for older rows (2.6 and later), one that was dropped none for newer ones (3.0).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from . import binlog, layout, parquet
from .errors import BackupDamaged
from .jsonreader import Node
from .report import counted

ROW_ID, TIMESTAMP = 0, 1
#: The first id of a field that is not Milvus's own.
_USER_FIELDS = 100
#: Collection, partition, segment, field, first and last timestamp, data type; then the lengths of eight kinds of events, and of the extras.
_DESCRIPTOR = struct.Struct("<qqqqQQi")
_EVENT_LENGTHS = bytes((52, 16, 16, 16, 16, 16, 16, 16))
_UNSET = (0, -1)
_NOT_SAID = 0xFFFFFFFF
_ID = r"(-1|[0-9]{1,19})"
_INSERT_KEY = re.compile(rf"(?:.*/)?{layout.INSERT}/{_ID}/{_ID}/(?:{_ID}/)?{_ID}/{_ID}/{_ID}", re.DOTALL)
_DELTA_KEY = re.compile(rf"(?:.*/)?{layout.DELTA}/{_ID}/{_ID}/(?:{_ID}/)?{_ID}/{_ID}", re.DOTALL)


class Owner(NamedTuple):
    """The segment that a log belongs to."""

    collection: int
    partition: int
    segment: int


class Checked(NamedTuple):
    """One log that is whole."""

    key: str
    log_id: int
    #: None when it is encrypted.
    rows: int | None
    #: Of storage version 1; a column group otherwise.
    framed: bool
    #: The segment that its head names where that is not the segment of its key; None otherwise.
    foreign: int | None = None


def check_insert_log(content: bytes, key: str) -> Checked:
    """Return what an insert log of a backup holds, of either storage version.

    :param key: where it lies, ``…/insert_log/<collection>/<partition>/[<group>/]<segment>/<field>/<log>``
    :raises BackupDamaged: it is not whole, or that of another field; the sentence names the key, the byte and what is wrong there
    """
    ids = _ids(_INSERT_KEY, key)
    return _check(content, key, binlog.INSERT, Owner(ids[0], ids[1], ids[3]), ids[4], ids[5])


def check_delta_log(content: bytes, key: str) -> Checked:
    """Return what a delta log of a backup holds: one column of JSON, or columns of keys and timestamps; of an L0 segment or another.

    :param key: where it lies, ``…/delta_log/<collection>/<partition>/[<group>/]<segment>/<log>``
    :raises BackupDamaged: it is not whole; the sentence names the key, the byte and what is wrong there
    """
    ids = _ids(_DELTA_KEY, key)
    return _check(content, key, binlog.DELETE, Owner(ids[0], ids[1], ids[3]), None, ids[4])


def _ids(pattern: re.Pattern[str], key: str) -> list[int]:
    match = pattern.fullmatch(key)
    if not match:
        raise BackupDamaged(f"{key!r} is not the key of a log")
    return [int(found or 0) for found in match.groups()]


def _check(content: bytes, key: str, kind: int, owner: Owner, field: int | None, log_id: int) -> Checked:
    try:
        if content[:4] in (parquet.MAGIC, parquet.ENCRYPTED):
            return Checked(key, log_id, parquet.check(content, 0, len(content)), framed=False)
        rows, foreign = _check_framed(content, kind, owner, field)
        return Checked(key, log_id, rows, framed=True, foreign=foreign)
    except (ValueError, BackupDamaged) as error:
        name = "insert log" if kind == binlog.INSERT else "delta log"
        raise BackupDamaged(f"{name} {key!r} ({len(content):,} bytes) is damaged: {error}") from None


def _check_framed(content: bytes, kind: int, owner: Owner, field: int | None) -> tuple[int | None, int | None]:
    if int.from_bytes(content[:4], "little") != binlog.MAGIC:
        raise ValueError(f"it begins with {content[:4].hex() or 'nothing'}, neither a binlog nor a Parquet file")
    head = binlog.event_at(content, 4)
    if head.kind != binlog.DESCRIPTOR or head.next != head.end:
        raise ValueError("the event at byte 4 is not a descriptor")
    named, named_field, encrypted = _read_descriptor(content, head)
    if named_field not in (_UNSET if field is None else (field,)):
        keyed = "no field" if field is None else f"field {field}"
        raise ValueError(f"at byte {head.body + 24:,} it says that it is of field {named_field}, its key that it is of {keyed}")
    foreign = named.segment if named.segment not in (*_UNSET, owner.segment) else None
    for at, what, said, is_ in zip((0, 8), Owner._fields, named, owner, strict=False):
        if foreign is None and said not in (*_UNSET, is_):
            raise ValueError(f"at byte {head.body + at:,} it says that it is of {what} {said}, its key that it is of {what} {is_}")
    if encrypted:
        if head.end == len(content):
            raise ValueError(f"it ends at byte {head.end:,}, after its descriptor")
        return None, foreign
    return _check_data(content, head.end, kind), foreign


def _read_descriptor(content: bytes, head: binlog.Event) -> tuple[Owner, int, bool]:
    """Return the segment and the field that a descriptor names, and whether all that follows is encrypted."""
    lengths = head.body + _DESCRIPTOR.size
    extras = lengths + len(_EVENT_LENGTHS) + 4
    if extras > head.end or content[lengths : extras - 4] != _EVENT_LENGTHS:
        raise ValueError(f"the descriptor at byte {lengths:,} does not have the lengths of the events")
    (size,) = struct.unpack_from("<i", content, extras - 4)
    if extras + size != head.end:
        raise ValueError(f"the descriptor's extras at byte {extras:,} have {size:,} bytes, and it ends at byte {head.end:,}")
    node = Node.parse(content[extras : head.end], f"the descriptor's extras at byte {extras:,}")
    # Milvus always gives a size; the delta logs of l0compact have no extras at all.
    if node.value and not re.fullmatch("[0-9]{1,19}", node.string("original_size")):
        raise node.wrong("original_size", "a number of bytes")
    node.boolean("nullable")
    collection, partition, segment, field, _, _, _ = _DESCRIPTOR.unpack_from(content, head.body)
    return Owner(collection, partition, segment), field, bool(node.string("edek"))


def _check_data(content: bytes, start: int, kind: int) -> int:
    rows, at = 0, start
    while at < len(content):
        event = binlog.event_at(content, at)
        if event.kind != kind:
            raise ValueError(f"the event at byte {at:,} is of type {event.kind}, not {kind}")
        if event.next not in (event.end, _NOT_SAID):
            raise ValueError(f"the event at byte {at:,} ends at byte {event.end:,} and says that the next begins at byte {event.next:,}")
        held = parquet.check(content, at + binlog.DATA, event.end)
        if held is None:
            raise ValueError(f"the event at byte {at:,} is encrypted, and the descriptor does not say so")
        rows, at = rows + held, event.end
    if at == start:
        raise ValueError(f"it ends at byte {at:,}, after its descriptor")
    return rows


# ---- a whole segment ---------------------------------------------------------------------------------------------------------------


def needed_fields(schema: Mapping[str, Any]) -> frozenset[int]:
    """Return the ids of the fields that must have a value in every row, by a collection's schema as the meta holds it.

    Those that may be null or have a default can have been added later.
    """
    given = ("nullable", "default_value_base64", "default_value_proto", "is_dynamic", "is_function_output")
    return frozenset(field.get("fieldID", 0) for field in schema.get("fields") or [] if not any(field.get(key) for key in given))


def compare_segment(
    recorded: int,
    inserts: Mapping[int, Sequence[Checked]],
    deltas: Sequence[Checked],
    needed: AbstractSet[int],
    siblings: AbstractSet[int] = frozenset(),
) -> list[str]:
    """Return what does not fit together in one segment, a sentence each; all of its logs must have been read.

    :param recorded: its rows by the meta; 0 when that does not say
    :param inserts: its insert logs by field, or by column group
    :param deltas: its delta logs; an L0 segment has no others
    :param needed: what :func:`needed_fields` says of its collection
    :param siblings: ids of all segments of its collection in the backup; a log that names one of these is in the wrong place
    """
    together = [log for logs in inserts.values() for log in logs]
    found = _compare_owners(together, deltas, siblings)
    if not inserts:
        return found
    framed = any(log.framed for log in together)
    if framed and not all(log.framed for log in together):
        return [*found, "some of its insert logs are binlogs and some are Parquet files"]
    for field in (ROW_ID, TIMESTAMP) if framed else (ROW_ID,):
        if not inserts.get(field):
            return [*found, f"{_column(framed, field)} is missing"]
    if framed:
        found += [f"{_column(framed, field)} is missing" for field in sorted(needed) if not inserts.get(field)]
    rows = _rows(inserts[ROW_ID])
    if rows is None:
        return found
    if recorded and sum(rows) != recorded:
        found.append(f"its logs hold {sum(rows):,} rows, the meta says {recorded:,}")
    for field, logs in sorted(inserts.items()):
        held = _rows(logs)
        partly = 0 < len(logs) < len(rows) and field >= _USER_FIELDS and field not in needed
        if held is not None and held != rows and not (partly and held in (rows[-len(held) :], rows[: len(held)])):
            these = f"{sum(held):,} rows in {counted(len(logs), 'log')}"
            found.append(f"{_column(framed, field)} has {these}, not {sum(rows):,} in {len(rows):,}")
    return found


def _column(framed: bool, field: int) -> str:
    return f"{'field' if framed else 'column group'} {field}"


def _rows(logs: Sequence[Checked]) -> list[int] | None:
    """Return the rows of each log in the order in which Milvus reads them; None when one is encrypted."""
    rows = [log.rows for log in sorted(logs, key=lambda log: log.log_id)]
    return None if None in rows else [held for held in rows if held is not None]


def _compare_owners(inserts: Sequence[Checked], deltas: Sequence[Checked], siblings: AbstractSet[int]) -> list[str]:
    """Return which logs are of another segment, as their heads say."""
    owners = {log.foreign for log in inserts if log.framed}
    # Either all insert logs are the segment's own, or it was copied as a whole, all of them from one other.
    wrong = [log for log in inserts if log.foreign and (len(owners) > 1 or log.foreign in siblings)]
    wrong += [log for log in deltas if log.foreign in siblings]
    return [f"{log.key!r} is of segment {log.foreign}" for log in wrong]
