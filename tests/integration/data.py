"""Collections of every shape with distinct, deterministic data, and a reader of all they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymilvus import DataType, MilvusClient

from airflow_provider_milvus_backup.core.meta import Index
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.server import MilvusServer

Row = dict[str, Any]
#: Rows by primary key by partition; a collection with a partition key has one entry, ``*``.
Contents = dict[str, dict[Any, Row]]

LIMIT = 16_000
KEYED = "*"
TTL = "864000"


@dataclass(frozen=True)
class Collection:
    """One collection of the tests."""

    name: CollectionName
    fields: Sequence[Mapping[str, Any]]
    row: Callable[[int], Row]
    partitions: Sequence[str] = ()
    index: Index | None = None
    more_indexes: Sequence[Index] = ()
    dynamic: bool = False
    auto_id: bool = False
    description: str = ""
    #: More arguments of create_collection.
    options: Mapping[str, Any] = field(default_factory=dict)

    def create(self, client: MilvusClient, server: MilvusServer) -> None:
        """Create the collection with its partitions and indexes; a schema field is what add_field takes."""
        schema = client.create_schema(auto_id=self.auto_id, enable_dynamic_field=self.dynamic, description=self.description)
        for arguments in self.fields:
            schema.add_field(**arguments)
        client.create_collection(self.name.collection, schema=schema, **self.options)
        for partition in self.partitions:
            client.create_partition(self.name.collection, partition)
        for index in [*([self.index] if self.index else []), *self.more_indexes]:
            server.create_index(self.name, index)

    def insert(self, client: MilvusClient, numbers: Iterable[int], partition: str = "") -> list[Any]:
        """Insert the rows with these numbers and return their primary keys."""
        rows = [self.row(number) for number in numbers]
        return list(client.insert(self.name.collection, rows, partition_name=partition)["ids"])


def index(field_name: str, index_type: str, metric_type: str = "", name: str = "", **params: Any) -> Index:
    """Return an index as CreateIndex takes it."""
    given = {"index_type": index_type, "metric_type": metric_type, **{key: str(value) for key, value in params.items()}}
    return Index(field_name, name or field_name, index_type, {key: value for key, value in given.items() if value})


FLAT = index("vector", "FLAT", "L2")
BIN_FLAT = index("vector", "BIN_FLAT", "HAMMING")


def vector(number: int, dim: int = 4) -> list[float]:
    """Return a vector that no other number has."""
    return [float(number), *(((number * (7 + i)) % 97) / 8 for i in range(1, dim))]


# ---- small collections ---------------------------------------------------------------------------------------------------------


def docs(name: str, database: str = "default", **options: Any) -> Collection:
    """Return a small collection: an integer key, a string, a vector with an index, dynamic fields."""
    return Collection(
        CollectionName(database, name),
        [
            {"field_name": "id", "datatype": DataType.INT64, "is_primary": True},
            {"field_name": "text", "datatype": DataType.VARCHAR, "max_length": 100},
            {"field_name": "vector", "datatype": DataType.FLOAT_VECTOR, "dim": 4},
        ],
        lambda n: {"id": n, "text": f"text {n}", "vector": vector(n), "dynamic": {"n": n}},
        index=FLAT,
        dynamic=True,
        **options,
    )


# ---- every shape ---------------------------------------------------------------------------------------------------------------


def _every_type(number: int) -> Row:
    sign = -1 if number % 2 else 1
    nested = {"n": number, "nothing": None, "deep": [{"list": [1, "two", None, 3.5, {"x": True}]}], "ünï": "çødé ✓"}
    return {
        "id": number - 100,  # negative keys too
        "flag": number % 3 == 0,
        "tiny": number % 256 - 128,
        "short": number * 131 % 65536 - 32768,
        "int": sign * number * 4_000_003 % 2**31,
        "long": sign * (number << 40),
        "single": number / 8,
        "double": number / 7,
        "text": f"{number} " + "日本 ✓" * (number % 5),
        "json": [nested, {"only": None}, {}, {"n": [number]}, {"s": str(number)}][number % 5],
        "longs": [number << 33] * (number % 4),
        "shorts": [number % 1000, -1],
        "names": [f"name {i}" for i in range(number % 3)],
        "flags": [True, False, number % 2 == 0],
        "singles": [number / 4, -0.5],
        "doubles": [number / 3],
        "vector": vector(number, 8),
        **({"extra": number, "nested": {"list": [number, None, {"a": "b"}]}} if number % 2 else {}),
    }


def _array(name: str, element: DataType, **params: Any) -> dict[str, Any]:
    return {"field_name": name, "datatype": DataType.ARRAY, "element_type": element, "max_capacity": 16, **params}


TYPES = Collection(
    CollectionName("default", "zoo_types"),
    [
        {"field_name": "id", "datatype": DataType.INT64, "is_primary": True, "description": "the key"},
        {"field_name": "flag", "datatype": DataType.BOOL},
        {"field_name": "tiny", "datatype": DataType.INT8},
        {"field_name": "short", "datatype": DataType.INT16},
        {"field_name": "int", "datatype": DataType.INT32},
        {"field_name": "long", "datatype": DataType.INT64},
        {"field_name": "single", "datatype": DataType.FLOAT},
        {"field_name": "double", "datatype": DataType.DOUBLE},
        {"field_name": "text", "datatype": DataType.VARCHAR, "max_length": 200, "description": "schöner Text"},
        {"field_name": "json", "datatype": DataType.JSON},
        _array("longs", DataType.INT64),
        _array("shorts", DataType.INT16),
        _array("names", DataType.VARCHAR, max_length=30),
        _array("flags", DataType.BOOL),
        _array("singles", DataType.FLOAT),
        _array("doubles", DataType.DOUBLE),
        {"field_name": "vector", "datatype": DataType.FLOAT_VECTOR, "dim": 8},
    ],
    _every_type,
    partitions=[f"p{i:02}" for i in range(29)],
    index=index("vector", "HNSW", "L2", "by_vector", params='{"M": 8, "efConstruction": 64}'),
    more_indexes=[index("long", "STL_SORT", name="by_long"), index("text", "Trie", name="by_text")],
    dynamic=True,
    description="every type, größer ✓",
    options={"num_shards": 2, "properties": {"collection.ttl.seconds": TTL}, "consistency_level": "Session"},
)
#: The partitions of TYPES that hold rows; the other 25 are empty.
TYPES_FILLED = ["_default", "p00", "p03", "p09", "p28"]

VARCHAR = Collection(
    CollectionName("default", "zoo_varchar"),
    [
        {"field_name": "key", "datatype": DataType.VARCHAR, "max_length": 64, "is_primary": True},
        {"field_name": "vector", "datatype": DataType.BINARY_VECTOR, "dim": 32},
    ],
    lambda n: {"key": f"schlüssel-{n}", "vector": (n * 2_654_435_761 % 2**32).to_bytes(4, "big")},
    index=index("vector", "BIN_IVF_FLAT", "JACCARD", nlist=16),
    options={"consistency_level": "Eventually"},
)
AUTO = Collection(
    CollectionName("default", "zoo_auto"),
    [
        {"field_name": "id", "datatype": DataType.INT64, "is_primary": True},
        {"field_name": "number", "datatype": DataType.INT64},
        {"field_name": "vector", "datatype": DataType.FLOAT_VECTOR, "dim": 4},
    ],
    lambda n: {"number": n, "vector": vector(n)},
    partitions=["loaded", "released"],
    index=index("vector", "IVF_FLAT", "COSINE", nlist=8),
    auto_id=True,
)
TENANTS = 12
PARTITION_KEY = Collection(
    CollectionName("default", "zoo_keyed"),
    [
        {"field_name": "id", "datatype": DataType.INT64, "is_primary": True},
        {"field_name": "tenant", "datatype": DataType.VARCHAR, "max_length": 20, "is_partition_key": True},
        {"field_name": "vector", "datatype": DataType.FLOAT_VECTOR, "dim": 4},
    ],
    lambda n: {"id": n, "tenant": f"tenant {n % TENANTS}", "vector": vector(n)},
    index=FLAT,
    options={"num_partitions": 3},
)
EMPTY = docs("zoo_empty", partitions=["also_empty"])
BARE = Collection(CollectionName("default", "zoo_bare"), docs("").fields, docs("").row, dynamic=True)
DELETED = docs("zoo_deleted")
#: Six segments in one partition and two in the other, each with deletes.
MANY = docs("zoo_many", partitions=["second"], options={"num_shards": 2})
SAME_NAME = Collection(
    CollectionName("zoo_db", "zoo_types"),
    [
        {"field_name": "key", "datatype": DataType.VARCHAR, "max_length": 64, "is_primary": True},
        {"field_name": "vector", "datatype": DataType.FLOAT_VECTOR, "dim": 4},
    ],
    lambda n: {"vector": vector(n)},
    index=FLAT,
    auto_id=True,
)
ZOO = [TYPES, VARCHAR, AUTO, PARTITION_KEY, EMPTY, BARE, DELETED, MANY, SAME_NAME]
ALIASES = {TYPES.name: ["live", "newest"], AUTO.name: ["numbers"]}


def make_zoo(client: Callable[[str], MilvusClient], server: MilvusServer) -> None:
    """Create every shape; in the end all but BARE are loaded, and the last rows, upserts and deletes are not flushed."""
    client("default").create_database(SAME_NAME.name.database)
    for shape in ZOO:
        shape.create(client(shape.name.database), server)
    for name, aliases in ALIASES.items():
        for alias in aliases:
            server.create_alias(name, alias)
    one = client("default")

    def insert(shape: Collection, numbers: Iterable[int], partition: str = "") -> list[Any]:
        return shape.insert(client(shape.name.database), numbers, partition)

    for i, partition in enumerate(TYPES_FILLED):
        insert(TYPES, range(100 * i, 100 * i + 40), partition)
    insert(VARCHAR, range(300))
    autos = insert(AUTO, range(100, 200), "loaded") + insert(AUTO, range(200, 250), "released")
    insert(PARTITION_KEY, range(240))
    insert(MANY, range(100))
    insert(MANY, range(300, 350), "second")
    insert(SAME_NAME, range(60))
    flush(server, [TYPES, VARCHAR, AUTO, PARTITION_KEY, MANY, SAME_NAME])

    insert(TYPES, range(1000, 1040))
    one.delete(TYPES.name.collection, ids=[number - 100 for number in range(0, 40, 7)])
    one.delete(VARCHAR.name.collection, ids=[f"schlüssel-{n}" for n in range(0, 300, 10)])
    one.delete(AUTO.name.collection, ids=autos[::9])
    insert(MANY, range(100, 200))
    one.delete(MANY.name.collection, ids=list(range(0, 100, 5)))
    flush(server, [TYPES, VARCHAR, AUTO, MANY])

    # From here on nothing is flushed before the backup.
    for number in range(3, 15):  # the same keys with other values
        one.upsert(TYPES.name.collection, [{**TYPES.row(number), "text": f"upserted {number}"}])
    one.upsert(TYPES.name.collection, [TYPES.row(5000)], partition_name="p03")
    insert(TYPES, range(2000, 2040))
    one.delete(TYPES.name.collection, ids=[number - 100 for number in range(1000, 1040, 7)])
    insert(BARE, range(40))
    insert(MANY, range(200, 300))
    one.delete(MANY.name.collection, ids=[*range(101, 200, 5), *range(202, 300, 5), 301])
    one.delete(PARTITION_KEY.name.collection, ids=list(range(0, 240, 11)))
    insert(DELETED, range(50))
    one.delete(DELETED.name.collection, ids=list(range(50)))
    load(server, [shape.name for shape in ZOO if shape is not BARE])


# ---- doing several at once -----------------------------------------------------------------------------------------------------


def wait_until(done: Callable[[], object], seconds: float = 300) -> None:
    """Return when ``done`` says so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not done after {seconds} s"
        time.sleep(0.1)


