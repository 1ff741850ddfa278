"""The pieces that the golden backups are described with."""

from __future__ import annotations

from typing import Any

from airflow_provider_milvus_backup.core.meta import Collection, FieldLogs, FlushAll, Index, Log, Partition, Segment
from airflow_provider_milvus_backup.core.names import CollectionName

B = 446_108_000_000_000_000  # all ids are near it, above what a float can hold
DOCS, DEFAULT, SECOND = B + 100, B + 101, B + 102
PRICES, PASSAGES, EVENTS, WIDE, DELETED, BOOKS = (B + n for n in (500, 600, 700, 800, 900, 1000))
#: Bytes of the binlogs of each field, in all trees; a delta log has 20.
SIZES = {0: 10, 1: 11, 100: 12, 101: 13, 102: 14, 103: 15, 104: 16}
TSO, SECONDS = 455_012_345_678_901_249, 1_735_689_600
CREATED = 455_012_000_000_000_004
CHECKPOINTS = {
    DOCS: "CitieS1kZXYtcm9vdGNvb3JkLWRtbF8wXzQ0NjEwODAwMDAwMDAwMDEwMHYwEgQIEBgAIIHg7oSV6qGoBg==",
    PRICES: "CitieS1kZXYtcm9vdGNvb3JkLWRtbF8wXzQ0NjEwODAwMDAwMDAwMDUwMHYwEgQIEBgAIIHg7oSV6qGoBg==",
    PASSAGES: "CitieS1kZXYtcm9vdGNvb3JkLWRtbF8wXzQ0NjEwODAwMDAwMDAwMDYwMHYwEgQIEBgAIIHg7oSV6qGoBg==",
    EVENTS: "CitieS1kZXYtcm9vdGNvb3JkLWRtbF8wXzQ0NjEwODAwMDAwMDAwMDcwMHYwEgQIEBgAIIHg7oSV6qGoBg==",
    DELETED: "CitieS1kZXYtcm9vdGNvb3JkLWRtbF8wXzQ0NjEwODAwMDAwMDAwMDkwMHYwEgQIEBgAIIHg7oSV6qGoBg==",
}

# ---- what is in the trees ------------------------------------------------------------------------------------------------------

KEY = {"fieldID": 100, "name": "id", "is_primary_key": True, "data_type": 5}
TTL = ("collection.ttl.seconds", "864000")


def varchar(number: int, name: str, length: int, **more: Any) -> dict[str, Any]:
    return {"fieldID": number, "name": name, "data_type": 21, "type_params": [{"key": "max_length", "value": str(length)}], **more}


def vector(number: int) -> dict[str, Any]:
    return {"fieldID": number, "name": "vector", "data_type": 101, "type_params": [{"key": "dim", "value": "4"}]}


def channel(collection: int, number: int = 0) -> str:
    return f"by-dev-rootcoord-dml_{number}_{collection}v0"


def inserts(first: int, *fields: int) -> list[FieldLogs]:
    return [FieldLogs(field, [Log(B + first + i, SIZES[field])]) for i, field in enumerate(fields)]


def deletes(*logs: int, listed: bool = False) -> list[FieldLogs]:
    """Delta logs; in the lists of before 0.5.4 the id of the log stands where a field's would."""
    if listed:
        return [FieldLogs(B + log, [Log(B + log, 20)]) for log in logs]
    return [FieldLogs(0, [Log(B + log, 20) for log in logs])] if logs else []


def hnsw(index_id: int = 0, **params: str) -> Index:
    given = params or {"M": "8", "efConstruction": "64"}
    return Index("vector", "vector", "HNSW", {"index_type": "HNSW", "metric_type": "L2", **given}, index_id)


FIELDS = (0, 1, 100, 101, 102, 103)
NESTED = hnsw(params='{"M":8,"efConstruction":64}')
SINCE_0_5_10: dict[str, Any] = {
    "database_id": 1,
    "created_timestamp": CREATED,
    "physical_channels": ["by-dev-rootcoord-dml_0"],
}


def docs(segments: list[list[Segment]], **more: Any) -> Collection:
    """The collection that all but a few trees hold; ``text`` adds keys to its text field, ``loads`` are the states of its partitions."""
    text, loads, properties = more.pop("text", {}), more.pop("loads", ("Loaded", "Loaded")), more.pop("properties", [])
    names = [(DEFAULT, "_default"), (SECOND, "second")]
    given = {
        "indexes": [hnsw()],
        "load_state": "Loaded",
        "backup_timestamp": TSO,
        "backup_physical_timestamp": SECONDS,
        "channel_checkpoints": {channel(DOCS): CHECKPOINTS[DOCS]},
    }
    return Collection(
        DOCS,
        CollectionName("default", "docs"),
        {
            "name": "docs",
            "fields": [KEY, varchar(101, "text", 100, **text), vector(102)],
            "enable_dynamic_field": True,
            "properties": [{"key": key, "value": value} for key, value in properties],
        },
        shards=1,
        consistency_level=2,
        partitions=[Partition(*names[i], segments[i], loads[i]) for i in range(2)],
        properties=properties,
        **{**given, **more},
    )


def docs_segment(number: int, partition: int, rows: int, group: int | None, *deltas: int, listed: bool = True, on: str = "") -> Segment:
    return Segment(B + number, partition, rows, inserts(10 * number, *FIELDS), deletes(*deltas, listed=listed), group, v_channel=on)


def one_each(first: str = "", second: str = "", *, listed: bool = False) -> list[list[Segment]]:
    """One segment in each partition, as all releases since 0.4.4 group them; in the old trees the second partition is empty."""
    return [
        [docs_segment(201, DEFAULT, 40, B + 201, 2016, listed=listed, on=first)],
        [] if listed else [docs_segment(211, SECOND, 20, B + 211, on=second)],
    ]


def only(collection: int, database: str, fields: list[dict[str, Any]], partitions: list[Partition], **more: Any) -> Collection:
    """A collection that one tree alone holds, named as its schema is."""
    name, schema, properties = more.pop("name"), more.pop("schema", {}), [{"key": k, "value": v} for k, v in more.get("properties", [])]
    if more.pop("flushed", True):
        more = {
            "backup_timestamp": TSO,
            "backup_physical_timestamp": SECONDS,
            "channel_checkpoints": {channel(collection): CHECKPOINTS[collection]},
            **more,
        }
    schema = {"name": name, "fields": fields, "properties": properties, **schema}
    more = {"shards": 1, "consistency_level": 2, **more}
    return Collection(collection, CollectionName(database, name), schema, partitions=partitions, **more)


#: The one moment of a bulk flush, by physical channel.
FLUSHED = FlushAll(
    {"by-dev-rootcoord-dml_0": "CgIIAQ==", "by-dev-rootcoord-dml_1": "CgIIAg=="},
    "by-dev-rootcoord-dml_0_vcchan",
    ["by-dev-rootcoord-dml_0", "by-dev-rootcoord-dml_1"],
)
