"""One backup as the catalog shows it, and how its state follows from what is there: pure functions over what :mod:`.catalog` has read.

Nothing that is read is trusted. Three files are written beside a backup later on; times are ISO 8601 with a zone:

==========================  ===========================================================================================================
``provider/hold.json``      not to be deleted: ``{"version": 1, "reason", "owner", "until": time or null, "since": time}``
``provider/verified.json``  how its data was found: ``{"version": 1, "backup_id", "level", "time", "ok", "damaged_segments": [id]}``, …
``provider/drill.json``     how its last drill went: ``{"version": 1, "backup_id", "time", "ok", "seconds", …}``, see :mod:`.drill_report`
==========================  ===========================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple, TypeVar

from . import layout, meta
from .attempt import ATTEMPT_FILE, Attempt
from .errors import BackupDamaged
from .jsonreader import Node
from .lease import UNKNOWN, Holding
from .manifest import MANIFEST_FILE
from .plan import META_ONLY, PLAN_FILE
from .raw_schema import SCHEMAS_FILE

COMPLETE, UNFINISHED, DAMAGED = "complete", "unfinished", "damaged"
#: The store did not let it be looked at: nothing is known of it, so nothing may be concluded.
UNREADABLE = "unreadable"
OURS, OFFICIAL = "airflow-provider-milvus-backup", "milvus-backup"

FACTS_VERSION = HOLD_VERSION = VERIFIED_VERSION = DRILLED_VERSION = 1
FACTS_FILE, HOLD_FILE, VERIFIED_FILE, DRILLED_FILE = "catalog.json", "hold.json", "verified.json", "drill.json"
#: Larger ones are not what they should be.
MAX_BYTES = 16 * 1024**2

#: The files that are read, by their keys below the backup's directory.
MARK = f"meta/{layout.COMMIT_MARK}"
FACTS, HOLD, VERIFIED, DRILLED = (f"provider/{file}" for file in (FACTS_FILE, HOLD_FILE, VERIFIED_FILE, DRILLED_FILE))
ATTEMPT, LEASE, SCHEMAS, MANIFEST = (f"provider/{file}" for file in (ATTEMPT_FILE, "lease.json", SCHEMAS_FILE, MANIFEST_FILE))
PLAN, SUMMARY = f"provider/{PLAN_FILE}", "provider/summary.json"
#: What the run that makes a backup writes; the rest of our files can stand beside a backup of the official tool as well.
WRITTEN = frozenset({ATTEMPT, PLAN, SCHEMAS, SUMMARY, FACTS, MANIFEST})
#: Our files, each with a key that its content has. Other programs have files of these names, too: a list of providers, say.
OWN = {
    **dict.fromkeys((ATTEMPT, FACTS, VERIFIED, DRILLED, SCHEMAS), "backup_id"),
    LEASE: "owner",
    HOLD: "reason",
    PLAN: "full_meta",
    SUMMARY: "server_version",
    MANIFEST: "sha256",
}
_META = frozenset(f"meta/{file}" for file in (*layout.META_FILES, "channel_cp_meta.json"))
_DATA = ("binlogs/insert_log/", "binlogs/delta_log/", "bundle/snapshots/", "bundle/exports/")
#: A key of data as no other program has it: directories of ids below, and of exports.
_OF_MILVUS = re.compile(
    r"(?:binlogs/(?:insert|delta)_log/\d{1,19}|bundle/(?:snapshots/\d{1,19}|exports/[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4}))(?:/|$)"
)
#: How much later than the commit mark a recorded time may be: stores answer from several machines.
_SKEW = timedelta(minutes=1)

T = TypeVar("T")


class File(NamedTuple):
    """One file of a backup: its size in bytes, and when it was written by the store's clock."""

    size: int
    written: datetime


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One backup as the catalog shows it; None is what cannot be known without the whole meta, or at all."""

    name: str
    state: str
    #: Why it is not complete, in a sentence.
    reason: str = ""
    backup_id: str = ""
    #: Who wrote it: :data:`OURS` or :data:`OFFICIAL`.
    tool: str = ""
    #: ``binlog``, ``snapshot``, or one that this version does not know.
    format: str = ""
    server_version: str = ""
    strategy: str = ""
    #: When the run that finished it began: as recorded, nothing for most backups of the official tool.
    created: datetime | None = None
    #: When the commit mark was written.
    committed: datetime | None = None
    #: The last sign of life of whoever writes an unfinished one.
    written: datetime | None = None
    #: Bytes of all data.
    size: int | None = None
    objects: int | None = None
    rows: int | None = None
    collections: list[str] | None = None
    #: ``{reason, owner, until, since}`` of a backup that is not to be deleted; None when it may be, or may be again.
    hold: dict[str, Any] | None = None
    #: ``{mode, until, legal_hold}`` of one that the store itself keeps, by Object Lock or a legal hold; None when it does not.
    locked: dict[str, Any] | None = None
    #: ``{level, time, ok, damaged_segments, sample}`` of the last time it was verified; a sample is a part of it, None the whole.
    verified: dict[str, Any] | None = None
    #: ``{time, ok, seconds, collections}`` of the last time it was restored to prove that it can be; collections is None for all of them.
    drilled: dict[str, Any] | None = None
    #: Who has begun an unfinished one.
    owner: str = ""
    #: Who writes, restores or deletes it right now.
    leases: list[str] = field(default_factory=list)

    @property
    def time(self) -> datetime | None:
        """The moment that stands for the backup in time: as recorded, else when it was committed, else the last sign of life."""
        return self.created or self.committed or self.written

    @property
    def found_damaged(self) -> bool:
        """Whether the last verification found damage."""
        return self.verified is not None and not self.verified["ok"]

    @property
    def without_data(self) -> bool:
        """Whether it is complete and holds no rows: of schemas alone, or of collections that were empty."""
        return self.state == COMPLETE and (self.strategy == META_ONLY or self.size == 0)

    @property
    def held(self) -> bool:
        """Whether a hold is on it."""
        return self.hold is not None

    @property
    def lock(self) -> str:
        """What the store keeps it by: ``locked until 2027-01-31 00:00 (GOVERNANCE)``; empty when it does not."""
        if not self.locked:
            return ""
        until = _moment(str(self.locked["until"] or ""))
        parts = [f"locked until {until:%Y-%m-%d %H:%M} ({self.locked['mode']})"] if until else []
        return " and ".join([*parts, *(["under legal hold"] if self.locked["legal_hold"] else [])])

    @property
    def leased(self) -> bool:
        """Whether some run works on it right now."""
        return bool(self.leases)

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as JSON; times in ISO 8601, UTC."""
        shown = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "collections"}
        moments = {key: value.isoformat(timespec="seconds") for key, value in shown.items() if isinstance(value, datetime)}
        count = None if self.collections is None else len(self.collections)
        return {**shown, **moments, "collection_count": count, "collection_names": self.collections}


