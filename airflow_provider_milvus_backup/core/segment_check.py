"""What of a backup is read, and what that says about its segments: bookkeeping, without any reading of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import binlog_check, layout
from .binlog_check import Checked
from .errors import BackupDamaged
from .manifest import Recorded
from .meta import Collection, Segment
from .pairing import Contents
from .reading import Outcome, Target
from .sampling import Sample, unit_of
from .store import StoredObject
from .verification import BINLOG, ROWS, Finding


@dataclass(slots=True)
class _Unit:
    """What is sampled as one: a segment, or an object that belongs to none."""

    targets: list[Target] = field(default_factory=list)
    waiting: int = 0
    #: Whether all of it is there and whole so far; only then can its rows be counted.
    whole: bool = True
    inserts: dict[int, list[Checked]] = field(default_factory=dict)
    deltas: list[Checked] = field(default_factory=list)


@dataclass(slots=True)
class Examination:
    """The objects of a sample, and what was seen of them so far.

    :param sample: None for everything
    :param read: whether anything is read at all
    :param opened: whether binlogs are opened, too
    """

    contents: Contents
    sample: Sample | None = None
    read: bool = True
    opened: bool = False
    #: Objects that were read and of whose content nothing is known.
    unproven: int = 0
    #: Segments of which all was opened.
    segments: int = 0
    findings: list[Finding] = field(default_factory=list)
    #: Of the objects that were written again since the backup, those whose content is the same.
    same: set[str] = field(default_factory=set)
    _units: dict[str, _Unit] = field(default_factory=dict, init=False)
    #: The segments that a percentage would take next, for it never takes none.
    _spare: tuple[tuple[float, str], _Unit] | None = field(default=None, init=False)
    _segments: dict[str, tuple[Collection, Segment]] = field(default_factory=dict, init=False)
    #: Of each collection the fields that every row has, and its segments.
    _known: dict[int, tuple[frozenset[int], frozenset[int]]] = field(default_factory=dict, init=False)
    _changed: set[str] = field(default_factory=set, init=False)
    _in_parts: dict[int, list[Outcome]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.opened:
            self._segments = {unit: (collection, segment) for collection, segment, unit in self.contents.segments()}

    # ---- what to read ------------------------------------------------------------------------------------------------------

    def expect(self, recorded: Recorded, there: StoredObject) -> None:
        """Take note of an object that is there with the right size, and of what its content is compared with."""
        unit = self._unit(unit_of(recorded.key)) if self.read else None
        if unit is None:
            return
        unit.targets.append(Target(recorded.key, recorded.size, recorded.etag or there.etag, recorded.checksum))
        if recorded.etag and recorded.etag != there.etag:
            self._changed.add(recorded.key)

    def lacks(self, key: str) -> None:
        """Take note of an object that cannot be read, so that the rows of its segment are not counted."""
        if self.read and (unit := self._unit(unit_of(key))):
            unit.whole = False

    def _unit(self, name: str) -> _Unit | None:
        if self.sample is None or self.sample.holds(name):
            return self._units.setdefault(name, _Unit())
        if self.sample.parts:
            return None
        rank = self.sample.rank(name), name
        if self._spare is None or rank <= self._spare[0]:
            kept = self._spare[1] if self._spare and rank == self._spare[0] else _Unit()
            self._spare = rank, kept
            return kept
        return None

    def choose(self) -> None:
        """Close the list of what there is; the sample is complete."""
        if not self._units and self._spare:
            self._units[self._spare[0][1]] = self._spare[1]
        for unit in self._units.values():
            unit.waiting = len(unit.targets)

    @property
    def total(self) -> tuple[int, int]:
        """Objects and bytes to read."""
        found = [target.size for unit in self._units.values() for target in unit.targets]
        return len(found), sum(found)

    @property
    def has_checksums(self) -> bool:
        """Whether the content of any of them can be compared with a checksum of the store."""
        return any(target.checksum for unit in self._units.values() for target in unit.targets)

    def targets(self) -> Iterator[Target]:
        """Iterate over what to read, one segment after the other."""
        for name in sorted(self._units):
            yield from self._units[name].targets

    # ---- what was seen -----------------------------------------------------------------------------------------------------

    def see(self, outcome: Outcome) -> None:
        """Take note of what reading one object showed."""
        target, name = outcome.target, unit_of(outcome.target.key)
        unit = self._units[name]
        if outcome.part:
            outcome.content, content = None, outcome.content
            self._in_parts.setdefault(outcome.part, []).append(outcome)
        else:
            content = outcome.content
            self._judge(outcome)
        if outcome.kind and not outcome.part:
            unit.whole = False
        elif self.opened and content is not None and name in self._segments:
            self._open(unit, target.key, content)
        unit.waiting -= 1
        if not unit.waiting and name in self._segments:
            self._close(unit, *self._segments[name])

    def _judge(self, outcome: Outcome) -> None:
        key = outcome.target.key
        if outcome.kind:
            self.findings.append(self.contents.finding(outcome.kind, key, outcome.detail))
        elif not outcome.proven:
            self.unproven += 1
        elif key in self._changed:
            self.same.add(key)

    def _open(self, unit: _Unit, key: str, content: bytes) -> None:
        try:
            if key.startswith(f"binlogs/{layout.INSERT}/"):
                unit.inserts.setdefault(int(key.split("/")[-2]), []).append(binlog_check.check_insert_log(content, key))
            else:
                unit.deltas.append(binlog_check.check_delta_log(content, key))
        except BackupDamaged as error:
            unit.whole = False
            self.findings.append(self.contents.finding(BINLOG, key, str(error).replace(f" {key!r}", "")))

    def _close(self, unit: _Unit, collection: Collection, segment: Segment) -> None:
        if not unit.whole:
            return
        self.segments += 1
        cid = collection.collection_id
        if cid not in self._known:
            siblings = frozenset(one.segment_id for one in collection.segments())
            self._known[cid] = binlog_check.needed_fields(collection.schema), siblings
        key = layout.segment_dir("binlogs/", layout.INSERT, cid, segment.partition_id, segment.group_id, segment.segment_id)
        for detail in binlog_check.compare_segment(segment.rows, unit.inserts, unit.deltas, *self._known[cid]):
            self.findings.append(Finding(ROWS, key, detail, cid, segment.partition_id, segment.segment_id))
        unit.inserts, unit.deltas = {}, []

    def finish(self) -> None:
        """Judge what was written in parts: where none has the ETag that its parts of this size give, the store makes it otherwise."""
        for outcomes in self._in_parts.values():
            if any(outcome.proven for outcome in outcomes):
                for outcome in outcomes:
                    self._judge(outcome)
            else:
                self.unproven += len(outcomes)
