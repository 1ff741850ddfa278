"""The golden backups that Milvus 2.3.5 can hold come back row by row: their meta as it stands, with real binlogs under their keys.

``0.5.4`` and ``0.5.10`` keep the deletes of ``docs`` in L0 segments, of all partitions and of one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.golden_backups.expected import EXPECTED, GOLDEN, LOST_L0
from tests.golden_backups.shapes import DOCS, B
from tests.integration import data
from tests.integration.clusters import Cluster, admin, listing
from tests.official_backups import go_json

TREES = ["0.4.0", "0.4.0-groups", "0.4.26", "0.5.0", "0.5.4", "0.5.10", "head-levels-only"]
#: Their fields have the ids of ``docs`` in the trees; with one channel a flush makes one segment of each partition. Three of them, for
#: ``docs`` has up to three segments in a partition, and three collections are flushed in the time of one.
SOURCES = [data.docs(f"golden_source_{i}", partitions=["second"], options={"num_shards": 1}) for i in range(3)]
#: The segments of the trees by the last digits of their ids: the source, its partition, and the rows.
SEGMENTS = {
    201: (0, "_default", range(40)),
    202: (1, "_default", range(40, 80)),
    203: (2, "_default", range(80, 100)),
    211: (0, "second", range(300, 320)),
}
#: Deleted out of the first segment.
DELETED = (7, 14, 21)
#: What a golden object stands for: the last digits of its segment's id, and its field; None for a delta log.
Place = tuple[int, int | None]


def target(tree: str) -> CollectionName:
    return CollectionName("default", f"from_{EXPECTED[tree].name}")


def rows(tree: str) -> data.Contents:
    """What must come back of the segments that a tree holds."""
    found: data.Contents = {"_default": {}, "second": {}}
    for partition in EXPECTED[tree].collections[0].partitions:
        for segment in (one for one in partition.segments if not one.is_l0):
            _, name, numbers = SEGMENTS[segment.segment_id - B]
            found[name] |= {number: SOURCES[0].row(number) for number in numbers if number not in DELETED}
    return found


@pytest.fixture(scope="module")
def source(a: Cluster) -> dict[Place, tuple[str, int]]:
    """Key and size, in Milvus A's bucket, of what each golden object of ``docs`` stands for."""
    for one in SOURCES:
        a.create(one)
    for i, partition, numbers in SEGMENTS.values():
        SOURCES[i].insert(a.client(), numbers, partition)
    a.client().delete(SOURCES[0].name.collection, ids=list(DELETED))
    data.flush(a.server, SOURCES)
    root, found = a.milvus.root_path, {}
    for number, (i, partition, _) in SEGMENTS.items():
        [partition_id] = [id_ for id_, name in a.server.partitions(SOURCES[i].name) if name == partition]
        for kind in (layout.INSERT, layout.DELTA):
            below = f"{root}/{kind}/{a.server.describe(SOURCES[i].name).collectionID}/{partition_id}/"
            for key, (size, _) in listing(a.s3, a.milvus.bucket, below).items():
                field = int(key.split("/")[-2]) if kind == layout.INSERT else None
                assert (number, field) not in found
                found[number, field] = key, size
    assert found.keys() == {*((number, field) for number in SEGMENTS for field in (0, 1, 100, 101, 102, 103)), (201, None)}
    return found


def place_of(path: Path) -> Place | None:
    """Return what an object of a tree stands for; None for what is not of ``docs``."""
    kind, collection, *steps = path.parts
    if int(collection) != DOCS:
        return None
    # Deletes are those of the first segment, in whichever segment a tree keeps them.
    return (int(steps[-3]) - B, int(steps[-2])) if kind == layout.INSERT else (201, None)


def dicts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from dicts(child)


