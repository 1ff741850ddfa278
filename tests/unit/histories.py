"""Random histories of a collection on the model of a Milvus, and what a backup and a restore make of them. Everything is in memory.

A history may begin on an older Milvus that is upgraded half-way, so that segments of both storage versions lie side by side.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import imports, layout, meta, schema
from airflow_provider_milvus_backup.core.capabilities import Capabilities, Capability
from airflow_provider_milvus_backup.core.imports import JobState
from airflow_provider_milvus_backup.core.job_planning import JobRules, Places, folded_copies, is_folded, plan_jobs
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.plan import FLUSH, BackupPlan, pair
from airflow_provider_milvus_backup.core.restore_plan import check_objects, check_server, expected_objects
from airflow_provider_milvus_backup.core.restore_state import Target
from airflow_provider_milvus_backup.core.segment_logs import NamedLogs
from airflow_provider_milvus_backup.core.server import ServerSegment
from airflow_provider_milvus_backup.core.store import StoredObject
from tests.contract import schemas, shapes
from tests.contract.buckets import MemoryBucket
from tests.contract.model import Model
from tests.contract.profiles import PROFILES
from tests.contract.scenes import Clock
from tests.contract.state import FLUSHED, L0

SOURCE, TARGET = CollectionName("default", "source"), CollectionName("default", "target")
VERSIONS = ("2.4.5", "2.4.24", "2.5.10", "2.6.4", "2.6.20", "3.0.0")
PARTITIONS = ("_default", "p1", "p2")
YEAR = 365 * 86400
ROOT, BACKUP_ROOT, NAME, STAGING = "files", "backup", "b", "restore-temp-1/binlogs/1/"


def line(version: str) -> list[int]:
    """Return the line of a version: [2, 4] say."""
    return list(map(int, version.split(".")))[:2]


#: A backup goes into a Milvus of the same line or a newer one.
LATER = {version: [newer for newer in VERSIONS if line(version) <= line(newer)] for version in VERSIONS}
PAIRS = [(version, newer) for version in VERSIONS for newer in LATER[version]]


# ---- histories ---------------------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One thing done to a collection."""

    verb: str
    pks: tuple[int, ...] = ()
    partition: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """What happened to a collection before it was backed up.

    :param born: the version it was created in; half-way through the steps that Milvus is upgraded
    """

    steps: Sequence[Step]
    born: str
    partitions: int = 1
    shards: int = 1
    text_keys: bool = False


@dataclass(frozen=True, slots=True)
class Way:
    """What may differ between two restores of one backup.

    :param staged: whether the backup lies where Milvus cannot read it
    :param backwards: in which order Milvus gets to the jobs that it has at the same time
    :param compacting: whether Milvus compacts L0 segments after every job, as it does in the background; their deletes are then over
    """

    per_job: int = 256
    max_bytes: int = 2**30
    shards: int = 1
    staged: bool = False
    backwards: bool = False
    compacting: bool = False


FLUSHING = Step("flush")
PKS = st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True).map(tuple)
WRITES = st.one_of(
    st.builds(Step, st.sampled_from(("insert", "upsert")), PKS, st.sampled_from(PARTITIONS)),
    st.builds(Step, st.just("delete"), PKS, st.sampled_from(("", *PARTITIONS))),
    st.just(FLUSHING),
)
STEPS = st.one_of(WRITES, WRITES, st.sampled_from([Step(verb) for verb in ("compact", "compact_l0", "collect_garbage")]))
WAYS = st.builds(
    Way,
    per_job=st.sampled_from((1, 2, 256)),
    max_bytes=st.sampled_from((1, 4000, 2**30)),
    shards=st.integers(1, 2),
    staged=st.booleans(),
    backwards=st.booleans(),
    compacting=st.booleans(),
)


def histories(version: str, steps: st.SearchStrategy[Step] = STEPS) -> st.SearchStrategy[History]:
    """Return histories that end in one version."""
    born = [older for older in VERSIONS if VERSIONS.index(older) <= VERSIONS.index(version)]
    return st.builds(
        History,
        steps=st.lists(steps, min_size=1, max_size=14),
        born=st.sampled_from(born[::-1]),
        partitions=st.integers(1, 3),
        shards=st.integers(1, 2),
        text_keys=st.booleans(),
    )