def is_backup(files: Iterable[str], contents: Mapping[str, bytes]) -> bool:
    """Return whether a directory with these files, by their keys below it, holds something that only a backup has.

    :param contents: of those of our own files that were read: their names alone prove nothing
    """
    return any(key in _META or _OF_MILVUS.match(key) for key in files) or any(_is_ours(key, content) for key, content in contents.items())


def _is_ours(key: str, content: bytes) -> bool:
    try:
        return Node.parse(content, key).value.get(OWN[key]) is not None
    except BackupDamaged:
        return False


def entry_of(name: str, files: Mapping[str, File], contents: Mapping[str, bytes]) -> CatalogEntry:
    """Return the entry of a backup that has a commit mark: complete, or damaged with the reason.

    :param files: what is there, by the key below the backup's directory
    :param contents: those of the files that were read
    """
    entry = CatalogEntry(
        name,
        COMPLETE,
        tool=OURS if {ATTEMPT, FACTS} & files.keys() else OFFICIAL,
        committed=files[MARK].written,
    )
    try:
        if files[MARK].size > MAX_BYTES:
            raise BackupDamaged(f"{layout.COMMIT_MARK} has {files[MARK].size:,} bytes; it is a small file in every backup")
        entry = _with_mark(entry, contents[MARK])
        _check_meta(entry.format, files)
    except BackupDamaged as error:
        return replace(entry, state=DAMAGED, reason=str(error))
    entry = _with_facts(entry, contents.get(FACTS, b""))
    return replace(
        entry,
        verified=read_verified(contents[VERIFIED], entry.backup_id) if VERIFIED in contents else None,
        drilled=read_drilled(contents[DRILLED], entry.backup_id) if DRILLED in contents else None,
    )


def unfinished_of(name: str, files: Mapping[str, File], contents: Mapping[str, bytes]) -> CatalogEntry:
    """Return the entry of a backup that has no commit mark.

    :param files: as for :func:`entry_of`, the data included where we did not write it
    """
    data = [file.size for key, file in files.items() if key.startswith(_DATA)]
    # A hold and the lease of a deletion that died are ours whoever wrote the backup, and say nothing of when that was.
    theirs = [] if WRITTEN & files.keys() else [file for key, file in files.items() if key in _META or key.startswith(_DATA)]
    ours = not theirs
    attempt, why = _read(Attempt.from_json, contents.get(ATTEMPT))
    holding, why_not = _read(Holding.from_json, contents.get(LEASE))
    unreadable = "".join(f"; {problem}" for problem in (why, why_not) if problem)
    return CatalogEntry(
        name,
        UNFINISHED,
        f"there is no commit mark: it was not finished, or not deleted completely{unreadable}",
        backup_id=attempt.backup_id if attempt else "",
        tool=OURS if ours else OFFICIAL,
        written=max(file.written for file in (theirs or files.values())),
        size=None if ours else sum(data),
        objects=None if ours else len(data),
        owner=str(author.owner) if (author := attempt or holding) else "",
    )


def _read(reader: Callable[[bytes], T], content: bytes | None) -> tuple[T | None, str]:
    """Return what a file says, or why it cannot be read."""
    try:
        return (None if content is None else reader(content)), ""
    except BackupDamaged as error:
        return None, str(error)


