"""Which logs belong to a segment, as Milvus itself says it (REST ``segments/describe``, 2.5.8 and later).

A listing of the bucket also shows what an unfinished write has left, which Milvus could not import again ("misaligned binlog count").
The answer is given for compacted segments too, and then names delta logs of the segments they became, which lie elsewhere; so it only
counts for segments that are still durable ones (``internal/datacoord/services.go``, GetSegmentInfo).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import rest
from .errors import ServerError, SourceChanged
from .names import CollectionName
from .server import MilvusServer, durable_states

#: Segments asked for in one request.
_PER_REQUEST = 256


@dataclass(frozen=True, slots=True)
class NamedLogs:
    """The logs of one segment: insert logs by field or column group, delta logs, and the channel its rows came through."""

    inserts: dict[int, frozenset[int]]
    deltas: frozenset[int]
    v_channel: str


def named_logs(server: MilvusServer, name: CollectionName, collection_id: int, segment_ids: Sequence[int]) -> dict[int, NamedLogs]:
    """Return the logs of these segments.

    :raises SourceChanged: a segment is no durable one any more
    :raises UnsupportedServer, ServerUnreachable: this Milvus does not say, or REST cannot be reached
    """
    found: dict[int, NamedLogs] = {}
    durable = durable_states()
    for start in range(0, len(segment_ids), _PER_REQUEST):
        few = list(segment_ids[start : start + _PER_REQUEST])
        body = {"dbName": name.database, "collectionID": collection_id, "segmentIDs": few}
        try:
            data = server.rest.call(rest.SEGMENTS, body, f"describe segments of {name}", name.database)
        except ServerError as error:
            if "segment not found" in str(error).lower():
                raise SourceChanged(f"a segment of {name} vanished while it was looked at") from None
            raise
        for info in data.get("segmentInfos") or []:
            if info.get("state") not in durable:
                raise SourceChanged(
                    f"segment {info.get('segmentID')} of {name} is no longer a flushed one; it was just compacted or dropped"
                )
            found[info["segmentID"]] = NamedLogs(
                {field: frozenset(logs) for field, logs in _logs(info, "insertLogs")},
                frozenset(log for _, logs in _logs(info, "deltaLogs") for log in logs),
                str(info.get("vChannel") or ""),
            )
    if missing := set(segment_ids) - set(found):
        raise SourceChanged(f"Milvus lists segments of {name} and does not describe them: {sorted(missing)[:5]}")
    return found


def _logs(info: Mapping[str, Any], key: str) -> Iterator[tuple[int, list[int]]]:
    for field in info.get(key) or []:
        if logs := field.get("logIDs"):
            yield int(field.get("fieldID", 0)), logs
