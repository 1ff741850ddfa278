"""What a Milvus can do: one table of capabilities and the releases that brought them. Pure.

Everything that depends on a server's version asks :meth:`Capabilities.has`. A version says little about a build from a branch, or about
a proxy in between; so where a capability can be found out by asking for it (``probe``), whoever asks writes down what came of it with
:meth:`Capabilities.learn`, and that beats the version. ``docs/servers.md`` shows the table to users.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

Release = tuple[int, int, int]

#: The first release whose backups and imports this package knows.
SUPPORTED: Release = (2, 2, 9)
#: What a development build of a line counts as: newer than every release of it.
_DEVELOPMENT = 9999
#: What a version that nobody can read counts as.
NEWEST: Release = (99, 0, 0)


class Capability(Enum):
    """One thing that some releases can do; the value is how a message says it."""

    IMPORT_V2 = "import one insert path without a delta path"
    REST_IMPORT = "import by REST, many segments per job"
    L0_SEGMENTS = "keep deletes in L0 segments"
    L0_IMPORT = "import L0 segments"
    MANY_L0 = "import several L0 segments per job"
    HYBRID_END_TS = "take end_ts as a hybrid timestamp"
    SEGMENT_LEVEL = "say which segments are L0"
    SEGMENTS_DESCRIBE = "name the logs of a segment"
    STORAGE_V2 = "read and write storage version 2"
    IMPORTING_LISTED = "list segments of running imports"
    CLUSTERED_ONCE = "list clustered segments only when they replace their inputs"
    GC_PAUSE = "pause garbage collection"
    GC_TICKETS = "pause garbage collection per collection"
    FLUSH_ALL = "flush all collections at one point in time"
    DESCRIBE_DATABASE = "describe databases"
    RBAC = "back up and restore users and roles"
    ARRAY = "have arrays"
    FLOAT16_VECTOR = "have float16 and bfloat16 vectors"
    SPARSE_VECTOR = "have sparse vectors"
    INT8_VECTOR = "have int8 vectors"
    STRUCT_ARRAY = "have arrays of structs"
    GEOMETRY = "have geometry fields"
    TIMESTAMPTZ = "have timestamptz fields"
    TEXT = "have text fields"
    NULLABLE = "have nullable fields"
    NULLABLE_VECTOR = "have nullable vector fields"
    ANALYZER = "analyze text"
    FUNCTIONS = "have functions"
    MORE_FUNCTIONS = "have functions other than BM25"
    ADD_FIELD = "add fields to a collection"
    ADD_STRUCT = "add arrays of structs to a collection"
    FUNC_RUNTIME_CHECK = "leave out the check of functions"
    SNAPSHOTS = "export and restore snapshots"


class Since(NamedTuple):
    """When a capability came, when it went, and how it is found out where the version is not believed.

    :param first: the first release of every line that got it; lines after the last one named have it too
    :param until: the first release without it, None when there is none
    :param probe: what is asked, empty where only the version tells
    :param source: where Milvus shows it
    """

    first: tuple[Release, ...]
    until: Release | None = None
    probe: str = ""
    source: str = ""


TABLE: dict[Capability, Since] = {
    Capability.IMPORT_V2: Since(((2, 4, 0),), source="internal/proxy/impl.go, convertToV2ImportRequest"),
    Capability.REST_IMPORT: Since(((2, 4, 0),), probe="jobs/import/list", source="milvus #30343"),
    Capability.L0_SEGMENTS: Since(((2, 4, 0),), source="internal/datacoord"),
    Capability.L0_IMPORT: Since(((2, 4, 5),), until=(3, 0, 0), source="milvus #33712, #51569"),
    Capability.MANY_L0: Since(((2, 6, 5),), until=(3, 0, 0), source="milvus #43213"),
    Capability.HYBRID_END_TS: Since(((2, 4, 24), (2, 5, 6)), source="milvus #40333, #40334"),
    Capability.SEGMENT_LEVEL: Since(((2, 4, 7),), source="milvus #35023"),
    Capability.SEGMENTS_DESCRIBE: Since(((2, 5, 8),), probe="segments/describe", source="milvus #40466"),
    Capability.STORAGE_V2: Since(((2, 6, 0),), source="milvus #43348"),
    Capability.IMPORTING_LISTED: Since(((2, 4, 0),), source="internal/datacoord/import_scheduler.go, services.go, GetSegmentsByStates"),
    Capability.CLUSTERED_ONCE: Since(((2, 5, 0),), source="milvus #38512"),
    Capability.GC_PAUSE: Since(((2, 3, 4),), probe="garbage_collection/pause", source="milvus #29212"),
    Capability.GC_TICKETS: Since(((2, 6, 8),), probe="a ticket in the answer", source="milvus #46201"),
    Capability.FLUSH_ALL: Since(((2, 6, 11),), source="internal/datacoord/services.go, FlushAll"),
    Capability.DESCRIBE_DATABASE: Since(((2, 4, 3),), probe="DescribeDatabase", source="milvus-backup, internal/client/milvus/grpc.go"),
    Capability.RBAC: Since(((2, 4, 9),), probe="BackupRBAC", source="milvus #35513"),
    Capability.ARRAY: Since(((2, 3, 2),), source="release notes of 2.3.2, milvus #26369"),
    Capability.FLOAT16_VECTOR: Since(((2, 4, 0),), source="release notes of 2.4"),
    Capability.SPARSE_VECTOR: Since(((2, 4, 0),), source="release notes of 2.4"),
    Capability.INT8_VECTOR: Since(((2, 6, 0),), source="release notes of 2.6"),
    Capability.STRUCT_ARRAY: Since(((2, 6, 4),), source="release notes of 2.6.4"),
    Capability.GEOMETRY: Since(((2, 6, 4),), source="documentation of geometry fields"),
    Capability.TIMESTAMPTZ: Since(((2, 6, 6),), source="documentation of timestamptz fields"),
    Capability.TEXT: Since(((3, 0, 0),), source="release notes of 3.0"),
    Capability.NULLABLE: Since(((2, 5, 0),), source="release notes of 2.5"),
    Capability.NULLABLE_VECTOR: Since(((2, 6, 18), (3, 0, 0)), source="milvus #45993, #49520"),
    Capability.ANALYZER: Since(((2, 5, 0),), source="release notes of 2.5"),
    Capability.FUNCTIONS: Since(((2, 5, 0),), source="release notes of 2.5"),
    Capability.MORE_FUNCTIONS: Since(((2, 6, 0),), source="release notes of 2.6"),
    Capability.ADD_FIELD: Since(((2, 6, 0),), source="release notes of 2.6"),
    Capability.ADD_STRUCT: Since(((3, 0, 0),), source="milvus #49807"),
    Capability.FUNC_RUNTIME_CHECK: Since(((2, 6, 8),), source="milvus-backup, core/restore/coll_ddl_task.go"),
    Capability.SNAPSHOTS: Since(((3, 0, 1),), probe="GetExportSnapshotState", source="milvus #52476"),
}


class Capabilities:
    """What one Milvus can do.

    :param version: what it calls its version
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.release = parse_version(version)
        self._learned: dict[Capability, bool] = {}

    def has(self, capability: Capability) -> bool:
        """Return whether it can do this: as a probe has shown, else as its version says."""
        return self._learned.get(capability, offers(self.release, capability))

    def learn(self, capability: Capability, works: bool) -> None:
        """Write down what a probe has shown."""
        self._learned[capability] = works


