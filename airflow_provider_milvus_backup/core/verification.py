"""What a verification has found: plain data, what is written beside the backup, and the sentence that a person reads.

The result of the last one lies in ``provider/verified.json``. Beside what :mod:`.catalog_entry` reads of it, it says:

===============  ==================================================================================================================
``sample``       the part that was read, as it was asked for (``3/30``, ``5%``); null when everything was
``compared_with``  what the objects were compared with: ``manifest``, or ``meta`` where the backup has no manifest
``objects``      how many there are, of how many ``bytes``; ``read_objects`` and ``read_bytes`` of them were read
``unproven``     objects that were read, and whose content nothing is known of to compare with
``findings``     the first 100: ``{kind, key, detail}``; ``damaged`` is how many there are
===============  ==================================================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .catalog_entry import VERIFIED_VERSION
from .errors import BackupDamaged
from .report import counted, listed

#: The levels, each of which does what the one before does, too.
OBJECTS, CHECKSUMS, BINLOGS = "objects", "checksums", "binlogs"
LEVELS = (OBJECTS, CHECKSUMS, BINLOGS)

#: What can be wrong with a backup.
META, MANIFEST, SCHEMAS = "meta", "manifest", "schemas"
MISSING, SIZE, CHANGED, EXTRA = "missing", "size", "changed", "extra"
UNREADABLE, CONTENT, BINLOG, ROWS = "unreadable", "content", "binlog", "rows"

#: Findings that are written beside the backup, and those that a message names.
_STORED, _TOLD = 100, 3
#: Segments that are written beside the backup.
_SEGMENTS = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    :param kind: ``meta``, ``manifest`` or ``schemas``: a file cannot be read, or is not the one that was written; of an object ``missing``,
        ``size``, ``changed`` (written again since the backup), ``extra`` (a restore would import it, too), ``unreadable``, ``content`` (not
        the bytes that were backed up), ``binlog`` (not what Milvus writes); ``rows``: the logs of a segment fit neither each other nor the
        meta
    :param key: of the object, below the backup's directory; of a segment its directory
    :param detail: what was found and what was expected
    :param collection_id: 0 where it concerns the whole backup
    :param segment_id: 0 where it concerns no single segment
    """

    kind: str
    key: str
    detail: str
    collection_id: int = 0
    partition_id: int = 0
    segment_id: int = 0

    def __str__(self) -> str:
        return f"{self.key}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is damaged of one collection, and what of it is not: ``segments`` of ``of_segments``, with ``rows`` of ``of_rows``."""

    collection: str
    segments: int
    of_segments: int
    rows: int
    of_rows: int
    #: Partitions that hold damaged segments.
    partitions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        where = f" in partitions {listed(self.partitions)}" if self.partitions else ""
        kept = self.of_segments - self.segments
        return (
            f"{self.collection}: {self.segments:,} of {counted(self.of_segments, 'segment')} damaged{where}; the other {kept:,} hold "
            f"{self.of_rows - self.rows:,} of {self.of_rows:,} rows"
        )


@dataclass(slots=True)
class Verification:
    """The result of one verification."""

    name: str
    uri: str
    backup_id: str
    level: str
    sample: str | None = None
    compared_with: str = MANIFEST
    #: When, by the store's clock: ISO 8601, UTC.
    time: str = ""
    objects: int = 0
    bytes: int = 0
    read_objects: int = 0
    read_bytes: int = 0
    unproven: int = 0
    #: Segments whose binlogs were opened.
    segments: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    #: Collections of which nothing damaged was found.
    intact: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def damaged_segments(self) -> list[int]:
        """The ids of the segments that findings are about."""
        return sorted({finding.segment_id for finding in self.findings} - {0})

    def to_dict(self) -> dict[str, Any]:
        """Return what a task returns: numbers, and a few names."""
        return {
            "name": self.name,
            "uri": self.uri,
            "level": self.level,
            "sample": self.sample,
            "ok": self.ok,
            "compared_with": self.compared_with,
            "time": self.time,
            **{key: getattr(self, key) for key in ("objects", "bytes", "read_objects", "read_bytes", "unproven", "segments")},
            "seconds": round(self.seconds, 3),
            "damaged": len(self.findings),
        }

    def check(self) -> None:
        """Raise BackupDamaged unless nothing was found; the message says what is damaged and what still restores."""
        if self.ok:
            return
        examples = "; ".join(str(finding) for finding in self.findings[:_TOLD])
        more = f"; and {len(self.findings) - _TOLD:,} more" if len(self.findings) > _TOLD else ""
        ids = self.damaged_segments
        segments = f" in segment{'' if len(ids) == 1 else 's'} {listed(ids)}" if ids else ""
        # What to do comes first: keys are long.
        raise BackupDamaged(
            f"backup {self.name!r} is damaged: {counted(len(self.findings), 'finding')}{segments}. {self.still_restores()}. "
            f"Found: {examples}{more}"
        )

    def still_restores(self) -> str:
        """Return what is damaged by collection, and what can be restored all the same."""
        lines = [str(damage) for damage in self.damage[:_TOLD]]
        if len(self.damage) > _TOLD:
            lines.append(f"and {len(self.damage) - _TOLD:,} more collections")
        whole = f"These collections are whole and can be restored: {listed(self.intact)}" if self.intact else "No collection is whole"
        return ". ".join([*([f"Damaged: {'; '.join(lines)}"] if lines else []), f"{whole}. Take a new backup"])


def overlooks(found: Verification, earlier: Mapping[str, Any]) -> bool:
    """Return whether a verification that found nothing cannot have seen the damage that an earlier one has found.

    :param earlier: ``level``, ``sample`` and ``ok`` of that one
    """
    if earlier["ok"] or not found.ok:
        return False
    deepest = len(LEVELS) - 1  # a level that is not known here may be deeper than all that are
    deep = LEVELS.index(found.level) >= (LEVELS.index(earlier["level"]) if earlier["level"] in LEVELS else deepest)
    # The listing is always compared as a whole; every percentage is another part, be it written alike.
    whole = found.sample is None or earlier["level"] == OBJECTS
    return not (deep and (whole or (found.sample == earlier["sample"] and "%" not in str(found.sample))))


def to_json(found: Verification) -> bytes:
    """Return the content of ``provider/verified.json``."""
    shown = {key: value for key, value in found.to_dict().items() if key not in ("name", "uri")}
    findings = [{"kind": one.kind, "key": one.key, "detail": one.detail} for one in found.findings[:_STORED]]
    segments = found.damaged_segments[:_SEGMENTS]
    whole = {"version": VERIFIED_VERSION, "backup_id": found.backup_id, **shown, "damaged_segments": segments, "findings": findings}
    return json.dumps(whole).encode()
