"""Which import jobs restore a collection: pure functions.

Before 2.4 a job takes everything below one prefix (:mod:`.packing`). From 2.4 on it takes import files, each of them the group directory
of one segment and that of its delta logs, up to a bound. Deletes in L0 segments come in one of two ways:

- as jobs of their own, after the data (``l0_import``, 2.4.5 to 2.6). They delete from whatever the collection holds;
- folded: copied among the delta logs of every segment that they may concern. A delete of a row that is not in the segment does nothing,
  and one that is older than the row does not delete it, so the result is the same. 3.0 refuses the first way, for it gives imported rows
  a timestamp that is newer than the deletes; servers before 2.4 do not know it; rows appended to a collection must not be deleted from
  what was there before; and only the reader of segments leaves deletes out by their time (``internal/util/importutilv2/binlog``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from . import layout, meta
from .capabilities import Capabilities, Capability
from .copier import Copy
from .errors import BackupDamaged
from .packing import pack
from .restore_state import Job


@dataclass(frozen=True, slots=True)
class JobRules:
    """What jobs may look like on one Milvus.

    :param per_job: segments of one job at most; 0 where a job takes all below one prefix
    :param max_bytes: bytes of one job at most; one segment may exceed it alone
    :param l0_import: whether L0 segments can be imported; otherwise they are folded
    :param l0_per_job: L0 segments of one job at most
    """

    per_job: int
    max_bytes: int
    l0_import: bool = False
    l0_per_job: int = 1

    @classmethod
    def of(cls, capabilities: Capabilities, per_job: int, max_bytes: int) -> JobRules:
        """Return the rules of one Milvus; ``per_job`` is that of the door to its imports."""
        many = capabilities.has(Capability.MANY_L0)
        return cls(per_job, max_bytes, capabilities.has(Capability.L0_IMPORT), max(1, per_job) if many else 1)


def is_folded(collection: meta.Collection, rules: JobRules, *, append: bool, cut: bool = False) -> bool:
    """Return whether the collection's L0 segments are folded into the delta logs of the others.

    :param append: rows go into a collection that holds others
    :param cut: rows after a timestamp are left out; an import of L0 segments alone would not leave out deletes
    """
    return any(segment.is_l0 for segment in collection.segments()) and (append or cut or not rules.l0_import)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the objects of a collection lie when they are imported: prefixes that end in ``binlogs/``.

    :param backup: where they are in the backup
    :param staged: where they are staged; None when Milvus reads the backup itself
    :param folded: where the delta logs are folded; None when they are not
    """

    backup: str
    staged: str | None = None
    folded: str | None = None


def plan_jobs(collection: meta.Collection, places: Places, rules: JobRules, strays: Iterable[str]) -> list[Job]:
    """Return the import jobs of a collection: data, largest first, then L0 segments that are not folded.

    :param strays: keys that lie among the collection's objects in the backup but are not part of it
    :raises BackupDamaged: a job would import a stray
    """
    jobs: list[Job] = []
    strays = [] if places.staged else list(strays)
    for partition in collection.partitions:
        jobs += _data_jobs(collection, partition, places, rules, strays)
    jobs.sort(key=lambda job: -job.bytes)
    if not places.folded:
        for partition_id, name, segments in _l0_segments(collection):
            base = layout.partition_dir(places.staged or places.backup, layout.DELTA, collection.collection_id, partition_id)
            directories = sorted({_directory(segment) for segment in segments})
            _refuse_strays(collection, strays, base, set(directories))
            for few in _chunks(directories, rules.l0_per_job):
                size = sum(segment.size for segment in segments if _directory(segment) in few)
                jobs.append(Job(name, "", base, 0, size, len(few), groups=few, deleted=few, l0=True))
    return jobs


def folded_copies(collection: meta.Collection, binlogs: str, folded: str) -> Iterator[Copy]:
    """Iterate over what to copy so that every segment finds its own delta logs and those of L0 segments in one place.

    :param binlogs: the ``binlogs/`` prefix of the backup
    :param folded: the prefix to copy to
    """
    cid = collection.collection_id
    for partition in collection.partitions:
        for segment in partition.segments:
            if not segment.inserts:
                continue
            base = layout.segment_dir(folded, layout.DELTA, cid, segment.partition_id, segment.group_id, segment.segment_id)
            used: set[int] = set()
            for source in (segment, *deleting(collection, segment)):
                below = layout.segment_dir(binlogs, layout.DELTA, cid, source.partition_id, source.group_id, source.segment_id)
                for log in (log for fields in source.deltas for log in fields.logs):
                    # Names only have to be numbers that differ; those of another segment might be the same.
                    name = log.log_id
                    while name in used:
                        name += 1
                    used.add(name)
                    yield Copy(f"{below}{log.log_id}", f"{base}{name}", log.size)


