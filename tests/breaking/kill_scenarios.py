"""At which requests a task's process is killed: tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.breaking.processes import Point
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT

#: What is backed up and restored; of the second one there is an old backup, and it has changed since.
DOCS, CHANGED = (data.docs(f"kills_{name}", partitions=["second"]) for name in ("docs", "changed"))
#: What a restore builds that has nothing to do with ours.
FOREIGN_ID = "00f0e0d0c0b0a090"
FOREIGN = data.docs(f"kills_foreign__restore_{FOREIGN_ID}")
BASE = "backup"


@dataclass(frozen=True)
class Scenario:
    """Where one task dies."""

    #: The last thing that happens.
    promise: str
    point: Point
    #: ``backup``, ``replacing backup``, ``restore``, ``restore in place`` or ``replacing restore``.
    kind: str
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return self.promise.replace(" ", "-")

    @property
    def name(self) -> str:
        """A name that no other scenario has: of the backup, or what follows the target's name."""
        return f"kills_{hashlib.sha256(f'{self.kind} {self.promise}'.encode()).hexdigest()[:8]}"


def scenarios(kind: str, table: Sequence[tuple[str, Point]], **arguments: Any) -> list[Scenario]:
    return [Scenario(promise, point, kind, arguments) for promise, point in table]


FILES = ("lease", "attempt", "schemas", "plan", "summary", "catalog", "manifest")
LEASE, ATTEMPT, SCHEMAS, PLAN, SUMMARY, CATALOG, MANIFEST = (f"/provider/{file}.json$" for file in FILES)
STATE, STAGING, READING = "/provider/restores/", "/restore-temp-[0-9a-f]+/lease.json$", "/provider/leases/"

BACKUPS = scenarios(
    "backup",
    [
        ("its lease is taken", Point("put-if", LEASE)),
        ("its attempt is written", Point("put", ATTEMPT)),
        ("Milvus is told to flush", Point("Flush")),
        ("Milvus is asked whether it has flushed", Point("GetFlushState")),
        ("the segments are listed", Point("GetPersistentSegmentInfo")),
        ("the schemas are written", Point("put", SCHEMAS)),
        ("the plan is written", Point("put", PLAN)),
        ("the first object is copied", Point("copy")),
        ("half of the objects are copied", Point("copy", number=7)),
        ("the last object is copied", Point("copy", number=14)),
        ("the summary is written", Point("put", SUMMARY)),
        ("the lease is renewed for the commit", Point("put-if", LEASE, after=f"put .*{SUMMARY}")),
        ("the complete meta is written", Point("put", "/full_meta.json$")),
        ("the last level of the meta is written", Point("put", "/segment_meta.json$")),
        ("what the catalog shows is written", Point("put", CATALOG)),
        ("the manifest is written", Point("put", MANIFEST)),
        ("it is committed", Point("put-if", "/backup_meta.json$")),
        ("the lease is given up", Point("put-if", LEASE, after="put-if .*/backup_meta.json$")),
        ("the lease is deleted", Point("delete")),
    ],
    collections=DOCS.name.collection,
)
REPLACING_BACKUPS = scenarios(
    "replacing backup",
    [
        ("its attempt is written", Point("put", ATTEMPT)),
        ("the plan is written", Point("put", PLAN)),
        ("the first object is copied", Point("copy")),
        ("half of the objects are copied", Point("copy", number=11)),
        ("the summary is written", Point("put", SUMMARY)),
        ("the complete meta is written", Point("put", "/full_meta.json$")),
        ("the first level of the meta is written", Point("put", "/collection_meta.json$")),
        ("the last level of the meta is written", Point("put", "/segment_meta.json$")),
        ("the manifest is written", Point("put", MANIFEST)),
        ("it is committed", Point("put-if", "/backup_meta.json$")),
        ("the old objects are removed", Point("delete")),
        ("the lease is given up", Point("put-if", LEASE, after="delete")),
        ("the lease is deleted", Point("delete", number=2)),
    ],
    collections=CHANGED.name.collection,
    if_exists="replace",
)
RESTORES = [
    *scenarios(
        "restore",
        [
            ("its lease is taken", Point("put-if", STAGING)),
            ("its lease beside the backup is taken", Point("put-if", READING)),
            ("its state is written", Point("put-if", STATE)),
            ("the first object is staged", Point("copy")),
            ("the last object is staged", Point("copy", number=14)),
            ("the collection is created", Point("CreateCollection")),
            ("the partition is created", Point("CreatePartition")),
            ("the index is created", Point("CreateIndex")),
            ("it is written that the collection is made", Point("put-if", STATE, after="CreateIndex")),
            ("the first job is submitted", Point("Import")),
            ("the last job is submitted", Point("Import", number=2)),
            ("it is written which jobs there are", Point("put-if", STATE, after="Import")),
            ("Milvus is asked for a job", Point("GetImportState")),
            ("it is written that a job is done", Point("put-if", STATE, after="GetImportState")),
            ("the rows are counted", Point("GetPersistentSegmentInfo")),
            ("the collection gets its name", Point("RenameCollection")),
            ("it is written that the collection has its name", Point("put-if", STATE, after="RenameCollection")),
            ("the staged objects are removed", Point("delete", f"^/{A_BUCKET}")),
            ("the summary is written", Point("put-if", STATE, after="RenameCollection", number=2)),
            ("its lease is given up", Point("put-if", STAGING, after="delete")),
            ("its lease is deleted", Point("delete", f"^/{A_BUCKET}", number=2)),
            ("its lease beside the backup is deleted", Point("delete", f"^/{VAULT}")),
        ],
        load="never",
    ),
    *scenarios("restore", [("the collection is loaded, before it gets its name", Point("LoadCollection"))], load="always"),
    *scenarios(
        "restore in place",
        [
            ("the first job is submitted from the bucket", Point("Import")),
            ("Milvus is asked for the second job in the bucket", Point("GetImportState", number=2)),
            ("the collection in the bucket gets its name", Point("RenameCollection")),
        ],
        load="never",
    ),
]
REPLACING_RESTORES = scenarios(
    "replacing restore",
    [
        ("the last job is submitted", Point("Import", number=2)),
        ("the old collection is renamed", Point("RenameCollection")),
        ("the new collection gets the name", Point("RenameCollection", number=2)),
        ("the alias points at the new collection", Point("AlterAlias")),
        ("the old collection is dropped", Point("DropCollection")),
        ("it is written that the new collection has the name", Point("put-if", STATE, after="DropCollection")),
    ],
    if_exists="replace",
    load="never",
)
OLD_ROWS = range(1000, 1010)
#: Backups whose rows are also read from Milvus in the end; of the others every object is compared with Milvus's own.
RESTORED = {
    ("backup", "the first object is copied"),
    ("backup", "the complete meta is written"),
    ("replacing backup", "half of the objects are copied"),
    ("replacing backup", "the first level of the meta is written"),
}