def flush(server: MilvusServer, shapes: Sequence[Collection]) -> None:
    """Flush all of them at the same time: each alone would take three seconds."""
    flushed = {shape.name: server.flush(shape.name) for shape in shapes}
    for name, answer in flushed.items():
        wait_until(lambda name=name, answer=answer: server.flush_done(name, answer))  # type: ignore[misc]


def load(server: MilvusServer, names: Sequence[CollectionName]) -> None:
    """Load all of them completely, at the same time."""
    for name in names:
        states = {server.load_state(name, partition) for _, partition in server.partitions(name)}
        if states != {"Loaded"}:
            server.release_collection(name)
            server.load(name)
    for name in names:
        wait_until(lambda name=name: server.load_state(name) == "Loaded")  # type: ignore[misc]


# ---- reading -------------------------------------------------------------------------------------------------------------------


def contents(client: MilvusClient, collection: str) -> Contents:
    """Return every row of a loaded collection with all its fields, dynamic ones and vectors included."""
    described = client.describe_collection(collection)
    key = next(f["name"] for f in described["fields"] if f.get("is_primary"))
    keyed = any(f.get("is_partition_key") for f in described["fields"])
    partitions = [KEYED] if keyed else client.list_partitions(collection)
    found = {}
    for partition in partitions:
        some = None if partition == KEYED else [partition]
        rows = client.query(collection, filter="", limit=LIMIT, output_fields=["*"], partition_names=some, consistency_level="Strong")
        assert len(rows) < LIMIT
        found[partition] = {row[key]: plain(dict(row)) for row in rows}
        assert len(found[partition]) == len(rows), f"a primary key comes twice in {collection}, partition {partition}"
    return found


def count(found: Contents) -> int:
    """Return the number of rows."""
    return sum(len(rows) for rows in found.values())


def plain(value: Any) -> Any:
    """Return the value made of Python's own types only."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, str | bytes | bool | int | float) or value is None:
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    return [plain(item) for item in value]


def indexes(client: MilvusClient, collection: str) -> dict[str, Row]:
    """Return all indexes by name, without how far they are built."""
    counters = {"total_rows", "indexed_rows", "pending_index_rows", "state"}
    return {
        name: {key: value for key, value in client.describe_index(collection, name).items() if key not in counters}
        for name in client.list_indexes(collection)
    }


def load_states(client: MilvusClient, collection: str) -> dict[str, str]:
    """Return whether the collection (``""``) and each partition is loaded."""
    parts = ["", *client.list_partitions(collection)]
    return {part: client.get_load_state(collection, partition_name=part or None)["state"].name for part in parts}