def lived(history: History, version: str, name: CollectionName = SOURCE, *, years: int = 0) -> Model:
    """Return the Milvus in which a history took place and that is now of a version; nothing is flushed that no step flushed.

    :param years: how much later than in other histories it took place
    """
    model = milvus(history.born, years)
    create(model, name, history.partitions, history.shards, text_keys=history.text_keys)
    for step in history.steps[: len(history.steps) // 2]:
        take(model, name, step)
    model.profile = PROFILES[version]
    for step in history.steps[len(history.steps) // 2 :]:
        take(model, name, step)
    return model


def milvus(version: str, years: int) -> Model:
    """Return an empty Milvus whose clock stands still, so many years after those of others."""
    clock = Clock()
    clock.now += years * YEAR
    model = Model(PROFILES[version], MemoryBucket(), root_path=ROOT, clock=clock)
    model.rows_per_log = 2
    return model


def pass_time(model: Model, seconds: float) -> None:
    """Let time pass in a Milvus."""
    moment = model.clock() + seconds
    model.clock = lambda: moment


def create(model: Model, name: CollectionName, partitions: int, shards: int, *, text_keys: bool = False) -> None:
    """Create the collection of a history."""
    key = shapes.field("id", shapes.VARCHAR, key=True, max_length=9) if text_keys else shapes.field("id", shapes.INT64, key=True)
    fields = key, shapes.field("v", shapes.FLOAT_VECTOR, dim=2), shapes.field("n", shapes.INT64)
    model.create_collection(name, shapes.schema(name.collection, *fields), shards=shards)
    for partition in PARTITIONS[1:partitions]:
        model.create_partition(name, partition)


def take(model: Model, name: CollectionName, step: Step) -> None:
    """Take a step; a partition that the collection does not have is the first one."""
    collection = model.collection(name)
    text = schemas.primary_key(collection.schema).data_type == shapes.VARCHAR
    pks = [f"k{pk}" if text else pk for pk in step.pks]
    partition = step.partition if not step.partition or collection.partition(step.partition) else PARTITIONS[0]
    if step.verb == "delete":
        model.delete(name, pks, partition)
    elif step.pks:
        # No two writes of one model have the same numbers, and two models are years apart.
        rows = [{"id": pk, "v": [float(i), 0.5], "n": model.next_ts()} for i, pk in enumerate(pks)]
        getattr(model, step.verb)(name, rows, partition)
    else:
        getattr(model, step.verb)(name)


def flushed(model: Model, name: CollectionName) -> int:
    """Flush a collection and return the hybrid timestamp of the flush; whatever comes after it is at least a second later."""
    pending = model.begin_flush(name)
    pending.due = model.monotonic()
    pass_time(model, 1)
    return pending.flush_ts


def contents(model: Model, name: CollectionName) -> Counter[tuple[str, str]]:
    """Return every copy of a row that a query would see: its partition and all its values."""
    kept = model.collection(name).schema
    return Counter((partition, json.dumps(schemas.to_row(kept, row.values), sort_keys=True)) for partition, row in model.live(name))


def key_of(row: tuple[str, str]) -> int:
    """Return which of a history's keys an entry of :func:`contents` has."""
    return int(str(json.loads(row[1])["id"]).removeprefix("k"))


# ---- backup ------------------------------------------------------------------------------------------------------------------------


def planned(model: Model, name: CollectionName = SOURCE, flush_ts: int = 0) -> BackupPlan:
    """Return the plan of a backup, by what this version of Milvus tells and what lies in its bucket; it has travelled as JSON."""
    profile, collection = model.profile, model.collection(name)
    found = [segment for segment in model.listed(name) if segment.state == FLUSHED]
    reported = [
        ServerSegment(
            segment_id=segment.id,
            partition_id=segment.partition_id,
            rows=len(segment.rows),
            is_l0=profile.lists_level and segment.level == L0,
            storage_version=segment.storage_version if profile.lists_storage_version else 0,
            v_channel="",
        )
        for segment in found
    ]
    named = {
        segment.id: NamedLogs(
            {field: frozenset(logs) for field, logs in segment.insert_logs.items()},
            frozenset(model.described_delta_logs(collection, segment)),
            segment.vchannel,
        )
        for segment in found
    }
    inserts, deltas = (
        [StoredObject(key, len(model.bucket.get(key)), "etag") for key in model.bucket.list(layout.source_dir(ROOT, kind, collection.id))]
        for kind in (layout.INSERT, layout.DELTA)
    )
    levels = Capabilities(profile.version).has(Capability.SEGMENT_LEVEL)
    segments = pair(reported, inserts, deltas, ROOT, named if profile.segments_describe else None, levels=levels)
    partitions = [
        meta.Partition(partition.id, partition.name, [segment for segment in segments if segment.partition_id == partition.id])
        for partition in collection.partitions
    ]
    every = [segment for segment in segments if segment.partition_id == layout.ALL_PARTITIONS]
    described = schema.from_proto(schemas.shown(collection.schema))
    one = meta.Collection(collection.id, name, described, collection.shards, 2, partitions, every, backup_timestamp=flush_ts)
    plan = BackupPlan(meta.Backup("id", NAME, profile.version, [one]), FLUSH, ROOT, BACKUP_ROOT)
    return BackupPlan.from_json(plan.to_json())


def copied(plan: BackupPlan, source: Model) -> MemoryBucket:
    """Return the bucket of backups when all objects of a plan were copied."""
    backups = MemoryBucket()
    for copy in plan.copies():
        content = source.bucket.get(copy.source)
        assert copy.destination not in backups.objects
        assert len(content) == copy.size
        backups.put(copy.destination, content)
    return backups


# ---- restore -----------------------------------------------------------------------------------------------------------------------


def jobs_for(plan: BackupPlan, backups: MemoryBucket, model: Model, way: Way, *, append: bool = False, cut: bool = False) -> Target:
    """Return what a restore into this Milvus will do, with everything that has to be staged for it staged."""
    capabilities = Capabilities(model.profile.version)
    collection, binlogs = plan.backup.collections[0], layout.binlogs_dir(BACKUP_ROOT, NAME)
    check_server(plan.backup, [collection], capabilities)
    rules = JobRules.of(capabilities, way.per_job, way.max_bytes)
    end_ts = collection.backup_timestamp if cut else 0
    folded = is_folded(collection, rules, append=append, cut=bool(end_ts))
    target = Target(SOURCE, TARGET, TARGET, append=append, folded=folded, end_ts=end_ts)
    places = Places(binlogs, STAGING if way.staged else None, f"{STAGING}folded/" if target.folded else None)
    strays = check_objects(collection, binlogs, {key: len(content) for key, content in backups.objects.items()})
    target.jobs = plan_jobs(collection, places, rules, strays)
    wanted = [(key, STAGING + key[len(binlogs) :] if way.staged else key) for key, _ in expected_objects(collection, binlogs)]
    wanted += [(copy.source, copy.destination) for copy in folded_copies(collection, binlogs, f"{STAGING}folded/") if target.folded]
    assert len({there for _, there in wanted}) == len(wanted)
    for here, there in wanted:
        model.bucket.put(there, backups.get(here))
    return target


def run(model: Model, target: Target, way: Way) -> None:
    """Submit every job when it is due, and let Milvus do them all."""
    capabilities = Capabilities(model.profile.version)
    while due := target.due:
        for job in reversed(due) if way.backwards else due:
            end_ts = 0 if job.l0 else target.end_ts
            given = imports.options(capabilities, l0=job.l0, storage_version=job.storage_version, end_ts=end_ts, tag="")
            job.job_id = model.import_job(TARGET, job.files, given, job.partition).id
            if way.compacting:
                model.finish_jobs()
                model.compact_l0(TARGET)
        model.finish_jobs()
        for job in due:
            progress = model.progress(model.job(job.job_id))
            assert progress.state == "Completed", progress.reason
            job.state = JobState.COMPLETED.value


def restored(plan: BackupPlan, backups: MemoryBucket, version: str, way: Way, *, cut: bool = False, years: int = 1) -> Model:
    """Return a new Milvus of a version into which a backup was restored.

    :param years: how much later
    """
    collection = plan.backup.collections[0]
    model = milvus(version, years)
    model.create_collection(TARGET, schema.to_proto(collection.schema, TARGET.collection), shards=way.shards)
    for partition in collection.partitions[1:]:
        model.create_partition(TARGET, partition.name)
    run(model, jobs_for(plan, backups, model, way, cut=cut), way)
    return model
