"""Backup: plan → copy → commit.

Each phase hands the next a :class:`~.plan.BackupPlan`, so they may run as three tasks on different workers. Until commit has written
``backup_meta.json`` the backup does not exist for anybody; a later attempt under the same name goes on where this one stopped.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from . import layout, meta, meta_reader, meta_writer, schema
from .copier import Copy, Progress, copy_objects
from .errors import BackupError, BackupExists, BackupNotFound, Cancelled, ConfigError, NotInStorage, SourceChanged
from .names import CollectionName, check_backup_name, parse_selection, select
from .plan import PLAN_FILE, BackupPlan, pair
from .report import Reporter, counted, duration
from .report import size as written
from .server import Flushed, MilvusServer
from .settings import Settings
from .store import ObjectStore, StoredObject
from .summary import BackupSummary, CollectionSummary

FLUSH, SKIP_FLUSH, META_ONLY = "flush", "skip_flush", "meta_only"
STRATEGIES = (FLUSH, SKIP_FLUSH, META_ONLY)

#: How often a collection whose segments were compacted away during the copy is planned again.
REPLANS = 3
#: Bucket, root path and endpoint a plan file is never larger than; guards against reading something else.
MAX_META_BYTES = 2 * 1024**3


@dataclass(slots=True)
class BackupRun:
    """The two ends of one backup, and how to report and stop it."""

    settings: Settings
    server: MilvusServer
    source: ObjectStore
    destination: ObjectStore
    reporter: Reporter
    stop: threading.Event

    @classmethod
    def open(cls, settings: Settings, reporter: Reporter | None = None, stop: threading.Event | None = None) -> BackupRun:
        """Return a run for these settings; nothing is connected yet."""
        return cls(
            settings,
            MilvusServer(settings.milvus),
            ObjectStore(settings.milvus_storage),
            ObjectStore(settings.backup_storage),
            reporter or Reporter(),
            stop or threading.Event(),
        )

    def backup(self, name: str, collections: str | Sequence[str] | None = None, strategy: str = FLUSH) -> BackupSummary:
        """Back the selected collections up under ``name``; everything when none are named.

        :raises ConfigError: a name, a selection or a setting is wrong
        :raises BackupExists: the name is taken
        :raises SourceChanged: segments kept vanishing while they were copied
        """
        started = time.monotonic()
        with self.reporter.phase("Plan"):
            plan = self.plan(name, collections, strategy)
        with self.reporter.phase("Copy"):
            for _ in range(REPLANS):
                try:
                    self.copy(plan)
                    break
                except SourceChanged as error:
                    self.reporter.warn(f"{error}; planning again")
                    plan = self.replan(plan)
            else:
                self.copy(plan)
        with self.reporter.phase("Commit"):
            summary = self.commit(plan, seconds=time.monotonic() - started)
        for line in summary.table():
            self.reporter.line(line)
        return summary

    # ---- plan --------------------------------------------------------------------------------------------------------------

    def plan(self, name: str, collections: str | Sequence[str] | None = None, strategy: str = FLUSH) -> BackupPlan:
        """Flush, list, and write the plan beside where the backup will be; changes nothing else."""
        check_backup_name(name)
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
        self.server.check_release()
        self._check_places()
        patterns = parse_selection(collections)
        self._check_name_is_free(name)
        databases = self.server.databases()
        available = [CollectionName(d, c) for d in databases for c in self.server.collections(d)]
        chosen = select(available, patterns, self.settings.milvus.database)
        if not chosen:
            raise ConfigError(f"Milvus at {self.settings.milvus} has no collections to back up")
        described = {collection: self.server.describe(collection) for collection in chosen}
        self.reporter.line(
            f"Milvus {self.server.version} at {self.settings.milvus}: {len(chosen)} of {counted(len(available), 'collection')}"
        )
        flushed = self._flush(chosen) if strategy == FLUSH else {}
        planned = [self._collection(collection, described[collection], flushed.get(collection), strategy) for collection in chosen]
        used = {collection.database for collection in chosen}
        backup = meta.Backup(
            backup_id=str(uuid.uuid4()),
            name=name,
            server_version=self.server.version,
            collections=planned,
            databases=[meta.Database(database) for database in databases if database in used],
        )
        plan = BackupPlan(backup, strategy, self.source.location.root_path, self.destination.location.root_path)
        self._write_plan(plan)
        objects = sum(1 for _ in plan.copies())
        ends = f"from {self.source.location.uri} to {self.destination.location.uri}"
        self.reporter.line(f"to copy: {counted(objects, 'object')}, {written(backup.size)}, {ends}")
        return plan

    def replan(self, plan: BackupPlan) -> BackupPlan:
        """Plan those collections again of which an object no longer exists; the others stay as they are."""
        collections = []
        for collection in plan.backup.collections:
            described = self.server.describe(collection.name)
            if described.collectionID != collection.collection_id:
                raise BackupError(f"{collection.name} was dropped and created again while it was backed up; start a new backup")
            if self._complete(collection):
                collections.append(collection)
            else:
                flushed = self._flush([collection.name])[collection.name] if plan.strategy == FLUSH else None
                collections.append(self._collection(collection.name, described, flushed, plan.strategy))
                self.reporter.line(f"{collection.name}: planned again")
        plan = replace(plan, backup=replace(plan.backup, collections=collections))
        self._write_plan(plan)
        return plan

    def _complete(self, collection: meta.Collection) -> bool:
        root, cid = self.source.location.root_path, collection.collection_id
        there = {item.key for kind in (layout.INSERT, layout.DELTA) for item in self.source.objects(layout.source_dir(root, kind, cid))}
        alone = BackupPlan(meta.Backup("", "", "", [collection]), "", root, "")
        return all(copy.source in there for copy in alone.copies())

    def _check_places(self) -> None:
        source, destination = self.settings.milvus_storage, self.settings.backup_storage
        if (source.bucket, self.source.endpoint) != (destination.bucket, self.destination.endpoint):
            return
        if layout.join(source.root_path, "x") == layout.join(destination.root_path, "x") or destination.root_path.startswith(
            f"{source.root_path}/" if source.root_path else "insert_log"
        ):
            raise ConfigError(
                f"backup_root_path {destination.root_path!r} lies inside Milvus's own root path {source.root_path!r} of bucket "
                f"{source.bucket!r}, where Milvus's garbage collector would remove the backup; choose another backup_root_path"
            )

    def _check_name_is_free(self, name: str) -> None:
        root = self.destination.location.root_path
        if self.destination.exists(layout.meta_key(root, name, layout.COMMIT_MARK)):
            raise BackupExists(f"backup {name!r} already exists in {self.destination.location}; choose another name or delete it first")
        first = next(self.destination.objects(layout.backup_dir(root, name)), None)
        if first is None:
            return
        if not self.destination.exists(layout.provider_key(root, name, PLAN_FILE)):
            raise BackupExists(
                f"{first.key!r} in {self.destination.location} belongs to an unfinished backup {name!r} of another tool; "
                "choose another name, or delete those objects when that tool no longer runs"
            )
        self.reporter.line(f"an unfinished attempt at {name!r} was found; what it copied is used again where it is equal")

    def _flush(self, collections: Sequence[CollectionName]) -> dict[CollectionName, Flushed]:
        started = time.monotonic()
        flushed = {collection: self.server.flush(collection) for collection in collections}
        waiting, pause = dict(flushed), 0.1
        while True:
            waiting = {c: f for c, f in waiting.items() if not self.server.flush_done(c, f)}
            if not waiting:
                break
            if self.stop.wait(pause):
                raise Cancelled("stopped while Milvus was flushing")
            pause = min(1.0, pause * 1.3)
            self.reporter.progress(f"waiting for Milvus to flush {len(waiting)} of {counted(len(collections), 'collection')}")
        self.reporter.line(f"flushed {counted(len(collections), 'collection')} in {duration(time.monotonic() - started)}")
        return flushed

    def _collection(self, name: CollectionName, described: Any, flushed: Flushed | None, strategy: str) -> meta.Collection:
        document = schema.from_proto(described.schema)
        properties = [(pair.key, pair.value) for pair in described.properties]
        properties += [p for p in ((pair["key"], pair["value"]) for pair in document.get("properties", [])) if p not in properties]
        load_state = self.server.load_state(name)
        partitions = self.server.partitions(name)
        segments = [] if strategy == META_ONLY else self._segments(name, described.collectionID)
        known = {partition_id for partition_id, _ in partitions} | {layout.ALL_PARTITIONS}
        if lost := sorted({segment.partition_id for segment in segments} - known):
            raise SourceChanged(
                f"{name} has segments in partitions {lost} that Milvus no longer lists; a partition was just dropped or created"
            )
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

    def _segments(self, name: CollectionName, collection_id: int) -> list[meta.Segment]:
        root = self.source.location.root_path
        reported = self.server.segments(name)
        if not reported:
            return []
        inserts = self.source.objects(layout.source_dir(root, layout.INSERT, collection_id))
        first = list(islice(inserts, 1))  # not all in one list: there may be millions
        deltas = self.source.objects(layout.source_dir(root, layout.DELTA, collection_id))
        if not first and any(segment.rows for segment in reported):
            raise ConfigError(
                f"Milvus reports {len(reported)} segments of {name}, but {self.source.location} holds no object below "
                f"{layout.source_dir(root, layout.INSERT, collection_id)!r}: correct bucket_name {self.source.location.bucket!r} or "
                f"root_path {root!r} of {self.settings.milvus.label or 'the Milvus connection'}"
            )
        return pair(reported, chain(first, inserts), deltas, root)

    def _write_plan(self, plan: BackupPlan) -> None:
        self.destination.write(layout.provider_key(plan.backup_root, plan.backup.name, PLAN_FILE), plan.to_json())

    # ---- copy --------------------------------------------------------------------------------------------------------------

    def copy(self, plan: BackupPlan) -> Progress:
        """Copy what is not there yet; objects of an earlier attempt that the plan does not name are removed.

        An object counts as there when its size and its ETag are those of the source; after a multipart copy the ETag differs, and
        it is copied again.
        """
        there = {item.key: item for item in self.destination.objects(layout.binlogs_dir(plan.backup_root, plan.backup.name))}
        done = set()
        objects = size = 0
        for copy in plan.copies():
            if _equal(there.pop(copy.destination, None), copy):
                done.add(copy.destination)
            else:
                objects += 1
                size += copy.size
        if there:
            self.destination.delete(there)
            self.reporter.line(f"removed {len(there):,} objects of an earlier attempt that are no longer part of the backup")
        if done:
            self.reporter.line(f"{len(done):,} of {objects + len(done):,} objects are already there")
        progress = Progress(objects, size)
        copy_objects(
            self.source,
            self.destination,
            (copy for copy in plan.copies() if copy.destination not in done),  # not a list: there may be millions
            progress,
            concurrency=self.settings.concurrency,
            streaming=self.settings.streaming,
            multipart_threshold=self.settings.multipart_threshold,
            report=self.reporter.copying,
            stop=self.stop,
        )
        repeated = f", {progress.retries:,} requests repeated" if progress.retries else ""
        rate = written(progress.bytes / max(progress.seconds, 1e-9))
        self.reporter.line(
            f"copied {progress.objects:,} objects, {written(progress.bytes)}, in {duration(progress.seconds)} "
            f"({rate}/s, {progress.objects / max(progress.seconds, 1e-9):,.0f} objects/s, {progress.mode}{repeated})"
        )
        return progress

    # ---- commit ------------------------------------------------------------------------------------------------------------

    def commit(self, plan: BackupPlan, seconds: float = 0.0) -> BackupSummary:
        """Compare every key and size with the plan, then write the meta files, the commit mark last.

        :param seconds: how long the backup took so far, for the summary
        :raises BackupError: an object is missing or has another size
        """
        started = time.monotonic()
        root, name = plan.backup_root, plan.backup.name
        there = {item.key: item.size for item in self.destination.objects(layout.binlogs_dir(root, name))}
        wrong = [copy for copy in plan.copies() if there.pop(copy.destination, None) != copy.size]
        if wrong or there:
            examples = ", ".join([copy.destination for copy in wrong[:3]] + sorted(there)[:3])
            raise BackupError(
                f"backup {name!r} is not what was planned: {len(wrong):,} objects are missing or have another size, {len(there):,} are not "
                f"part of it ({examples}); run the backup again under the same name to repair it"
            )
        if self.stop.is_set():
            raise Cancelled("stopped before the backup was committed")
        for file, content in meta_writer.to_files(plan.backup, plan.milvus_root):
            self.destination.write(layout.meta_key(root, name, file), content)
        uri = f"s3://{self.destination.location.bucket}/{layout.join(root, name)}"
        self.reporter.line(f"committed {uri}")
        return BackupSummary(
            name=name,
            uri=uri,
            server_version=plan.backup.server_version,
            strategy=plan.strategy,
            collections=[CollectionSummary.of(collection) for collection in plan.backup.collections],
            seconds=seconds + time.monotonic() - started,
        )


def read_backup(store: ObjectStore, name: str) -> meta.Backup:
    """Return a complete backup's meta; full_meta.json where there is one, else the level files.

    :raises BackupNotFound: there is no commit mark
    :raises BackupDamaged: the meta cannot be trusted
    """
    check_backup_name(name)
    root = store.location.root_path
    try:
        files = {layout.COMMIT_MARK: store.read(layout.meta_key(root, name, layout.COMMIT_MARK), MAX_META_BYTES)}
    except NotInStorage as error:
        if "bucket does not exist" in str(error):
            raise
        existing = store.directories(f"{root}/" if root else "")
        known = f"; complete or unfinished backups there: {', '.join(existing[:10])}" if existing else "; there are no backups"
        raise BackupNotFound(f"backup {name!r} does not exist in {store.location}{known}") from None
    for file in layout.META_FILES[:-1]:
        try:
            files[file] = store.read(layout.meta_key(root, name, file), MAX_META_BYTES)
        except NotInStorage:
            continue
        if file == "full_meta.json":
            break
    return meta_reader.from_files(files)


def _equal(there: StoredObject | None, copy: Copy) -> bool:
    return there is not None and there.size == copy.size and bool(there.etag) and there.etag == copy.etag
