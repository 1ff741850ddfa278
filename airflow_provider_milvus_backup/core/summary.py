"""What a run did, as small JSON for XCom and as a table for the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import meta
from .report import duration, size, table

#: Collections listed one by one at most; XCom is not the place for more.
MAX_LISTED = 100

#: By strategy: what is consistent with what.
CONSISTENCY = {
    "flush": "each collection by itself, as of its own flush",
    "flush_all": "all collections with each other, as of one flush",
    "skip_flush": "nothing is promised: what Milvus had flushed by itself",
    "meta_only": "no rows were backed up",
}


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """One collection of a backup."""

    database: str
    name: str
    rows: int
    segments: int
    objects: int
    bytes: int

    @classmethod
    def of(cls, collection: meta.Collection) -> CollectionSummary:
        """Return the summary of a collection's meta."""
        segments = list(collection.segments())
        return cls(
            collection.name.database,
            collection.name.collection,
            collection.rows,
            len(segments),
            collection.snapshot.total_files if collection.snapshot else sum(segment.objects for segment in segments),
            collection.size,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON."""
        return {field: getattr(self, field) for field in self.__slots__}


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """One backup. ``rows`` counts inserted rows; rows deleted later are still in it."""

    name: str
    uri: str
    server_version: str
    strategy: str
    collections: list[CollectionSummary]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON; at most 100 collections are listed one by one."""
        total = self._total
        return {
            "name": self.name,
            "uri": self.uri,
            "server_version": self.server_version,
            "strategy": self.strategy,
            "consistency": self.consistency,
            "collection_count": len(self.collections),
            "collections": [collection.to_dict() for collection in self.collections[:MAX_LISTED]],
            "rows": total.rows,
            "segments": total.segments,
            "objects": total.objects,
            "bytes": total.bytes,
            "seconds": round(self.seconds, 3),
            "bytes_per_second": round(total.bytes / self.seconds) if self.seconds else 0,
        }

    def table(self) -> list[str]:
        """Return the lines of a table of the collections, with a total."""
        listed = [(f"{c.database}.{c.name}", c) for c in self.collections] + [(f"total, in {duration(self.seconds)}", self._total)]
        rows = [[label, f"{c.rows:,}", f"{c.segments:,}", f"{c.objects:,}", size(c.bytes)] for label, c in listed]
        return table(["collection", "rows", "segments", "objects", "size"], rows)

    @property
    def consistency(self) -> str:
        """Return what is consistent with what, in a sentence; see :mod:`.flushing`."""
        return CONSISTENCY.get(self.strategy, "not known, for the backup does not say how it was flushed")

    @property
    def _total(self) -> CollectionSummary:
        def added(field: str) -> int:
            return sum(getattr(collection, field) for collection in self.collections)

        return CollectionSummary("", "total", added("rows"), added("segments"), added("objects"), added("bytes"))
