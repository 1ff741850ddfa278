"""Backups and meta documents for the tests, made up by hypothesis or taken from the official example."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.meta import (
    Backup,
    Collection,
    Database,
    FieldLogs,
    Index,
    Log,
    Partition,
    Segment,
)
from airflow_provider_milvus_backup.core.meta_reader import from_files
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.rbac import Grant, PrivilegeGroup, Rbac, User
from tests.official_backups import synthetic

# A busy machine is no reason to fail.
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

Json = dict[str, Any]

# ---- strategies ----------------------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
named = st.text(st.sampled_from("abc_$1<&ä\u2028"), min_size=1, max_size=6)
ids = st.integers(1, 2**63 - 1)
zero_or_id = st.integers(0, 2**63 - 1)
sizes = st.integers(0, 2**50)  # what adds up must still be an int64
timestamps = st.integers(0, 2**64 - 1)
string_pairs = st.lists(st.tuples(text, text), max_size=2)
one_log = st.builds(Log, ids, sizes, st.just(""))  # meta files have no ETags, and 0 is no id in them
logs = st.lists(one_log, min_size=1, max_size=3, unique_by=lambda log: log.log_id)
field_logs = st.lists(st.builds(FieldLogs, zero_or_id, logs), max_size=3, unique_by=lambda found: found.field_id)
# The key of a delta log has no field in it, so a segment has each id once. The field is 0, in one list or several.
delta_logs = st.lists(one_log, max_size=4, unique_by=lambda log: log.log_id).map(
    lambda found: [FieldLogs(0, part) for part in (found[:2], found[2:]) if part]
)


def nameable(found: str) -> bool:
    return "/" not in found and not any(ord(char) < 32 or ord(char) == 127 for char in found)


def segment(partition: int) -> st.SearchStrategy[Segment]:
    common: dict[str, Any] = {"segment_id": ids, "partition_id": st.just(partition), "rows": zero_or_id, "v_channel": text}
    if partition == layout.ALL_PARTITIONS:
        return st.builds(Segment, **common, inserts=st.just([]), deltas=delta_logs, group_id=st.none(), is_l0=st.just(True))
    versions = st.integers(0, 3)
    l0 = st.booleans()
    return st.builds(Segment, **common, inserts=field_logs, deltas=delta_logs, group_id=st.none() | ids, is_l0=l0, storage_version=versions)


def by_segment(items: st.SearchStrategy[Segment]) -> st.SearchStrategy[list[Segment]]:
    return st.lists(items, max_size=3, unique_by=lambda found: found.segment_id)


def with_segments(number: int, name: str, segments: list[Segment], load_state: str) -> Partition:
    return Partition(number, name, [replace(found, partition_id=number) for found in segments], load_state)


partitions = st.builds(with_segments, ids, named, by_segment(segment(1)), text)
indexes = st.builds(Index, text, text, text, st.dictionaries(text, text, max_size=2), zero_or_id)


def with_properties(found: Collection, name: str, properties: dict[str, str]) -> Collection:
    pairs = [{"key": key, "value": value} for key, value in properties.items()]
    fields = [{"fieldID": 100, "name": "pk", "is_primary_key": True, "data_type": 5}]
    return replace(found, schema={"name": name, "fields": fields, "properties": pairs}, properties=list(properties.items()))


def distinct(found: Collection) -> bool:
    segments = [segment.segment_id for segment in found.segments()]
    return len(segments) == len(set(segments))


bare_collections = st.builds(
    Collection,
    collection_id=ids,
    name=st.builds(CollectionName, named, named),
    schema=st.just({}),
    shards=st.integers(0, 2**31 - 1),
    consistency_level=st.integers(0, 4),
    partitions=st.lists(partitions, max_size=2, unique_by=(lambda found: found.partition_id, lambda found: found.name)),
    l0_segments=by_segment(segment(layout.ALL_PARTITIONS)),
    indexes=st.lists(indexes, max_size=2),
    load_state=st.sampled_from(["Loaded", "Loading", "NotLoad"]),
    properties=st.just([]),
    aliases=st.lists(text, max_size=2),
    database_id=zero_or_id,
    created_timestamp=timestamps,
    virtual_channels=st.lists(text, max_size=2),
    physical_channels=st.lists(text, max_size=2),
    backup_timestamp=timestamps,
    backup_physical_timestamp=timestamps,
    channel_checkpoints=st.dictionaries(text, text, max_size=2),
)
collections = st.builds(with_properties, bare_collections.filter(distinct), named, st.dictionaries(text, text, max_size=2))
grants = st.builds(Grant, named, named, named, named, text.filter(nameable), text.filter(nameable))
names = st.lists(named, max_size=2, unique=True)
rbacs = st.builds(
    Rbac,
    users=st.lists(st.builds(User, named, text, names), max_size=3, unique_by=lambda user: user.name),
    roles=st.lists(named | st.sampled_from(["admin", "public"]), max_size=3, unique=True),
    grants=st.lists(grants, max_size=3),
    privilege_groups=st.lists(st.builds(PrivilegeGroup, named, names), max_size=2, unique_by=lambda group: group.name),
)
backups = st.builds(
    Backup,
    backup_id=text,
    name=named,
    server_version=text,
    collections=st.lists(collections, max_size=2, unique_by=(lambda found: found.name, lambda found: found.collection_id)),
    databases=st.lists(st.builds(Database, named, zero_or_id, string_pairs), max_size=2),
    rbac=st.none() | rbacs,
)
roots = st.sampled_from(["", "files", "a/b"])


def head(**shape: Any) -> Json:
    return copy.deepcopy(synthetic(**shape).full_meta)


def read(document: Any) -> Backup:
    return from_files({"full_meta.json": json.dumps(document).encode()})


def by_file(files: dict[str, bytes]) -> dict[str, bytes]:
    return {key.rpartition("/")[2]: data for key, data in files.items()}


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in numbers(item)]
    if isinstance(value, list):
        return [found for item in value for found in numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


Change = Callable[[Json], object]


def changed(change: Change) -> Json:
    document = head()
    change(document)
    return document


def coll(document: Json) -> Json:
    found: Json = document["collection_backups"][0]
    return found


def part(document: Json) -> Json:
    found: Json = coll(document)["partition_backups"][0]
    return found


def seg(document: Json) -> Json:
    found: Json = part(document)["segment_backups"][0]
    return found
