"""What happens to segments behind a backup's back, and what else may lie in a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import schemas
from .binlogs import Column, column_group, insert_log
from .state import ALL_PARTITIONS, DEFAULT_PARTITION, DROPPED, FLUSHED, FLUSHING, L0, L1, L2, Collection, Name, Row, Segment
from .storage import Storage


class Compaction(Storage):
    """Compactions, and helpers to put into a model what only a long-running Milvus would have."""

    # ---- compaction --------------------------------------------------------------------------------------------------------

    def compact(self, name: Name) -> list[Segment]:
        """Merge the data segments of each channel and partition into one and return the new ones; the parents' files stay until the GC."""
        with self.lock:
            collection = self._settled(name)
            groups: dict[tuple[str, int], list[Segment]] = {}
            for segment in self._data(collection):
                groups.setdefault((segment.vchannel, segment.partition_id), []).append(segment)
            children = []
            for (vchannel, partition), parents in sorted(groups.items()):
                child = Segment(self.next_id(), partition, vchannel, L1, FLUSHED, self.profile.storage_version, sorted=True)
                child.compaction_from = [parent.id for parent in parents]
                for parent in parents:
                    deleted = {delete.pk: delete.ts for delete in sorted(parent.deletes, key=lambda delete: delete.ts)}
                    # A merge makes the timestamp a row counts with its own (3.0: internal/datanode/compactor).
                    child.rows += [
                        Row(row.pk, parent.ts(row), row.row_id, row.values)
                        for row in parent.rows
                        if deleted.get(row.pk, 0) <= parent.ts(row)
                    ]
                    parent.state = DROPPED
                self.write_segment(collection, child)
                children.append(child)
            collection.segments += children
            return children

    def compact_l0(self, name: Name) -> None:
        """Write the deletes of all L0 segments into delta logs of the data segments that have such keys, and drop the L0 segments."""
        with self.lock:
            collection = self._settled(name)
            for l0 in [segment for segment in collection.segments if segment.level == L0 and segment.state == FLUSHED]:
                for segment in self._data(collection):
                    if segment.vchannel != l0.vchannel or l0.partition_id not in (ALL_PARTITIONS, segment.partition_id):
                        continue
                    pks = {row.pk for row in segment.rows}
                    if deletes := [delete for delete in l0.deletes if delete.pk in pks]:
                        segment.deletes += deletes
                        self.write_deltas(collection, segment, deletes)
                l0.state = DROPPED

    def begin_clustering(self, name: Name) -> Segment:
        """Let a clustering compaction of everything wait for the index of what it has made, and return that."""
        with self.lock:
            collection = self._settled(name)
            parents = self._data(collection)
            rows = [row for parent in parents for row in parent.rows]
            made = Segment(self.next_id(), parents[0].partition_id, parents[0].vchannel, L2, FLUSHED, self.profile.storage_version, rows)
            made.compaction_from, made.unindexed = [parent.id for parent in parents], True
            if not self.profile.clustered_once:
                for parent in parents:
                    parent.level = L2
            self.write_segment(collection, made)
            collection.segments.append(made)
            return made

    def collect_garbage(self, name: Name) -> None:
        """Delete the files of dropped segments, as the GC does once ``dropTolerance`` is over, and forget them."""
        with self.lock:
            collection = self._settled(name)
            for segment in [segment for segment in collection.segments if segment.state == DROPPED]:
                for kind in ("insert_log", "delta_log"):
                    for key in self.bucket.list(self.key(kind, collection.id, segment.partition_id, segment.id) + "/"):
                        self.bucket.delete(key)
                collection.segments.remove(segment)

    def _data(self, collection: Collection) -> list[Segment]:
        found = [s for s in collection.segments if s.level != L0 and s.state == FLUSHED and s.storage_version < 3]
        return [segment for segment in found if not (segment.importing or segment.unindexed)]

    # ---- planting ----------------------------------------------------------------------------------------------------------

    def plant_stray_log(self, segment_id: int, directory: int) -> str:
        """Put a log that no meta names into a directory of a segment, as a sync that was repeated leaves it, and return its key."""
        with self.lock:
            collection, segment = self.segment(segment_id)
            log = self.next_id()
            column = Column(directory, schemas.INT64, "", [0])
            content = insert_log(column) if segment.storage_version == 1 else column_group([column])
            key = self.insert_key(collection, segment, directory, log)
            self.bucket.put(key, content)
            return key

    def plant_importing(self, name: Name, rows: Iterable[Mapping[str, Any]], partition: str = DEFAULT_PARTITION) -> Segment:
        """Put a segment there whose import is not complete: no query sees it, and it is listed."""
        segment = self._planted(name, rows, partition)
        segment.importing = True
        self.write_segment(self.collection(name), segment)
        return segment

    def plant_flushing(self, segment: Segment) -> None:
        """Let a segment be as it is until a loop of DataCoord gets to it: its files are there, and GetFlushState counts it as flushed."""
        with self.lock:
            assert segment.state == FLUSHED
            segment.state = FLUSHING

    def plant_v3(self, name: Name, rows: Iterable[Mapping[str, Any]], partition: str = DEFAULT_PARTITION) -> Segment:
        """Put a segment of storage version 3 there: its data lies behind a manifest, not in directories of fields."""
        segment = self._planted(name, rows, partition)
        segment.storage_version = 3
        base = self.key("insert_log", self.collection(name).id, segment.partition_id, segment.id)
        self.bucket.put(f"{base}/_metadata/manifest-1.avro", b"Obj\1")
        self.bucket.put(f"{base}/_data/0_{self.next_id()}.parquet", column_group([Column(0, schemas.INT64, "", [])]))
        return segment

    def plant_empty(self, name: Name, partition: str = DEFAULT_PARTITION) -> Segment:
        """Put a flushed segment without rows and files there, as deletes and TTL leave it."""
        return self._planted(name, [], partition)

    def _planted(self, name: Name, rows: Iterable[Mapping[str, Any]], partition: str) -> Segment:
        with self.lock:
            collection = self._settled(name)
            number = self.partition(collection, partition).id
            segment = Segment(self.next_id(), number, collection.vchannels[0], L1, FLUSHED, self.profile.storage_version)
            key, ts = schemas.primary_key(collection.schema), self.next_ts()
            for row in rows:
                values = schemas.to_values(collection.schema, row)
                segment.rows.append(Row(values[key.fieldID], ts, self.next_id(), values))
            collection.segments.append(segment)
            return segment
