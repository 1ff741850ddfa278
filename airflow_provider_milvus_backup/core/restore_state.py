"""What a restore has decided and done so far, as JSON: it outlives the worker that began it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from . import meta
from .imports import JobState
from .jsonreader import MAX_UINT64, Node
from .names import CollectionName
from .packing import Pack
from .report import duration, table

STATE_VERSION = 1


@dataclass(slots=True)
class Job:
    """One import job. ``inserts`` and ``deltas`` are string prefixes in Milvus's bucket; ``deltas`` is empty where nothing was deleted."""

    partition: str
    inserts: str
    deltas: str
    rows: int
    bytes: int
    segments: int
    job_id: int = 0
    state: str = ""
    imported: int = 0
    reason: str = ""

    @classmethod
    def of(cls, partition: meta.Partition, segments: list[meta.Segment], one: Pack, inserts: str, deltas: str) -> Job:
        """Return the job that imports one pack of a partition's segments."""
        return cls(
            partition=partition.name,
            inserts=inserts + one.prefix,
            deltas=deltas + one.prefix if any(segment.deltas for segment in segments) else "",
            rows=sum(segment.rows for segment in segments),
            bytes=one.size,
            segments=len(segments),
        )


@dataclass(slots=True)
class Target:
    """One collection on its way into Milvus."""

    source: CollectionName
    name: CollectionName
    #: This restore created the collection, so it may drop it again.
    created: bool = False
    #: Partitions to load at the end; None loads the whole collection, an empty list nothing.
    load: list[str] | None = field(default_factory=list)
    #: The collection was loaded before rows were appended, and must be told to load the new ones.
    refresh: bool = False
    aliases: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows imported."""
        return sum(job.imported for job in self.jobs)


@dataclass(slots=True)
class RestoreState:
    """One restore."""

    restore_id: str
    backup_name: str
    targets: list[Target]
    staged: bool = False
    started: float = 0.0
    #: The summary, once the restore is finished.
    summary: dict[str, Any] = field(default_factory=dict)

    def jobs(self) -> Iterator[tuple[Target, Job]]:
        """Iterate over all jobs and where they belong."""
        for target in self.targets:
            for job in target.jobs:
                yield target, job

    def pending(self) -> list[int]:
        """Return the ids of the jobs that were submitted and have not ended."""
        return [job.job_id for _, job in self.jobs() if job.job_id and job.state in ("", JobState.RUNNING.value)]

    def to_json(self) -> bytes:
        """Return the state as JSON."""
        return json.dumps({"version": STATE_VERSION, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> RestoreState:
        """Return the state that :meth:`to_json` wrote; raises BackupDamaged for anything else."""
        root = Node.parse(content, "the restore's state")
        if root.integer("version") != STATE_VERSION:
            raise root.wrong("version", str(STATE_VERSION))
        started = root.value.get("started")
        return cls(
            root.string("restore_id"),
            root.string("backup_name"),
            [_target(node) for node in root.nodes("targets")],
            root.boolean("staged"),
            float(started) if isinstance(started, (int, float)) else 0.0,
            root.value.get("summary") or {},
        )

    def finished(self, seconds: float) -> dict[str, Any]:
        """Return the summary as small JSON; at most 100 collections are listed one by one."""
        rows = sum(target.rows for target in self.targets)
        return {
            "restore_id": self.restore_id,
            "backup_name": self.backup_name,
            "collection_count": len(self.targets),
            "collections": [
                {
                    "source": str(target.source),
                    "database": target.name.database,
                    "name": target.name.collection,
                    "rows": target.rows,
                    "jobs": len(target.jobs),
                    "bytes": sum(job.bytes for job in target.jobs),
                }
                for target in self.targets[:100]
            ],
            "rows": rows,
            "jobs": sum(1 for _ in self.jobs()),
            "bytes": sum(job.bytes for _, job in self.jobs()),
            "seconds": round(seconds, 3),
            "rows_per_second": round(rows / seconds) if seconds else 0,
        }

    def table(self, seconds: float) -> list[str]:
        """Return the lines of a table of the collections, with a total."""
        rows = [[str(t.source), str(t.name), f"{t.rows:,}", str(len(t.jobs))] for t in self.targets]
        total = [
            f"total, in {duration(seconds)}",
            "",
            f"{sum(t.rows for t in self.targets):,}",
            str(sum(len(t.jobs) for t in self.targets)),
        ]
        return table(["backup", "restored as", "rows", "jobs"], [*rows, total], names=2)


def _target(node: Node) -> Target:
    return Target(
        source=CollectionName(*node.items("source", str)),
        name=CollectionName(*node.items("name", str)),
        created=node.boolean("created"),
        load=None if node.value.get("load") is None else node.items("load", str),
        refresh=node.boolean("refresh"),
        aliases=node.items("aliases", str),
        jobs=[
            Job(
                partition=job.string("partition"),
                inserts=job.string("inserts"),
                deltas=job.string("deltas"),
                rows=job.integer("rows"),
                bytes=job.integer("bytes"),
                segments=job.integer("segments"),
                job_id=job.integer("job_id", high=MAX_UINT64),
                state=job.string("state"),
                imported=job.integer("imported"),
                reason=job.string("reason"),
            )
            for job in node.nodes("jobs")
        ],
    )
