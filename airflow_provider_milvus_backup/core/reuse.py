"""What an earlier attempt or an earlier backup copied, and what of it a new plan may use again: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from . import layout, meta
from .copier import Copy
from .errors import BackupExists
from .plan import BackupPlan
from .store import StoredObject

OTHER_SIZE, UNPROVEN = "of another size", "not provably the same"


@dataclass(slots=True)
class Kept:
    """What of the destination stays, and what does not."""

    objects: int = 0
    #: Why objects that are there are copied again, with their number.
    again: Counter[str] = field(default_factory=Counter)
    #: Keys of objects to delete: they are copied again, or no longer part of the backup.
    remove: list[str] = field(default_factory=list)


def reusable(copy: Copy, there: StoredObject, recorded: Mapping[str, str]) -> bool:
    """Return whether an object at the destination is provably what the copy would make.

    It must have the size, and either the ETag that the source has now, or have been copied from a source that had this ETag: copies in
    parts and copies between stores get an ETag of their own.

    :param recorded: the ETag of the source by destination, from the plan of the attempt that copied it
    """
    return there.size == copy.size and bool(copy.etag) and copy.etag in (there.etag, recorded.get(copy.destination))


def sort_out(copies: Iterable[Copy], there: Mapping[str, StoredObject], recorded: Mapping[str, str]) -> Kept:
    """Return which objects of an unfinished attempt stay. Whatever is not provably right goes, before the new plan is written.

    :param there: what is at the destination, by key
    """
    kept, named = Kept(), set()
    for copy in copies:
        if (found := there.get(copy.destination)) is None:
            continue
        named.add(copy.destination)
        if reusable(copy, found, recorded):
            kept.objects += 1
        else:
            kept.again[OTHER_SIZE if found.size != copy.size else UNPROVEN] += 1
            kept.remove.append(copy.destination)
    kept.remove += [key for key in there if key not in named]
    return kept


def apart(plan: BackupPlan, there: Mapping[str, StoredObject], recorded: Mapping[str, str], protected: Collection[str]) -> BackupPlan:
    """Return the plan with segments moved into other group directories, so that copying it changes nothing of a finished backup.

    A segment keeps a directory that holds exactly what it needs, or a part of it and nothing of the finished backup. Otherwise it gets
    one that does not exist yet: the finished backup would be another one if a directory of it gained so much as a delta log.

    :param protected: keys of the finished backup
    :raises BackupExists: an L0 segment, whose directory cannot be another one, has changed
    """
    binlogs = layout.binlogs_dir(plan.backup_root, plan.backup.name)
    groups: dict[tuple[int, int], dict[int, set[str]]] = {}
    for key in there:
        if parsed := layout.parse_group(binlogs, key):
            collection, partition, group = parsed
            groups.setdefault((collection, partition), {}).setdefault(group, set()).add(key)

    def moved(collection: meta.Collection, segment: meta.Segment) -> meta.Segment:
        taken = groups.setdefault((collection.collection_id, segment.partition_id), {})
        # The official tool looks for the deletes of an L0 segment under its own id.
        for group in (segment.group_id, *(sorted(taken) if not segment.is_l0 else ())):
            candidate = replace(segment, group_id=group)
            present = taken.get(group, set()) if group is not None else _ungrouped(plan, collection, segment, there)
            needed = {copy.destination: copy for copy in plan.segment_copies(collection.collection_id, candidate)}
            fits = all(key in needed and reusable(needed[key], there[key], recorded) for key in present)
            if fits and (len(present) == len(needed) or not any(key in protected for key in present)):
                if group is not None:
                    taken.setdefault(group, set()).update(needed)
                return candidate
        if segment.group_id is None or segment.is_l0:
            raise BackupExists(
                f"backup {plan.backup.name!r} cannot be replaced safely: deletes of {collection.name} changed in a directory that both the "
                "old and the new backup need; delete the old one first, or choose another name"
            )
        free = next(number for number in range(1, len(taken) + 2) if number not in taken)
        taken[free] = {copy.destination for copy in plan.segment_copies(collection.collection_id, replace(segment, group_id=free))}
        return replace(segment, group_id=free)

    collections = [
        replace(
            collection,
            partitions=[replace(p, segments=[moved(collection, s) for s in p.segments]) for p in collection.partitions],
            l0_segments=[moved(collection, s) for s in collection.l0_segments],
        )
        for collection in plan.backup.collections
    ]
    return replace(plan, backup=replace(plan.backup, collections=collections))


def _ungrouped(plan: BackupPlan, collection: meta.Collection, segment: meta.Segment, there: Mapping[str, StoredObject]) -> set[str]:
    return {copy.destination for copy in plan.segment_copies(collection.collection_id, segment) if copy.destination in there}


def outside(extras: Iterable[str], plan: BackupPlan) -> list[str]:
    """Return those extra keys that lie in a directory of the plan's segments, where Milvus would import them."""
    directories = {copy.destination.rpartition("/")[0] for copy in plan.copies()}
    return [key for key in extras if key.rpartition("/")[0] in directories]
