"""What Milvus holds and what its bucket holds of it, as the meta of a backup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from . import layout, meta, schema
from .capabilities import Capability
from .doors import Door, open_door
from .errors import AuthError, BackupError, ConfigError, ServerUnreachable, SourceChanged, UnsupportedFormat, UnsupportedServer
from .names import CollectionName, restore_of, select
from .patience import Patience
from .plan import META_ONLY, BackupPlan, pair
from .raw_schema import is_external
from .report import Reporter, counted
from .restore_plan import NEWEST_STORAGE
from .segment_logs import NamedLogs, named_logs
from .server import Flushed, MilvusServer, ServerSegment
from .settings import Settings
from .store import ObjectStore, StoredObject

#: How often segments are listed again when the objects in the bucket do not belong to them.
LISTINGS = 8


@dataclass(slots=True)
class Survey:
    """Looks at one Milvus and the bucket where it keeps its data."""

    settings: Settings
    server: MilvusServer
    source: ObjectStore
    reporter: Reporter
    patience: Patience
    _door: Door | None = field(default=None, init=False)
    #: Collections of which it is not known whether rows are imported into them.
    _unasked: set[CollectionName] = field(default_factory=set, init=False)

    def check_places(self, backups: ObjectStore) -> None:
        """Raise ConfigError where Milvus's garbage collector would take backups for data of its own that it has forgotten."""
        source, destination = self.source.location, backups.location
        if (source.bucket, self.source.endpoint) != (destination.bucket, backups.endpoint):
            return
        if layout.join(source.root_path, "x") == layout.join(destination.root_path, "x") or destination.root_path.startswith(
            f"{source.root_path}/" if source.root_path else "insert_log"
        ):
            raise ConfigError(
                f"backup_root_path {destination.root_path!r} lies inside Milvus's own root path {source.root_path!r} of bucket "
                f"{source.bucket!r}, where Milvus's garbage collector would remove the backup; choose another backup_root_path"
            )

    def choose(self, patterns: Sequence[str]) -> list[CollectionName]:
        """Return the selected collections; raises ConfigError when there are none, or a pattern picks none."""
        available = [CollectionName(d, c) for d in self.server.databases() for c in self.server.collections(d)]
        chosen = select(available, patterns, self.settings.milvus.database)
        unfinished = [name for name in chosen if restore_of(name) and not {str(name), name.collection} & set(patterns)]
        if unfinished:
            self.reporter.line(f"left out, because a restore is building them: {', '.join(map(str, unfinished[:5]))}")
            chosen = [name for name in chosen if name not in unfinished]
        if not chosen:
            raise ConfigError(f"Milvus at {self.settings.milvus} has no collections to back up")
        self.reporter.line(
            f"Milvus {self.server.version} at {self.settings.milvus}: {len(chosen)} of {counted(len(available), 'collection')}"
        )
        return chosen

    def describe(self, chosen: Sequence[CollectionName]) -> dict[CollectionName, Any]:
        """Return what DescribeCollection says of each collection that has data of its own in Milvus."""
        described = {collection: self.server.describe(collection) for collection in chosen}
        if external := [collection for collection, found in described.items() if is_external(found)]:
            self.reporter.line(f"left out, because their data is not in Milvus (external collections): {', '.join(map(str, external[:5]))}")
        if len(external) == len(described):
            raise ConfigError(
                f"all that was selected are external collections, whose data is not in Milvus: {', '.join(map(str, external[:5]))}"
            )
        return {collection: found for collection, found in described.items() if collection not in external}

    def collection(self, name: CollectionName, described: Any, flushed: Flushed | None, strategy: str) -> meta.Collection:
        """Return the meta of one collection; its segments are those of this moment.

        :param described: DescribeCollectionResponse from before the flush
        :raises SourceChanged: what Milvus reports and what the bucket holds kept differing, as while segments are compacted
        """
        document = schema.from_proto(described.schema)
        properties = [(pair.key, pair.value) for pair in described.properties]
        properties += [p for p in ((pair["key"], pair["value"]) for pair in document.get("properties", [])) if p not in properties]
        load_state = self.server.load_state(name)
        partitions, segments = self._partitions_and_segments(name, described, strategy)
        self._refuse_another(name, described)
        return meta.Collection(
            collection_id=described.collectionID,
            name=name,
            schema={**document, "properties": [{"key": key, "value": value} for key, value in properties]},
            shards=described.shards_num,
            consistency_level=described.consistency_level,
            partitions=[
                meta.Partition(
                    partition_id,
                    partition,
                    [segment for segment in segments if segment.partition_id == partition_id],
                    # Partitions can be loaded one by one; Milvus then calls the collection loaded as well.
                    "NotLoad" if load_state == "NotLoad" else self.server.load_state(name, partition),
                )
                for partition_id, partition in partitions
            ],
            l0_segments=[segment for segment in segments if segment.partition_id == layout.ALL_PARTITIONS],
            indexes=self.server.indexes(name),
            load_state=load_state,
            properties=properties,
            aliases=sorted(described.aliases),
            database_id=described.db_id,
            created_timestamp=described.created_timestamp,
            virtual_channels=list(described.virtual_channel_names),
            physical_channels=list(described.physical_channel_names),
            backup_timestamp=flushed.flush_ts if flushed else 0,
            backup_physical_timestamp=flushed.seal_time if flushed else 0,
            channel_checkpoints=flushed.channel_checkpoints if flushed else {},
        )

    def _refuse_another(self, name: CollectionName, described: Any) -> None:
        """Raise BackupError when the collection of this name is another one now, and SourceChanged when its fields are others.

        Its segments may then hold columns of which the backup knows nothing, and which Milvus would leave out when it imports them.
        """
        now = self.server.describe(name)
        if now.collectionID != described.collectionID:
            raise BackupError(f"{name} was dropped and created again while it was backed up; start a new backup")
        found, known = now.schema, described.schema
        if (found.fields, found.struct_array_fields) != (known.fields, known.struct_array_fields):
            raise SourceChanged(
                f"the schema of {name} was changed while it was backed up; segments may hold columns that the backup would not know. "
                "Let it be, and back up again"
            )

    def holds(self, collection: meta.Collection) -> bool:
        """Return whether the bucket still holds every object that was planned for a collection."""
        root, cid = self.source.location.root_path, collection.collection_id
        there = {item.key for kind in (layout.INSERT, layout.DELTA) for item in self.source.objects(layout.source_dir(root, kind, cid))}
        alone = BackupPlan(meta.Backup("", "", "", [collection]), "", root, "")
        return all(copy.source in there for copy in alone.copies())

    def _partitions_and_segments(
        self, name: CollectionName, described: Any, strategy: str
    ) -> tuple[list[tuple[int, str]], list[meta.Segment]]:
        for listing in range(1, LISTINGS + 1):
            try:
                partitions = self.server.partitions(name)
                segments = [] if strategy == META_ONLY else self._segments(name, described)
                known = {partition_id for partition_id, _ in partitions} | {layout.ALL_PARTITIONS}
                if lost := sorted({segment.partition_id for segment in segments} - known):
                    raise SourceChanged(
                        f"{name} has segments in partitions {lost} that Milvus no longer lists; a partition was just dropped or created"
                    )
                return partitions, segments
            except SourceChanged as error:
                self._refuse_another(name, described)
                if listing == LISTINGS:
                    raise
                self.reporter.warn(f"{error}; looking again")
                self.patience.pause(0.5 * listing, f"looking at the segments of {name}")
        raise AssertionError("unreachable: the last listing returns or raises")

    def _segments(self, name: CollectionName, described: Any) -> list[meta.Segment]:
        root, collection_id = self.source.location.root_path, described.collectionID
        self._refuse_running_imports(name)
        named_by_milvus = self.server.can(Capability.SEGMENTS_DESCRIBE)
        before = set() if named_by_milvus else {item.key for item in self._deltas(collection_id)}
        reported = self.server.segments(name)
        if not reported:
            return []
        if newer := [segment for segment in reported if segment.storage_version > NEWEST_STORAGE]:
            raise UnsupportedFormat(
                f"{name} has segments in storage version {newer[0].storage_version}, whose data lies behind manifests that a copy of "
                "binlogs would miss; ask for format='snapshot', or leave this collection out"
            )
        named = self._named(name, collection_id, [segment.segment_id for segment in reported])
        if named_by_milvus and named is None:
            return self._segments(name, described)
        deltas = list(self._deltas(collection_id))
        self._refuse_newer_deletes(name, reported, [item.key for item in deltas if item.key not in before] if named is None else None)
        inserts = self.source.objects(layout.source_dir(root, layout.INSERT, collection_id))
        first = list(islice(inserts, 1))  # not all in one list: there may be millions
        if not first and any(segment.rows for segment in reported):
            if self.server.segments(name) != reported:
                raise SourceChanged(f"the segments of {name} changed while they were looked at")
            raise ConfigError(
                f"Milvus reports {len(reported)} segments of {name}, but {self.source.location} holds no object below "
                f"{layout.source_dir(root, layout.INSERT, collection_id)!r}: correct bucket_name {self.source.location.bucket!r} or "
                f"root_path {root!r} of {self.settings.milvus.label or 'the Milvus connection'}"
            )
        paired = pair(reported, chain(first, inserts), deltas, root, named, levels=self.server.can(Capability.SEGMENT_LEVEL))
        self._refuse_running_imports(name)
        self._warn_of_clustering(name, described, reported)
        return paired

    def _warn_of_clustering(self, name: CollectionName, described: Any, reported: list[ServerSegment]) -> None:
        """Warn where segments of a clustering compaction may be listed beside those that they are about to replace.

        2.4 does so until they are indexed, and has marked both alike before (``internal/datacoord/compaction_task_clustering.go``).
        """
        if self.server.can(Capability.CLUSTERED_ONCE) or not any(field.is_clustering_key for field in described.schema.fields):
            return
        marked = not self.server.can(Capability.SEGMENT_LEVEL) or any(segment.clustered for segment in reported)
        if marked and self.server.unindexed_rows(name):
            self.reporter.warn(
                f"rows of {name} may be in this backup twice: Milvus {self.server.version} lists what a clustering compaction has made "
                "beside what it was made of, and one may be running. Back up again when none is"
            )

    def _deltas(self, collection_id: int) -> Iterator[StoredObject]:
        return self.source.objects(layout.source_dir(self.source.location.root_path, layout.DELTA, collection_id))

    def _refuse_newer_deletes(self, name: CollectionName, reported: list[ServerSegment], added: list[str] | None) -> None:
        """Raise SourceChanged when a segment may have got deletes of rows whose newer values are in no listed segment.

        An update writes both, and a compaction moves the deletes from L0 segments to those that were listed before: they would be gone
        from the backup with the old value and without the new one.

        :param added: delta logs that were written while segments were listed; None where Milvus has named the logs
        """
        if added is None:
            if self.server.segments(name) != reported:
                raise SourceChanged(f"the segments of {name} changed while they were looked at")
            return
        data = {segment.segment_id for segment in reported if segment.rows and not segment.is_l0}
        for key in added:
            ids = layout.parse_delta(self.source.location.root_path, key)
            if ids and ids[2] in data:
                raise SourceChanged(f"segment {ids[2]} of {name} got deletes while it was looked at")

    def _refuse_running_imports(self, name: CollectionName) -> None:
        """Raise SourceChanged while rows are imported: Milvus lists their segments as flushed ones before the import is complete."""
        if not self.server.can(Capability.IMPORTING_LISTED):
            return
        if self._door is None:
            self._door = open_door(self.server)
        try:
            running = self._door.running(name)
        except AuthError as error:
            if name not in self._unasked:
                self._unasked.add(name)
                self.reporter.warn(
                    f"whether rows are being imported into {name} is not known; if an import runs and fails, the backup holds its rows all "
                    f"the same. The privilege Import lets it be asked: {error}"
                )
            return
        if running:
            raise SourceChanged(f"rows are being imported into {name}; back it up when its import jobs have ended")

    def _named(self, name: CollectionName, collection_id: int, segment_ids: list[int]) -> dict[int, NamedLogs] | None:
        """Return what Milvus says belongs to each segment, None where it does not say."""
        if not self.server.can(Capability.SEGMENTS_DESCRIBE):
            return None
        try:
            return named_logs(self.server, name, collection_id, segment_ids)
        except (UnsupportedServer, ServerUnreachable) as error:
            self.server.capabilities.learn(Capability.SEGMENTS_DESCRIBE, works=False)
            self.reporter.warn(
                f"what belongs to each segment is taken from a listing of the bucket, because Milvus cannot be asked: {error}"
            )
            return None
