"""A collection as a backup has it, small and made by hand, for tests of drills."""

from __future__ import annotations

from typing import Any

from airflow_provider_milvus_backup.core import meta
from airflow_provider_milvus_backup.core.names import CollectionName

INDEX = meta.Index("vector", "by_vector", "HNSW", {"index_type": "HNSW", "metric_type": "L2", "M": "8"})


def collection(name: str = "books", database: str = "default", **changes: Any) -> meta.Collection:
    """Return a loaded collection of an integer key, a year, and an indexed vector of two dimensions."""
    fields: list[dict[str, Any]] = [
        {"fieldID": 100, "name": "id", "is_primary_key": True, "data_type": 5},
        {"fieldID": 101, "name": "year", "data_type": 5},
        {"fieldID": 102, "name": "vector", "data_type": 101, "type_params": [{"key": "dim", "value": "2"}]},
    ]
    given: dict[str, Any] = {
        "collection_id": 7,
        "name": CollectionName(database, name),
        "schema": {"name": name, "fields": fields},
        "shards": 1,
        "consistency_level": 2,
        "partitions": [meta.Partition(8, "_default", [], "Loaded")],
        "indexes": [INDEX],
        "load_state": "Loaded",
    }
    return meta.Collection(**{**given, **changes})


def backup(*collections: meta.Collection) -> meta.Backup:
    """Return a backup of these collections."""
    return meta.Backup("an-id", "nightly", "v2.5.10", list(collections))
