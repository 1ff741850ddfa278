"""``segments/describe`` (2.5.8 and later), made of what 2.3.5 says about segments and of what its bucket holds."""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import Any

from pymilvus.grpc_gen import milvus_pb2

from tests.door.refused import SEGMENT_NOT_FOUND, Refused
from tests.door.upstream import Caller, Upstream


def describe(upstream: Upstream, caller: Caller, collection_id: int, segment_ids: list[int]) -> dict[str, Any]:
    """Return the answer.

    2.3.5 tells nobody which channel a segment belongs to: where a collection has several, one of them is named by the segment's id.
    """
    described = _collection(caller, collection_id)
    request = milvus_pb2.GetPersistentSegmentInfoRequest(dbName=described.db_name, collectionName=described.schema.name)
    listed = caller.of(described.db_name).ask("GetPersistentSegmentInfo", request)
    infos = {info.segmentID: info for info in listed.infos}
    channels = sorted(described.virtual_channel_names)
    found = []
    for segment_id in segment_ids:
        info = infos.get(segment_id)
        if info is None:
            raise Refused(SEGMENT_NOT_FOUND, f"segment not found[segment={segment_id}]")
        place = f"{info.collectionID}/{info.partitionID}/{segment_id}"
        found.append(
            {
                "segmentID": segment_id,
                "collectionID": info.collectionID,
                "partitionID": info.partitionID,
                "vChannel": channels[zlib.crc32(str(segment_id).encode()) % len(channels)],
                "numRows": info.num_rows,
                "state": info.state,
                "level": info.level,
                "isSorted": info.is_sorted,
                "insertLogs": _logs(upstream, f"insert_log/{place}/"),
                "deltaLogs": _logs(upstream, f"delta_log/{place}/"),
                "statsLogs": _logs(upstream, f"stats_log/{place}/"),
            }
        )
    return {"segmentInfos": found}


def _collection(caller: Caller, collection_id: int) -> Any:
    """Return a collection of any database: newer servers do not look at the one that a request names."""
    databases = caller.ask("ListDatabases", milvus_pb2.ListDatabasesRequest()).db_names
    for database in sorted(databases, key=lambda name: name != caller.database):
        try:
            described = caller.of(database).collection(collection_id=collection_id)
        except Refused:
            continue
        described.db_name = database
        return described
    return caller.collection(collection_id=collection_id)


def _logs(upstream: Upstream, below: str) -> list[dict[str, Any]]:
    """Return log ids by field; delta logs lie under no field and are said to be of field 0."""
    prefix = f"{upstream.milvus.root_path}/{below}".lstrip("/")
    fields: dict[int, list[int]] = defaultdict(list)
    for key in upstream.objects(prefix):
        *field, log = key[len(prefix) :].split("/")
        fields[int(field[0]) if field else 0].append(int(log))
    return [{"fieldID": field, "logIDs": sorted(logs)} for field, logs in sorted(fields.items())]