def _with_mark(entry: CatalogEntry, content: bytes) -> CatalogEntry:
    root = Node.parse(content, layout.COMMIT_MARK)
    if root.string("name") != entry.name:
        raise BackupDamaged(
            f"{root.where} is of backup {root.string('name')[:128]!r}: the directory was copied or renamed; give it that name again"
        )
    if not root.string("id"):
        raise root.wrong("id", "an id")
    return replace(
        entry,
        backup_id=root.string("id"),
        format=root.string("format") or "binlog",
        server_version=root.string("milvus_version"),
        size=root.integer("size"),
        created=_believed(_unix(root.integer("backup_timestamp") / 1000), entry.committed),  # milvus-backup set it before 0.4
    )


def _check_meta(format_: str, files: Mapping[str, File]) -> None:
    """Raise BackupDamaged when the mark stands alone: the official tool writes it first, and can die before it writes the others."""
    levels = layout.META_FILES[1:2] if format_ == meta.SNAPSHOT else layout.META_FILES[1:4]
    lost = [file for file in levels if not (found := files.get(f"meta/{file}")) or not found.size]
    full = files.get("meta/full_meta.json")
    if lost and not (full and full.size):
        raise BackupDamaged(
            f"{layout.COMMIT_MARK} is there, but neither full_meta.json nor {', '.join(lost)}: the tool that wrote it died, or files were "
            "deleted"
        )


def _with_facts(entry: CatalogEntry, content: bytes) -> CatalogEntry:
    """Return the entry with what ``provider/catalog.json`` adds; one of another attempt, or an unreadable one, adds nothing."""
    try:
        root = Node.parse(content, FACTS_FILE)
        if root.integer("version") != FACTS_VERSION or root.string("backup_id") != entry.backup_id:
            return entry
        return replace(
            entry,
            strategy=root.string("strategy"),
            created=_believed(_moment(root.string("created")), entry.committed),
            objects=root.integer("objects"),
            rows=None if entry.format == meta.SNAPSHOT else root.integer("rows"),
            collections=root.items("collections", str),
        )
    except BackupDamaged:
        return entry


def read_lease(content: bytes, age: float) -> str:
    """Return who holds a lease that was renewed ``age`` seconds ago, empty when nobody does; one that cannot be read lives as long."""
    holding = Holding.of(content)
    if age >= holding.seconds:
        return ""
    return UNKNOWN if holding.owner.identity == UNKNOWN else f"{holding}, to {holding.doing}"


def read_hold(content: bytes, now: datetime) -> dict[str, Any] | None:
    """Return the hold that ``provider/hold.json`` is, None when it is over; one that cannot be read holds as well, without end."""
    try:
        root = Node.parse(content, HOLD_FILE)
        if root.integer("version") != HOLD_VERSION:
            raise root.wrong("version", str(HOLD_VERSION))
        until = root.string("until")
        end = _moment(until)
        if until and not end:
            raise root.wrong("until", "a time with its zone")
        if end and end <= now:
            return None
        return {
            "reason": root.string("reason"),
            "owner": root.string("owner"),
            "until": until or None,
            "since": root.string("since") or None,
        }
    except BackupDamaged as error:
        return {"reason": f"unknown: {error}", "owner": "", "until": None, "since": None}


def read_verified(content: bytes, backup_id: str) -> dict[str, Any] | None:
    """Return what ``provider/verified.json`` says; None when it cannot be read, or is of another backup, which this one has replaced."""
    try:
        root = Node.parse(content, VERIFIED_FILE)
        of, time = root.string("backup_id"), _moment(root.string("time"))
        if root.integer("version") != VERIFIED_VERSION or of != backup_id or not time or not root.string("level"):
            return None
        damaged = root.items("damaged_segments", int)
        sample = root.string("sample") or None
        return {
            "level": root.string("level"),
            "time": root.string("time"),
            "ok": root.boolean("ok"),
            "damaged_segments": damaged,
            "sample": sample,
        }
    except BackupDamaged:
        return None


def read_drilled(content: bytes, backup_id: str) -> dict[str, Any] | None:
    """Return what ``provider/drill.json`` says; None when it cannot be read, or is of another backup, which this one has replaced."""
    try:
        root = Node.parse(content, DRILLED_FILE)
        if root.integer("version") != DRILLED_VERSION or root.string("backup_id") != backup_id or not _moment(root.string("time")):
            return None
        names = None if root.boolean("whole") else [node.string("name") for node in root.nodes("collections")]
        return {"time": root.string("time"), "ok": root.boolean("ok"), "seconds": root.number("seconds"), "collections": names}
    except BackupDamaged:
        return None


def _moment(text: str) -> datetime | None:
    """Return the time that an ISO 8601 text with a zone means, None for anything else."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment.astimezone(timezone.utc) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _unix(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, timezone.utc) if 0 < seconds < 2**33 else None


def _believed(created: datetime | None, committed: datetime | None) -> datetime | None:
    """Return a recorded time, None when it lies after the commit: then it is no time, or of a clock that was wrong."""
    if not created or not committed or created > committed + _SKEW:
        return None
    return min(created, committed)