def deleting(collection: meta.Collection, segment: meta.Segment) -> Iterator[meta.Segment]:
    """Iterate over the L0 segments whose deletes may concern the rows of a segment: of its partition or all, and of its channel."""
    for l0 in collection.segments():
        if l0.is_l0 and l0.partition_id in (layout.ALL_PARTITIONS, segment.partition_id):
            if l0.v_channel and segment.v_channel and l0.v_channel != segment.v_channel:
                continue
            yield l0


def _l0_segments(collection: meta.Collection) -> Iterator[tuple[int, str, list[meta.Segment]]]:
    for partition in collection.partitions:
        if found := [segment for segment in partition.segments if segment.is_l0 and segment.deltas]:
            yield partition.partition_id, partition.name, found
    if found := [segment for segment in collection.l0_segments if segment.deltas]:
        yield layout.ALL_PARTITIONS, "", found


def _data_jobs(collection: meta.Collection, partition: meta.Partition, places: Places, rules: JobRules, strays: list[str]) -> Iterator[Job]:
    directories: dict[str, list[meta.Segment]] = {}
    for segment in partition.segments:
        if segment.inserts:
            directories.setdefault(_directory(segment), []).append(segment)
    if not directories:
        return
    cid, base = collection.collection_id, places.staged or places.backup
    inserts = layout.partition_dir(base, layout.INSERT, cid, partition.partition_id)
    deltas = layout.partition_dir(places.folded or base, layout.DELTA, cid, partition.partition_id)
    beside = set()
    for prefix in (inserts, layout.partition_dir(base, layout.DELTA, cid, partition.partition_id)):
        beside |= _refuse_strays(collection, strays, prefix, set(directories))
    sizes = {directory: sum(segment.size for segment in segments) for directory, segments in directories.items()}
    deleted = {
        directory
        for directory, segments in directories.items()
        if any(segment.deltas or (places.folded and any(deleting(collection, segment))) for segment in segments)
    }
    if not rules.per_job:
        for one in pack(sizes, rules.max_bytes, beside):
            segments = [segment for directory in one.directories for segment in directories[directory]]
            yield Job(
                partition.name,
                inserts + one.prefix,
                deltas + one.prefix if deleted & set(one.directories) else "",
                sum(segment.rows for segment in segments),
                one.size,
                len(segments),
            )
        return
    if any(segment.group_id is None for segments in directories.values() for segment in segments):
        # Before 0.4.4 segments lay in the partition's directory itself, and that is what an import file names.
        if beside:
            raise BackupDamaged(
                f"{inserts}{min(beside)} lies beside the segments of {collection.name} but is not part of the backup; Milvus would import "
                "it too. Delete it, or restore from a copy without it"
            )
        directories, sizes, deleted = (
            {"": [s for segments in directories.values() for s in segments]},
            {"": sum(sizes.values())},
            ({""} if deleted else set()),
        )
    for version, few in _by_version(directories, sizes, rules):
        segments = [segment for directory in few for segment in directories[directory]]
        yield Job(
            partition.name,
            inserts,
            deltas,
            sum(segment.rows for segment in segments),
            sum(sizes[directory] for directory in few),
            len(segments),
            groups=few,
            deleted=[directory for directory in few if directory in deleted],
            storage_version=version,
        )


def _directory(segment: meta.Segment) -> str:
    return str(segment.group_id or segment.segment_id)


def _by_version(
    directories: Mapping[str, list[meta.Segment]], sizes: Mapping[str, int], rules: JobRules
) -> Iterator[tuple[int, list[str]]]:
    """Cut directories into jobs of one storage version each."""
    by_version: dict[int, list[str]] = {}
    for directory in sorted(directories):
        by_version.setdefault(max(segment.storage_version for segment in directories[directory]), []).append(directory)
    for version, names in sorted(by_version.items()):
        few: list[str] = []
        for name in names:
            if few and (len(few) == rules.per_job or sum(map(sizes.__getitem__, few)) + sizes[name] > rules.max_bytes):
                yield version, few
                few = []
            few.append(name)
        yield version, few


def _chunks(names: list[str], most: int) -> Iterator[list[str]]:
    for start in range(0, len(names), most):
        yield names[start : start + most]


def _refuse_strays(collection: meta.Collection, strays: Iterable[str], prefix: str, directories: set[str]) -> set[str]:
    """Return the directories of strays below a prefix; raises BackupDamaged for a stray in one of the segments' directories."""
    beside = set()
    for key in strays:
        if key.startswith(prefix):
            directory = key[len(prefix) :].partition("/")[0]
            if directory in directories:
                raise BackupDamaged(
                    f"{key!r} lies in a segment of {collection.name} but is not part of the backup; Milvus would import it too. "
                    "Delete it, or restore from a copy without it"
                )
            beside.add(directory)
    return beside