def resize(documents: dict[str, Any], sizes: dict[int, int]) -> None:
    """Give the logs with these ids these sizes, and what holds them the sums; nothing else changes."""
    grown: Counter[int] = Counter()
    for segment in {node["segment_id"]: node for node in dicts(documents) if "segment_id" in node}.values():
        counted_in = [segment[key] for key in ("partition_id", "collection_id") if segment["partition_id"] != layout.ALL_PARTITIONS]
        for log in (node for node in dicts(segment) if "log_path" in node):
            more = sizes.get(log_id(log), log["log_size"]) - log["log_size"]
            grown.update(dict.fromkeys((segment["segment_id"], *counted_in, *([0] if counted_in else [])), more))
    for node in dicts(documents):
        if "log_path" in node:
            node["log_size"] = sizes.get(log_id(node), node["log_size"])
        elif "size" in node:
            node["size"] += grown[node.get("segment_id") or node.get("partition_id") or node.get("collection_id") or 0]


def log_id(log: dict[str, Any]) -> int:
    return int(log["log_path"].rpartition("/")[2])


def place(a: Cluster, tree: str, source: dict[Place, tuple[str, int]]) -> str:
    """Put a tree into the bucket of the backups under its name, with real objects instead of the placeholders of ``docs``."""
    client, bucket, name, root = admin(a.s3), a.backups.bucket, EXPECTED[tree].name, GOLDEN / tree
    prefix, sizes = f"{a.backups.root_path}/{name}", {}
    for path in (path for path in (root / "binlogs").rglob("*") if path.is_file()):
        key = f"{prefix}/{path.relative_to(root).as_posix()}"
        if stands_for := place_of(path.relative_to(root / "binlogs")):
            real, sizes[int(path.name)] = source[stands_for]
            client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": a.milvus.bucket, "Key": real})
        else:
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    documents = {path.name: json.loads(path.read_bytes()) for path in (root / "meta").iterdir()}
    resize(documents, sizes)
    for file, document in documents.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/meta/{file}", Body=go_json(document))
    return name


@pytest.fixture(scope="module")
def restored(a: Cluster, source: dict[Place, tuple[str, int]]) -> dict[str, dict[str, Any]]:
    """The summaries of all restores."""
    names = {tree: place(a, tree, source) for tree in TREES}
    # Most were taken from a newer Milvus than this one; what they hold of ``docs`` has not changed since.
    found = a.restore_all(
        {
            name: RestoreOptions("docs", rename={"docs": target(tree).collection}, load="never", allow_downgrade=True)
            for tree, name in names.items()
        }
    )
    data.load(a.server, [target(tree) for tree in TREES])
    return {tree: found[name] for tree, name in names.items()}


@pytest.mark.parametrize("tree", TREES)
def test_every_row_of_a_golden_backup_comes_back_once(a: Cluster, restored: dict[str, dict[str, Any]], tree: str) -> None:
    assert a.contents(target(tree), load=False) == rows(tree)
    # Rows that came twice would hide behind their primary keys.
    assert restored[tree]["rows"] == data.count(rows(tree))


@pytest.mark.parametrize("tree", TREES)
def test_schema_and_index_of_a_golden_backup_come_back(a: Cluster, restored: dict[str, dict[str, Any]], tree: str) -> None:
    found = a.server.describe(target(tree))
    fields = [(field.fieldID, field.name, field.data_type) for field in found.schema.fields]
    assert fields == [(100, "id", 5), (101, "text", 21), (102, "vector", 101)]
    assert found.schema.enable_dynamic_field
    text = "n/a" if tree in ("0.4.26", "0.5.4", "0.5.10") else ""
    assert found.schema.fields[1].default_value.string_data == text
    [index] = a.server.indexes(target(tree))
    assert (index.field_name, index.index_name, index.index_type, index.params["metric_type"]) == ("vector", "vector", "HNSW", "L2")


def test_what_the_level_files_may_lack_is_said(a: Cluster, restored: dict[str, dict[str, Any]]) -> None:
    assert any(LOST_L0 in line for line in a.log.lines)
