"""What a restore has decided and done so far, as JSON: it outlives the worker that began it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from . import layout
from .errors import BackupDamaged
from .imports import JobState
from .jsonreader import MAX_UINT64, Node
from .names import CollectionName, building_name, restore_of, short_id
from .report import counted, duration, table

STATE_VERSION = 1


@dataclass(slots=True)
class Job:
    """One import job.

    ``inserts`` and ``deltas`` are string prefixes in Milvus's bucket. Without ``groups`` the job takes all below them, and ``deltas`` is
    empty where nothing was deleted. With them it takes these directories, and the delta logs of those in ``deleted``. A job of L0
    segments has delta logs only.
    """

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
    #: How often Milvus failed the job for a reason that passes, and it was submitted again.
    again: int = 0
    groups: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    #: It imports L0 segments, and is submitted when all data of its collection is there.
    l0: bool = False
    storage_version: int = 0
    #: It restores a snapshot, whose metadata is under ``inserts``; Milvus makes the collection for it.
    snapshot: bool = False

    @property
    def ended(self) -> bool:
        """Whether Milvus no longer works on it."""
        return self.state in (JobState.COMPLETED.value, JobState.FAILED.value)

    @property
    def completed(self) -> bool:
        """Whether its rows are there."""
        return self.state == JobState.COMPLETED.value

    @property
    def files(self) -> list[list[str]]:
        """Return the import files: for each the insert prefix and, where something was deleted, the delta prefix."""
        if self.l0:
            return [[prefix] for prefix in self.delta_prefixes]
        if not self.groups:
            return [[self.inserts, self.deltas]]  # before 2.4 it takes exactly two
        deleted = set(self.deleted)
        return [[_below(self.inserts, group), *([_below(self.deltas, group)] if group in deleted else [])] for group in self.groups]

    @property
    def delta_prefixes(self) -> list[str]:
        """Return the prefixes of all its delta logs."""
        if not self.groups:
            return [self.deltas] if self.deltas else []
        return [_below(self.deltas, group) for group in self.deleted]

    @property
    def what(self) -> str:
        """Return what it has brought, for a message."""
        if self.l0:
            return f"deletes of {counted(self.segments, 'L0 segment')}"
        if self.snapshot:
            return f"{self.imported:,} rows of a snapshot"
        return f"{self.imported:,} rows of {counted(self.segments, 'segment')}"

    @property
    def where(self) -> str:
        """Return which partition it is for, for a message."""
        return f"partition {self.partition}" if self.partition else "all partitions"

    def submit_again(self) -> None:
        """Forget the job that was submitted."""
        self.job_id, self.state, self.imported, self.reason = 0, "", 0, ""


def _below(prefix: str, group: str) -> str:
    return f"{prefix}{group}/" if group else prefix


@dataclass(slots=True)
class Target:
    """One collection on its way into Milvus.

    It is built under a name of its own and gets the target's name when it is complete, so that nothing half-restored ever looks whole, and
    what this restore may drop is known by its name. Rows that are appended go into the existing collection.
    """

    source: CollectionName
    name: CollectionName
    #: The collection that rows are imported into.
    building: CollectionName
    append: bool = False
    #: How often it was begun anew under a further name.
    generation: int = 0
    #: The id of the collection, and whether its partitions and indexes are made.
    collection_id: int = 0
    ready: bool = False
    #: It is complete and has its name.
    done: bool = False
    #: Partitions to load at the end; None loads the whole collection, an empty list nothing.
    load: list[str] | None = field(default_factory=list)
    #: The collection was loaded before rows were appended, and must be told to load the new ones.
    refresh: bool = False
    aliases: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    #: Deletes in L0 segments are folded into the delta logs of the other segments, which are staged for it.
    folded: bool = False
    #: Rows written after this hybrid timestamp are left out; 0 for none.
    end_ts: int = 0
    #: Jobs of others into the collection, from before rows were appended.
    before: list[int] = field(default_factory=list)
    #: Milvus has not answered when a job was submitted; where it did not show up and was submitted again, both may run.
    unanswered: bool = False
    #: Since when a job that appends rows is being submitted, in seconds since the epoch; 0 when none is.
    asked: float = 0.0

    @property
    def rows(self) -> int:
        """Rows imported."""
        return sum(job.imported for job in self.jobs if not job.l0)

    @property
    def due(self) -> list[Job]:
        """Return the jobs to submit now: those of L0 segments only when all data is there."""
        data = all(job.completed for job in self.jobs if not job.l0)
        return [job for job in self.jobs if not job.job_id and (data or not job.l0)]

    def begin_anew(self, restore_id: str) -> None:
        """Forget the collection and its jobs, and go on under a further name."""
        self.generation += 1
        self.building = building_name(self.name, restore_id, self.generation)
        self.collection_id, self.ready, self.unanswered = 0, False, False
        for job in self.jobs:
            job.submit_again()


@dataclass(slots=True)
class RestoreState:
    """One restore."""

    restore_id: str
    backup_name: str
    targets: list[Target]
    #: The id of the backup: one that replaced it under its name is another one.
    backup_id: str = ""
    staged: bool = False
    started: float = 0.0
    #: The arguments it was begun with; one that is begun with others is another one.
    options: str = ""
    #: How often the task instance had been cleared when it began.
    round: int = 0
    #: Different for every process that has taken it over; only that of the newest may go on.
    token: str = ""
    #: When the present try gives up waiting, in seconds since the epoch.
    deadline: float | None = None
    #: Databases that it created.
    databases: list[str] = field(default_factory=list)
    #: Collections that it gave up and could not drop yet, because imports into them had not ended.
    left: list[CollectionName] = field(default_factory=list)
    #: Why it was undone; empty as long as it was not.
    undone: str = ""
    #: Whether its jobs were submitted over REST.
    rest: bool = False
    #: The summary, once the restore is finished.
    summary: dict[str, Any] = field(default_factory=dict)
    #: Where the state was read or written last, and its ETag there; no part of its JSON.
    place: str = field(default="", compare=False)
    etag: str = field(default="", compare=False, repr=False)

    def jobs(self) -> Iterator[tuple[Target, Job]]:
        """Iterate over all jobs and where they belong."""
        for target in self.targets:
            for job in target.jobs:
                yield target, job

    def tag(self, target: Target, job: Job) -> str:
        """Return what the job is known by in Milvus, unlike any other job of any restore."""
        # By identity: to compare jobs with many segments would take long.
        number = next(number for number, one in enumerate(self.targets) if one is target)
        job_number = next(number for number, one in enumerate(target.jobs) if one is job)
        return "/".join((self.restore_id, self.started_at, f"{number}.{target.generation}", f"{job_number}.{job.again}"))

    @property
    def started_at(self) -> str:
        """When it was begun, in milliseconds: the same id may be used again after a finished restore."""
        return str(round(self.started * 1000))

    @property
    def staging(self) -> str:
        """Where it stages objects; the next restore of this id, which may begin while this one is being undone, has another place."""
        return f"{layout.staging_dir(self.restore_id)}binlogs/{self.started_at}/"

    def pending(self) -> list[int]:
        """Return the ids of the jobs that were submitted and have not ended."""
        return [job.job_id for _, job in self.jobs() if job.job_id and not job.ended]

    def pending_databases(self) -> list[str]:
        """Return the databases of the jobs that :meth:`pending` returns."""
        return [target.name.database for target, job in self.jobs() if job.job_id and not job.ended]

    @property
    def imported(self) -> bool:
        """Whether all jobs have done their work."""
        return all(job.completed for target, job in self.jobs() if not target.done)

    def to_json(self) -> bytes:
        """Return the state as JSON."""
        document = {"version": STATE_VERSION, **asdict(self), "left": [{"name": name} for name in self.left]}
        del document["place"], document["etag"]
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, content: bytes) -> RestoreState:
        """Return the state that :meth:`to_json` wrote; raises BackupDamaged for anything else."""
        root = Node.parse(content, "the restore's state")
        if root.integer("version") != STATE_VERSION:
            raise root.wrong("version", str(STATE_VERSION))
        restore_id = root.string("restore_id")
        left = [_name(node.items("name", str), node) for node in root.nodes("left")]
        if foreign := [name for name in left if restore_of(name) != short_id(restore_id)]:
            raise BackupDamaged(f"the restore's state wants to drop {foreign[0]}, which this restore has not made")
        return cls(
            restore_id,
            root.string("backup_name"),
            [_target(node, restore_id) for node in root.nodes("targets")],
            root.string("backup_id"),
            root.boolean("staged"),
            root.number("started"),
            root.string("options"),
            root.integer("round"),
            root.string("token"),
            None if root.value.get("deadline") is None else root.number("deadline"),
            root.items("databases", str),
            left,
            root.string("undone"),
            root.boolean("rest"),
            Node(root.value.get("summary") or {}, "the restore's summary").value,
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


def _name(parts: list[str], node: Node) -> CollectionName:
    if len(parts) != 2:
        raise BackupDamaged(f"{node.where} names a collection by {len(parts)} parts, not by database and name")
    return CollectionName(*parts)


def _target(node: Node, restore_id: str) -> Target:
    name, generation, append = _name(node.items("name", str), node), node.integer("generation"), node.boolean("append")
    return Target(
        source=_name(node.items("source", str), node),
        name=name,
        # Never read, for it will be dropped when the restore is undone.
        building=name if append else building_name(name, restore_id, generation),
        append=append,
        generation=generation,
        collection_id=node.integer("collection_id"),
        ready=node.boolean("ready"),
        done=node.boolean("done"),
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
                job_id=job.integer("job_id"),
                state=job.string("state"),
                imported=job.integer("imported"),
                reason=job.string("reason"),
                again=job.integer("again"),
                groups=job.items("groups", str),
                deleted=job.items("deleted", str),
                l0=job.boolean("l0"),
                storage_version=job.integer("storage_version"),
                snapshot=job.boolean("snapshot"),
            )
            for job in node.nodes("jobs")
        ],
        folded=node.boolean("folded"),
        end_ts=node.integer("end_ts", high=MAX_UINT64),
        before=node.items("before", int),
        unanswered=node.boolean("unanswered"),
        asked=node.number("asked"),
    )