def offers(release: Release, capability: Capability) -> bool:
    """Return whether a release has a capability by the table."""
    since = TABLE[capability]
    if since.until and release >= since.until:
        return False
    *lines, last = since.first
    return release >= last or any(line <= release and line[:2] == release[:2] for line in lines)


def first_release(capability: Capability) -> str:
    """Return the releases that brought a capability, as text: ``2.4.24 and 2.5.6``."""
    return " and ".join(".".join(map(str, release)) for release in TABLE[capability].first)


def parse_version(text: str) -> Release:
    """Return (major, minor, patch) of what a server calls its version.

    Release (``v2.4.1``), four-part (``2.5.20.1``) and suffixed (``v2.3.5-lite``) versions give their first three numbers; development
    builds (``2.6-20260404-abc``, ``… Compatible with Milvus 2.6``) count as the newest of their line, anything else as the newest of all.
    """
    text = text.strip()
    if match := re.match(r"v?(\d+)\.(\d+)\.(\d+)", text):
        return int(match[1]), int(match[2]), int(match[3])
    if match := re.search(r"(?:^v?|Milvus v?)(\d+)\.(\d+)(?:\.(\d+))?(?:-|$|\s|\))", text):
        return int(match[1]), int(match[2]), int(match[3]) if match[3] else _DEVELOPMENT
    return NEWEST


def is_release(text: str) -> bool:
    """Return whether a text is a version number, with or without a suffix; a build tag may be a branch or a commit."""
    return re.match(r"v?\d+\.\d+\.\d+(?:[.\-+]|$)", text.strip()) is not None
