"""Snapshots of 3.0, and their way out of a cluster and into another one.

``internal/datacoord/snapshot_manager.go`` and ``docs/user_guides/snapshot_user_guide.md`` of milvus-io/milvus; a bundle is
``<target>/exports/<uuid>/snapshots/<collection>/metadata/<snapshot>.json`` with the files it names below the same ``exports/<uuid>``.
"""

from __future__ import annotations

import base64
import json
import posixpath
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pymilvus.grpc_gen import schema_pb2

from .binlogs import BadObject
from .buckets import Bucket
from .importing import ImportFile, Options, read_deletes, read_segment
from .jobs import Jobs
from .refusals import invalid, unexpected, unimplemented
from .state import DROPPED, FLUSHED, Collection, Index, Name, Partition, Segment

LONGEST_PROTECTION = 604_800
EXECUTING, COMPLETED, FAILED = 2, 3, 4


@dataclass(slots=True)
class Snapshot:
    """The flushed segments of one moment."""

    id: int
    name: str
    description: str
    created: int
    segments: list[Segment]
    #: Until when they are not compacted, seconds of the model's clock.
    protected_until: float


@dataclass(slots=True)
class SnapshotJob:
    """An export or a restore."""

    id: int
    snapshot: str
    collection: Name
    started: float
    uri: str = ""
    reason: str = ""
    files: int = 0
    size: int = 0


