"""What should be there beside what is there, and what a difference between the two concerns: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from . import layout, meta, snapshot_plan
from .manifest import Recorded
from .store import StoredObject
from .verification import MANIFEST, SCHEMAS, Damage, Finding

Pair = tuple[Recorded | None, StoredObject | None]


def pair(recorded: Iterable[Recorded], there: Iterable[StoredObject]) -> Iterator[Pair]:
    """Iterate over what is on both sides, and at the end over what is on one only.

    Both sides come by key, so that what has not found its other half yet is little. Where a store lists in another order it is more, and
    the result is the same.
    """
    expected, found = iter(recorded), iter(there)
    lacking: dict[str, Recorded] = {}
    spare: dict[str, StoredObject] = {}
    left, right = next(expected, None), next(found, None)
    while left or right:
        if left and right and left.key == right.key:
            yield left, right
            left, right = next(expected, None), next(found, None)
        elif left and (right is None or left.key < right.key):
            if other := spare.pop(left.key, None):
                yield left, other
            else:
                lacking[left.key] = left
            left = next(expected, None)
        elif right:
            if one := lacking.pop(right.key, None):
                yield one, right
            else:
                spare[right.key] = right
            right = next(found, None)
    yield from ((one, None) for one in lacking.values())
    yield from ((None, other) for other in spare.values())


@dataclass(slots=True)
class Contents:
    """What is where in a backup, by its meta."""

    backup: meta.Backup
    #: Directories from which a restore imports everything.
    _directories: set[str] = field(default_factory=set)
    #: Collections by the directory of their bundle.
    _bundles: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for collection in self.backup.collections:
            if collection.snapshot:
                root = snapshot_plan.bundle_root(collection.snapshot.metadata_path)
                self._bundles.setdefault(root, []).append(collection.collection_id)
            for segment in collection.segments():
                for kind in (layout.INSERT, layout.DELTA):
                    partition = layout.partition_dir("binlogs", kind, collection.collection_id, segment.partition_id)
                    # Before 0.4.4 segments lay in the partition's directory itself, and that is what is imported.
                    whole = segment.group_id is None and not segment.is_l0
                    self._directories.add(partition if whole else f"{partition}{segment.group_id or segment.segment_id}/")

    def objects(self) -> list[Recorded]:
        """Return what the meta says is there, by key; it does not know ETags."""
        found = [
            Recorded(f"{base}{logs.field_id}/{log.log_id}" if kind == layout.INSERT else f"{base}{log.log_id}", log.size, "")
            for collection in self.backup.collections
            for s in collection.segments()
            for kind, fields in ((layout.INSERT, s.inserts), (layout.DELTA, s.deltas))
            for base in [layout.segment_dir("binlogs/", kind, collection.collection_id, s.partition_id, s.group_id, s.segment_id)]
            for logs in fields
            for log in logs.logs
        ]
        return sorted(found)

    def would_be_imported(self, key: str) -> bool:
        """Return whether a restore takes an object along that is not part of the backup: it lies in the directory of a segment."""
        parts = key.split("/")
        return any("/".join(parts[:depth]) + "/" in self._directories for depth in (4, 5))

    def finding(self, kind: str, key: str, detail: str) -> Finding:
        """Return a finding about an object, with what its key says it belongs to."""
        parts = key.split("/")
        if parts[0] == "binlogs" and len(parts) > 5:
            segment = parts[-3] if parts[1] == layout.INSERT else parts[-2]
            ids = [int(part) if part.lstrip("-").isdigit() else 0 for part in (parts[2], parts[3], segment)]
            return Finding(kind, key, detail, *ids)
        shared = next((ids for root, ids in self._bundles.items() if key.startswith(root)), [])
        return Finding(kind, key, detail, shared[0] if shared else 0)

    def judge(self, findings: Iterable[Finding]) -> tuple[list[Damage], list[str]]:
        """Return what is damaged by collection, and the collections in which nothing was found.

        A finding about the meta itself concerns everything, and then none is said to be whole.
        """
        segments: dict[int, set[int]] = {}
        for one in findings:
            if one.kind in (MANIFEST, SCHEMAS):  # nothing that a restore cannot do without
                continue
            segments.setdefault(one.collection_id, set()).add(one.segment_id)
        damaged = set(segments)
        for ids in self._bundles.values():
            damaged |= set(ids) if damaged & set(ids) else set()
        damage = [self._damage(c, segments.get(c.collection_id, {0})) for c in self.backup.collections if c.collection_id in damaged]
        intact = [] if 0 in segments else [str(c.name) for c in self.backup.collections if c.collection_id not in damaged]
        return damage, intact

    def _damage(self, collection: meta.Collection, damaged: set[int]) -> Damage:
        every = list(collection.segments())
        hit = [segment for segment in every if segment.segment_id in damaged or 0 in damaged]
        names = {partition.partition_id: partition.name for partition in collection.partitions}
        where = sorted({names.get(segment.partition_id, "all partitions") for segment in hit})
        return Damage(str(collection.name), len(hit), len(every), sum(segment.rows for segment in hit), collection.rows, where)

    def segments(self) -> Iterator[tuple[meta.Collection, meta.Segment, str]]:
        """Iterate over all segments, with what each is sampled by."""
        for collection in self.backup.collections:
            for segment in collection.segments():
                yield collection, segment, f"{collection.collection_id}/{segment.partition_id}/{segment.segment_id}"
