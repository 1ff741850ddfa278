"""The collection that the demo backs up, in the state in which collections are hard to back up, and a reader of all its rows."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pymilvus import DataType, MilvusClient

Row = dict[str, Any]

DIMENSIONS = 96
PARTITION = "archive"
FLUSHED, ARCHIVED, NOT_FLUSHED = 2_800, 1_600, 1_000
#: What is left of the above after the deletes.
ROWS = 5_000
_WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "glacier", "harbor", "indigo", "juniper")
_AT_ONCE = 500
#: Milvus returns at most 16,384 rows to one query.
_LIMIT = 16_000


def fill(client: MilvusClient, name: str, tell: Callable[[str], None]) -> None:
    """Create and fill the collection; ``tell`` hears what it holds, line by line.

    The last changes are not flushed: they are in no object yet, and a backup that lists the bucket at once misses them.
    """
    _create(client, name)
    _insert(client, name, range(FLUSHED))
    _insert(client, name, range(FLUSHED, FLUSHED + ARCHIVED), PARTITION)
    client.flush(name)
    tell(f"{FLUSHED + ARCHIVED:,} rows inserted and flushed, {ARCHIVED:,} of them into the partition {PARTITION!r}")
    _delete(client, name, range(0, 600, 2))
    client.flush(name)
    tell("300 rows deleted, and the deletes flushed")
    client.load_collection(name)

    total = FLUSHED + ARCHIVED + NOT_FLUSHED
    client.upsert(name, [_row(number, "second edition") for number in range(1, 401, 2)])
    _delete(client, name, range(FLUSHED, FLUSHED + 100))
    _insert(client, name, range(FLUSHED + ARCHIVED, total))
    tell(f"200 rows upserted, 100 deleted, {NOT_FLUSHED:,} inserted, none of it flushed")
    tell(f"{ROWS:,} rows are left: vectors of {DIMENSIONS} floats, varchar, JSON, dynamic fields; HNSW index, loaded")


def read(client: MilvusClient, name: str) -> dict[str, dict[int, Row]]:
    """Return every row with every field, by primary key by partition, as Milvus answers after all earlier writes."""
    rows: dict[str, dict[int, Row]] = {}
    for partition in client.list_partitions(name):
        found = client.query(
            name, filter="id >= 0", output_fields=["*"], partition_names=[partition], limit=_LIMIT, consistency_level="Strong"
        )
        rows[partition] = {row["id"]: {key: _plain(value) for key, value in row.items()} for row in found}
    return rows


def shape(client: MilvusClient, name: str) -> Row:
    """Return what else has to be the same: the fields, the index and whether the collection is loaded."""
    described = client.describe_collection(name)
    fields = [{key: field.get(key) for key in ("field_id", "name", "type", "params", "is_primary")} for field in described["fields"]]
    index = client.describe_index(name, "embedding_hnsw")
    return {
        "fields": fields,
        "dynamic field": described["enable_dynamic_field"],
        "shards": described["num_shards"],
        "index": {key: index.get(key) for key in ("index_name", "index_type", "metric_type", "M", "efConstruction")},
        "load state": str(client.get_load_state(name)["state"]),
    }


def _create(client: MilvusClient, name: str) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("title", DataType.VARCHAR, max_length=200)
    schema.add_field("price", DataType.DOUBLE)
    schema.add_field("details", DataType.JSON)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIMENSIONS)
    client.create_collection(name, schema=schema)
    client.create_partition(name, PARTITION)
    index = client.prepare_index_params()
    index.add_index("embedding", index_name="embedding_hnsw", index_type="HNSW", metric_type="L2", M=16, efConstruction=200)
    client.create_index(name, index)


def _insert(client: MilvusClient, name: str, numbers: Sequence[int], partition: str = "_default") -> None:
    for first in range(0, len(numbers), _AT_ONCE):
        client.insert(name, [_row(number) for number in numbers[first : first + _AT_ONCE]], partition_name=partition)


def _delete(client: MilvusClient, name: str, numbers: Iterable[int]) -> None:
    client.delete(name, ids=list(numbers))


def _row(number: int, edition: str = "first edition") -> Row:
    """Return a row that no other one resembles, the same in every run."""
    chance = random.Random(f"{number} {edition}")
    row: Row = {
        "id": number,
        "title": f"{chance.choice(_WORDS)} {chance.choice(_WORDS)} №{number}",
        "price": round(chance.uniform(1, 500), 2),
        "details": {"pages": chance.randrange(20, 900), "tags": chance.sample(_WORDS, 2), "edition": edition},
        "embedding": [chance.gauss(0, 1) for _ in range(DIMENSIONS)],
        "color": chance.choice(_WORDS),
    }
    # Dynamic fields that only some rows have.
    if number % 3 == 0:
        row["rating"] = chance.randrange(1, 6)
    if number % 7 == 0:
        row["notes"] = {"by": chance.choice(_WORDS), "read": number % 2 == 0}
    return row


def _plain(value: Any) -> Any:
    """Return a vector as its bytes, so that it is compared bit by bit, and anything else as it is."""
    if isinstance(value, list | tuple) and len(value) == DIMENSIONS:
        return struct.pack(f"<{DIMENSIONS}f", *value)
    return value