class Snapshots(Jobs):
    """A model that takes snapshots."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.snapshots: dict[tuple[int, str], Snapshot] = {}
        self.exports: dict[int, SnapshotJob] = {}
        self.restores: dict[int, SnapshotJob] = {}
        #: Further buckets that URIs may name.
        self.buckets: dict[str, Bucket] = {}
        #: Seconds that an export or a restore takes, and for which an export that is over still pins its snapshot.
        self.snapshot_seconds = 0.02

    # ---- snapshots ---------------------------------------------------------------------------------------------------------

    def create_snapshot(self, name: Name, snapshot: str, description: str = "", protection_seconds: int = 0) -> Snapshot:
        """Freeze what is flushed; nothing is flushed for it."""
        with self.lock:
            collection = self._settled(name)
            if not snapshot:
                raise invalid("snapshot name should not be empty")
            if not 0 <= protection_seconds <= LONGEST_PROTECTION:
                raise invalid(f"compaction_protection_seconds must be between 0 and {LONGEST_PROTECTION}, got {protection_seconds}")
            if (collection.id, snapshot) in self.snapshots:
                raise invalid(f"snapshot {snapshot} already exists")
            segments = [s for s in collection.segments if s.state == FLUSHED and not s.importing]
            made = Snapshot(self.next_id(), snapshot, description, self.next_ts(), segments, self.clock() + protection_seconds)
            self.snapshots[collection.id, snapshot] = made
            return made

    def snapshot(self, name: Name, snapshot: str) -> Snapshot:
        """Return a snapshot."""
        found = self.snapshots.get((self.collection(name).id, snapshot))
        if found is None:
            raise invalid(f"snapshot {snapshot} not found")
        return found

    def snapshots_of(self, name: Name) -> list[Snapshot]:
        """Return all snapshots of a collection."""
        number = self.collection(name).id
        return [snapshot for (collection, _), snapshot in self.snapshots.items() if collection == number]

    def drop_snapshot(self, name: Name, snapshot: str) -> None:
        """Drop a snapshot; one that is not there is ignored, one that an export still pins is refused."""
        with self.lock:
            number = self.collection(name).id
            if (number, snapshot) not in self.snapshots:
                return
            for job in self.exports.values():
                if job.snapshot == snapshot and job.collection == name and self.monotonic() - job.started < 2 * self.snapshot_seconds:
                    raise unexpected(f"snapshot {snapshot} is pinned and cannot be dropped")
            del self.snapshots[number, snapshot]

    def snapshot_location(self, name: Name, snapshot: str) -> str:
        """Return where the metadata of a snapshot lies in the cluster's own bucket."""
        return self.key("snapshots", self.collection(name).id, "metadata", f"{self.snapshot(name, snapshot).id}.json")

    def _data(self, collection: Collection) -> list[Segment]:
        """Leave out of a compaction what a snapshot protects from it."""
        now = self.clock()
        safe = {id(s) for made in self.snapshots_of(collection.full_name) if made.protected_until > now for s in made.segments}
        return [segment for segment in super()._data(collection) if id(segment) not in safe]

    def collect_garbage(self, name: Name) -> None:
        """Keep the files of segments that are in a snapshot."""
        with self.lock:
            collection = self._settled(name)
            kept = [s for made in self.snapshots_of(name) for s in made.segments if s.state == DROPPED and s in collection.segments]
            collection.segments = [segment for segment in collection.segments if segment not in kept]
            super().collect_garbage(name)
            collection.segments += kept

    # ---- out ---------------------------------------------------------------------------------------------------------------

    def export_snapshot(self, name: Name, snapshot: str, target: str, external_spec: str = "") -> SnapshotJob:
        """Start copying a snapshot below a URI."""
        if not self.profile.snapshot_export:
            raise unimplemented("ExportSnapshot")
        with self.lock:
            made, collection = self.snapshot(name, snapshot), self.collection(name)
            bucket, below = self._located(target, external_spec)
            base = f"{below}/exports/{uuid.uuid4()}".strip("/")
            job = SnapshotJob(self.next_id(), snapshot, collection.full_name, self.monotonic())
            prefix = f"{base}/"
            segments = []
            for segment in made.segments:
                keys = [
                    key
                    for kind in ("insert_log", "delta_log")
                    for key in self.bucket.list(self.key(kind, collection.id, segment.partition_id, segment.id) + "/")
                ]
                for key in keys:
                    content = self.bucket.get(key)
                    bucket.put(prefix + self._below_root(key), content)
                    job.files, job.size = job.files + 1, job.size + len(content)
                document = {"id": segment.id, "partition": segment.partition_id, "vchannel": segment.vchannel, "level": segment.level}
                segments.append({**document, "storage_version": segment.storage_version, "commit_ts": segment.commit_ts})
            uri = f"{prefix}snapshots/{collection.id}/metadata/{made.id}.json"
            bucket.put(uri, json.dumps(_metadata(collection, made, segments)).encode())
            job.uri = target.rstrip("/") + "/" + uri.removeprefix(below).lstrip("/")
            self.exports[job.id] = job
            return job

    def _below_root(self, key: str) -> str:
        return key[len(self.root_path) + 1 :] if self.root_path else key

    def _located(self, uri: str, external_spec: str) -> tuple[Bucket, str]:
        """Return the bucket and the key of a URI: ``s3://bucket/key``, or ``minio://host:port/bucket/key`` with a spec that lets in."""
        parts = urlsplit(uri)
        path = posixpath.normpath(parts.path).strip("/")
        if parts.scheme == "s3":
            bucket, key = parts.netloc, path
        elif parts.scheme == "minio":
            bucket, _, key = path.partition("/")
        else:
            raise invalid(f"unsupported scheme of {uri}")
        if external_spec:
            try:
                spec = json.loads(external_spec)["extfs"]
            except (ValueError, KeyError, TypeError):
                raise invalid("external_spec is not a JSON object with the key extfs") from None
            if "session_token" in spec or not spec.get("cloud_provider"):
                raise invalid("external_spec.extfs needs cloud_provider and takes no session token")
        elif parts.scheme == "minio":
            raise invalid(f"external_spec is needed for another endpoint: {uri}")
        key = "" if key == "." else key
        if bucket == self.bucket_name:
            return self.bucket, key
        if bucket not in self.buckets:
            raise invalid(f"bucket {bucket} does not exist")
        return self.buckets[bucket], key

    def snapshot_job(self, jobs: dict[int, SnapshotJob], number: int) -> tuple[SnapshotJob, int]:
        """Return a job and its state."""
        if number not in jobs:
            raise invalid(f"snapshot job {number} not found")
        job = jobs[number]
        if self.monotonic() - job.started < self.snapshot_seconds:
            return job, EXECUTING
        return job, FAILED if job.reason else COMPLETED

    # ---- in ----------------------------------------------------------------------------------------------------------------

    def restore_external(self, name: Name, uri: str, external_spec: str = "") -> SnapshotJob:
        """Start making a new collection of a bundle: field ids, indexes, L0 segments and all."""
        if not self.profile.snapshot_export:
            raise unimplemented("RestoreExternalSnapshot")
        with self.lock:
            database = self.database(name[0])
            if name[1] in database.collections or name[1] in database.aliases:
                raise invalid(f"collection {name[1]} already exists")
            self._check_name(name[1], "collection")
            bucket, key = self._located(uri, external_spec)
            try:
                document = json.loads(bucket.get(key))
            except (KeyError, ValueError):
                raise invalid(f"failed to read snapshot metadata {uri}") from None
            job = SnapshotJob(self.next_id(), document["name"], (database.name, name[1]), self.monotonic())
            try:
                database.collections[name[1]] = self._restored(name, document, bucket, key)
            except BadObject as error:
                job.reason = str(error)
            self.restores[job.id] = job
            return job

    def _restored(self, name: Name, document: dict[str, Any], bucket: Bucket, key: str) -> Collection:
        schema = schema_pb2.CollectionSchema()
        schema.ParseFromString(base64.b64decode(document["schema"]))
        schema.name = name[1]
        number = self.next_id()
        channels = [f"by-dev-rootcoord-dml_{shard}_{number}v{shard}" for shard in range(document["shards"])]
        collection = Collection(
            number,
            name[0],
            name[1],
            schema,
            document["shards"],
            document["consistency_level"],
            document["properties"],
            self.next_ts(),
            channels,
        )
        collection.checkpoint = collection.created
        collection.partitions = [Partition(self.next_id(), partition, self.next_ts()) for partition in document["partitions"].values()]
        collection.indexes = [Index(self.next_id(), **index) for index in document["indexes"]]
        new_ids = {int(old): collection.partitions[i].id for i, old in enumerate(document["partitions"])} | {-1: -1}
        base = key.partition(f"snapshots/{document['collection_id']}/")[0]
        for found in document["segments"]:
            directory = f"{document['collection_id']}/{found['partition']}/{found['id']}/"
            channel = channels[document["vchannels"].index(found["vchannel"])]
            version = found["storage_version"]
            segment = Segment(self.next_id(), new_ids[found["partition"]], channel, found["level"], FLUSHED, version)
            segment.commit_ts = found["commit_ts"]
            segment.deletes = read_deletes(bucket, f"{base}delta_log/{directory}")
            if bucket.list(f"{base}insert_log/{directory}"):
                file = ImportFile((f"{base}insert_log/{directory}",))
                options = Options(backup=True, l0_import=False, storage_version=version, skips_quota=True, raw={})
                segment.rows = read_segment(bucket, schema, file, options, self.profile)
            self.write_segment(collection, segment)
            collection.segments.append(segment)
        return collection


def _metadata(collection: Collection, made: Snapshot, segments: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": made.name,
        "collection_id": collection.id,
        "schema": base64.b64encode(collection.schema.SerializeToString()).decode(),
        "shards": collection.shards,
        "vchannels": collection.vchannels,
        "consistency_level": collection.consistency_level,
        "properties": collection.properties,
        "partitions": {str(partition.id): partition.name for partition in collection.partitions},
        "indexes": [{"name": i.name, "field_name": i.field_name, "params": i.params} for i in collection.indexes],
        "segments": segments,
    }
