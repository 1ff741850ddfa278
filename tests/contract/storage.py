"""Rows, segments and their files: what DataNode and DataCoord do between an insert and a listing.

Keys: ``internal/metastore/kv/binlog`` of milvus-io/milvus; column groups: ``internal/storagecommon/column_group_splitter.go``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import schemas
from .binlogs import Column, Delete, column_group, delta_log, insert_log
from .catalog import Catalog
from .refusals import Refusal, invalid, unexpected
from .state import (
    ALL_PARTITIONS,
    DEFAULT_PARTITION,
    DROPPED,
    FLUSHED,
    FLUSHING,
    GROWING,
    L0,
    L1,
    SEALED,
    Collection,
    Name,
    Partition,
    Pending,
    Row,
    Segment,
)


class Storage(Catalog):
    """Everything that has rows."""

    # ---- writing -----------------------------------------------------------------------------------------------------------

    def insert(self, name: Name, rows: Iterable[Mapping[str, Any]], partition: str = "") -> list[Any]:
        """Insert rows and return their primary keys; with a partition key they find their partition themselves."""
        with self.lock:
            collection = self._settled(name)
            ts = self.next_ts()
            return [self._insert(collection, row, partition, ts) for row in rows]

    def delete(self, name: Name, pks: Iterable[Any], partition: str = "") -> None:
        """Delete by primary key, in all partitions unless one is named."""
        with self.lock:
            collection = self._settled(name)
            where = self.partition(collection, partition).id if partition else ALL_PARTITIONS
            ts = self.next_ts()
            for pk in pks:
                self._delete(collection, Delete(pk, ts), where)

    def upsert(self, name: Name, rows: Iterable[Mapping[str, Any]], partition: str = "") -> list[Any]:
        """Delete and insert with one timestamp: the delete spares the row that comes with it.

        With a partition key the old row may be in any partition (``internal/proxy/task_upsert.go``).
        """
        with self.lock:
            collection = self._settled(name)
            key = schemas.primary_key(collection.schema)
            if key.autoID:
                raise invalid("upsert can not assign primary field data when auto id enabled")
            keyed = schemas.partition_key(collection.schema) is not None
            where = ALL_PARTITIONS if keyed else self.partition(collection, partition or DEFAULT_PARTITION).id
            ts, pks = self.next_ts(), []
            for row in rows:
                self._delete(collection, Delete(row[key.name], ts), where)
                pks.append(self._insert(collection, row, partition, ts))
            return pks

    def _insert(self, collection: Collection, row: Mapping[str, Any], partition: str, ts: int) -> Any:
        if collection.external:
            raise invalid("insert operation is not supported for external collection")
        key = schemas.primary_key(collection.schema)
        row_id = self.next_id()
        if key.autoID:
            if key.name in row:
                raise invalid(f"more fieldData has pass in, the primary field {key.name} is auto id")
            row = {**row, key.name: row_id if key.data_type == schemas.INT64 else str(row_id)}
        values = schemas.to_values(collection.schema, row)
        pk = values[key.fieldID]
        if not isinstance(pk, int if key.data_type == schemas.INT64 else str):
            raise invalid(f"the primary key {pk!r} has another type than field {key.name}")
        where = self._partition_of(collection, values, partition)
        self._growing(collection, collection.vchannel_of(pk), where.id).rows.append(Row(pk, ts, row_id, values))
        return pk

    def _partition_of(self, collection: Collection, values: Mapping[int, Any], partition: str) -> Partition:
        key = schemas.partition_key(collection.schema)
        if key is None:
            return self.partition(collection, partition or DEFAULT_PARTITION)
        if partition:
            raise unexpected("not support manually specifying the partition names if partition key mode is used")
        return collection.partitions[sum(repr(values[key.fieldID]).encode()) % len(collection.partitions)]

    def _growing(self, collection: Collection, vchannel: str, partition: int) -> Segment:
        for segment in collection.segments:
            if (segment.state, segment.vchannel, segment.partition_id) == (GROWING, vchannel, partition):
                return segment
        segment = Segment(self.next_id(), partition, vchannel, L1, GROWING, self.profile.storage_version)
        collection.segments.append(segment)
        return segment

    @staticmethod
    def _delete(collection: Collection, delete: Delete, partition: int) -> None:
        collection.deletes.setdefault((collection.vchannel_of(delete.pk), partition), []).append(delete)

    # ---- flushing ----------------------------------------------------------------------------------------------------------

    def begin_flush(self, name: Name) -> Pending:
        """Seal what is growing; its files are written :attr:`flush_seconds` later."""
        with self.lock:
            collection = self._settled(name)
            sealed = [segment for segment in collection.segments if segment.state == GROWING]
            for segment in sealed:
                segment.state = SEALED
            for (vchannel, partition), deletes in sorted(collection.deletes.items()):
                l0 = Segment(self.next_id(), partition, vchannel, L0, SEALED, 0)
                l0.deletes = deletes
                collection.segments.append(l0)
                sealed.append(l0)
            collection.deletes = {}
            pending = Pending(self.monotonic() + self.flush_seconds, self.next_ts(), sealed)
            collection.pending.append(pending)
            return pending

    def flush(self, name: Name) -> list[Segment]:
        """Flush and return the segments that came of it, their files written."""
        with self.lock:
            pending = self.begin_flush(name)
            pending.due = self.monotonic()
            self._settled(name)
            return pending.segments

    def _settled(self, name: Name) -> Collection:
        """Return a collection after writing the files of flushes whose time has come."""
        collection = self.collection(name)
        while collection.pending and collection.pending[0].due <= self.monotonic():
            pending = collection.pending.pop(0)
            for segment in pending.segments:
                self.write_segment(collection, segment)
                segment.state = FLUSHED
            collection.checkpoint = max(collection.checkpoint, pending.flush_ts)
        return collection

    def flushed(self, name: Name, segment_ids: Sequence[int], flush_ts: int) -> bool:
        """Return what GetFlushState does: all segments flushed or gone, and all channels past ``flush_ts``."""
        with self.lock:
            collection = self._settled(name)
            open_ones = {segment.id for segment in collection.segments if segment.state in (GROWING, SEALED)}
            return not open_ones & set(segment_ids) and collection.checkpoint >= flush_ts

    # ---- files -------------------------------------------------------------------------------------------------------------

    def write_segment(self, collection: Collection, segment: Segment) -> None:
        """Write the files of a segment."""
        for start in range(0, len(segment.rows), self.rows_per_log):
            part = segment.rows[start : start + self.rows_per_log]
            for directory, content in self._insert_files(collection, segment, part):
                log = self.next_id()
                segment.insert_logs.setdefault(directory, []).append(log)
                self.bucket.put(self.insert_key(collection, segment, directory, log), content)
        if segment.deletes:
            self.write_deltas(collection, segment, segment.deletes)

    def write_deltas(self, collection: Collection, segment: Segment, deletes: Sequence[Delete]) -> None:
        """Write one more delta log of a segment."""
        log = self.next_id()
        segment.delta_logs.append(log)
        self.bucket.put(self.key("delta_log", collection.id, segment.partition_id, segment.id, log), delta_log(deletes))

    def insert_key(self, collection: Collection, segment: Segment, directory: int, log: int) -> str:
        """Return the key of one insert log; ``directory`` is a field, or a column group."""
        return self.key("insert_log", collection.id, segment.partition_id, segment.id, directory, log)

    @staticmethod
    def _insert_files(collection: Collection, segment: Segment, rows: Sequence[Row]) -> Iterable[tuple[int, bytes]]:
        columns = [
            Column(schemas.ROW_ID, schemas.INT64, "", [row.row_id for row in rows]),
            Column(schemas.TIMESTAMP, schemas.INT64, "", [row.ts for row in rows]),
        ]
        columns += [
            Column(field.fieldID, field.data_type, schemas.dim(field), [row.values.get(field.fieldID) for row in rows])
            for field in schemas.all_fields(collection.schema)
        ]
        if segment.storage_version == 1:
            return [(column.field_id, insert_log(column)) for column in columns]
        wide = [column for column in columns if column.data_type in schemas.VECTORS]
        short = [column for column in columns if column.data_type not in schemas.VECTORS]
        return [(0, column_group(short)), *((column.field_id, column_group([column])) for column in wide)]

    # ---- looking -----------------------------------------------------------------------------------------------------------

    def listed(self, name: Name) -> list[Segment]:
        """Return the segments that GetPersistentSegmentInfo lists: sealed, flushing and flushed ones, L0 too; also importing ones."""
        with self.lock:
            return [
                segment
                for segment in self._settled(name).segments
                if (segment.state in (FLUSHING, FLUSHED) or (segment.state == SEALED and segment.level != L0))
                and (self.profile.lists_importing or not segment.importing)
                and not (self.profile.clustered_once and segment.unindexed)
            ]

    def segment(self, number: int) -> tuple[Collection, Segment]:
        """Return a segment of any collection, dropped ones included."""
        with self.lock:
            for database in self.databases.values():
                for collection in database.collections.values():
                    for segment in self._settled(collection.full_name).segments:
                        if segment.id == number:
                            return collection, segment
        raise Refusal(600, f"segment not found[segment={number}]")

    def described_delta_logs(self, collection: Collection, segment: Segment) -> list[int]:
        """Return the delta logs a describe reports: those of a dropped segment's children are among them, although their files are not
        in its directory (``internal/datacoord/services.go``, GetSegmentInfo).
        """
        logs = list(segment.delta_logs)
        if segment.state == DROPPED:
            for child in collection.segments:
                if segment.id in child.compaction_from:
                    logs += self.described_delta_logs(collection, child)
        return logs

    def live(self, name: Name) -> list[tuple[str, Row]]:
        """Return (partition, row) of every copy of a row that a query would see."""
        with self.lock:
            collection = self._settled(name)
            deleted: dict[Any, list[tuple[int, int]]] = {}
            for segment in collection.segments:
                if segment.level == L0 and segment.state in (SEALED, FLUSHED) and not segment.importing:
                    for delete in segment.deletes:
                        deleted.setdefault(delete.pk, []).append((segment.partition_id, delete.ts))
            for (_, partition), deletes in collection.deletes.items():
                for delete in deletes:
                    deleted.setdefault(delete.pk, []).append((partition, delete.ts))
            names = {partition.id: partition.name for partition in collection.partitions}
            expired = self._expired_before(collection)
            found = []
            for segment in collection.segments:
                if segment.state == DROPPED or segment.importing or segment.unindexed or segment.level == L0:
                    continue
                own: dict[Any, int] = {}
                for delete in segment.deletes:
                    own[delete.pk] = max(delete.ts, own.get(delete.pk, 0))
                for row in segment.rows:
                    ts = segment.ts(row)
                    gone = own.get(row.pk, 0) > ts or any(
                        until > ts for where, until in deleted.get(row.pk, ()) if where in (ALL_PARTITIONS, segment.partition_id)
                    )
                    if not gone and ts >= expired:
                        found.append((names[segment.partition_id], row))
            return found

    def _expired_before(self, collection: Collection) -> int:
        seconds = int(collection.properties.get("collection.ttl.seconds", 0))
        return int((self.clock() - seconds) * 1000) << 18 if seconds > 0 else 0

    def rows(self, name: Name) -> dict[str, dict[Any, dict[str, Any]]]:
        """Return what a query would see: {partition: {primary key: row}}; of several copies the newest."""
        schema = self.collection(name).schema
        found: dict[str, dict[Any, dict[str, Any]]] = {partition.name: {} for partition in self.collection(name).partitions}
        for partition, row in sorted(self.live(name), key=lambda pair: pair[1].ts):
            found[partition][row.pk] = schemas.to_row(schema, row.values)
        return found

    def copies(self, name: Name) -> Counter[Any]:
        """Return how many copies of each primary key ``count(*)`` would count: more than one is a row that was imported twice."""
        return Counter(row.pk for _, row in self.live(name))

    def row_count(self, name: Name) -> int:
        """Return what ``count(*)`` would."""
        return len(self.live(name))
