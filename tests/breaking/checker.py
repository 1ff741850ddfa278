"""Runs a backup and a restore through faulty proxies, and looks after every try whether what is there is nothing or the whole."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import obstore

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.backup import BackupRun
from airflow_provider_milvus_backup.core.errors import BackupNotFound, MilvusBackupError
from airflow_provider_milvus_backup.core.imports import JobState, of_grpc
from airflow_provider_milvus_backup.core.lease import Owner, holder
from airflow_provider_milvus_backup.core.names import CollectionName, restore_of, short_id
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions, expected_objects
from airflow_provider_milvus_backup.core.settings import Settings
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo.servers import LOOPBACK
from tests.breaking.faults import ANY, Fault, Random, Schedule, Script
from tests.breaking.faulty_grpc import FaultyGrpc, faulty_grpc
from tests.breaking.faulty_s3 import FaultyS3, faulty_s3
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, Lines, _bucket, listing, location, moved

BASE = "backup"
TRIES = 6
#: Many times what any try takes, on a machine that is busy.
TRY_SECONDS = 1200.0
#: Copies in flight: few, so that faults hit copies that come after each other as well.
CONCURRENCY = 4

_WRITES = [Fault.ERROR, Fault.THROTTLE, Fault.RESET, Fault.LOST, Fault.SLOW]
_READS = [*_WRITES, Fault.TRUNCATED]
S3_FAULTS = {"put": _WRITES, "put-if": _WRITES, "delete": _READS, "copy": _READS, "list": _READS, "get": _READS, "head": _WRITES}
MILVUS_FAULTS = {ANY: [Fault.UNAVAILABLE, Fault.EXHAUSTED, Fault.LOST, Fault.RATE_LIMIT, Fault.SLOW]}


class Kept(Lines):
    """A log that is shown only together with what it explains."""

    def info(self, text: str, *args: object) -> None:
        """Keep a line."""
        self.lines.append(text % args)

    warning = info


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Tried:
    """What one task took: the error of each try that failed, and the summary of the one that did not."""

    errors: list[MilvusBackupError] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def tries(self) -> int:
        """How many there were."""
        return len(self.errors) + bool(self.summary)


@dataclass
class Proxies:
    """Both proxies, and settings that lead through them."""

    s3: FaultyS3
    milvus: FaultyGrpc
    settings: Settings


class Rig:
    """One cluster with the collection that is backed up: two partitions with deletes, loaded."""

    def __init__(self, cluster: Cluster, name: str = "faults") -> None:
        self.cluster, self.server = cluster, cluster.server
        self.shape = data.docs(name, partitions=["second"])
        cluster.create(self.shape)
        self.shape.insert(cluster.client(), range(40))
        self.shape.insert(cluster.client(), range(100, 130), "second")
        data.flush(self.server, [self.shape])
        cluster.client().delete(name, ids=[1, 2, 101])
        data.flush(self.server, [self.shape])
        self.rows = cluster.contents(self.shape.name)
        self._source: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def proxies(self, stack: ExitStack, s3: Schedule | None = None, milvus: Schedule | None = None, bucket: str = A_BUCKET) -> Proxies:
        """Start both proxies; they end with the stack, which raises what went wrong in them."""
        here = self.cluster
        one = stack.enter_context(faulty_s3(here.s3.endpoint_url, s3 or Script({})))
        other = stack.enter_context(faulty_grpc(here.milvus.host, here.milvus.port, milvus or Script({})))
        settings = Settings(
            replace(here.address, host=LOOPBACK, port=other.port),
            moved(here.storage, one.endpoint_url),
            moved(location(here.s3, bucket, BASE), one.endpoint_url),
            concurrency=CONCURRENCY,
        )
        return Proxies(one, other, settings)

    # ---- running --------------------------------------------------------------------------------------------------------------

    def backup_once(
        self, proxies: Proxies, name: str, attempt: int = 1, log: Any = None, timeout: float = TRY_SECONDS, **arguments: Any
    ) -> dict[str, Any]:
        """Run one try of a backup, by the task instance that belongs to the name."""
        owner = Owner(f"dag/run/{name}/-1", 0, attempt)
        run = BackupRun.open(proxies.settings, Reporter(log), Patience(timeout=timeout), owner)
        try:
            return run.backup(name, **{"collections": self.shape.name.collection, **arguments}).to_dict()
        finally:
            run.server.close()

    def restore_once(
        self,
        proxies: Proxies,
        name: str,
        restore_id: str,
        attempt: int = 1,
        log: Any = None,
        timeout: float = TRY_SECONDS,
        **options: Any,
    ) -> dict[str, Any]:
        """Run one try of a restore."""
        owner = Owner(f"dag/run/{restore_id}/-1", 0, attempt)
        run = RestoreRun.open(proxies.settings, Reporter(log), Patience(timeout=timeout), owner)
        try:
            state = run.start(name, restore_id, RestoreOptions(**options))
            run.wait(state, 0.5)
            return run.finish(state)
        finally:
            run.close()

    def backup(
        self, proxies: Proxies, name: str, log: Any = None, *, tries: int = TRIES, timeouts: Sequence[float] = (), **arguments: Any
    ) -> Tried:
        """Back up, with as many tries as it takes, and look after each of them.

        :param timeouts: seconds after which the first tries are out of time
        """

        def once(attempt: int) -> dict[str, Any]:
            timeout = [*timeouts, TRY_SECONDS][min(attempt - 1, len(timeouts))]
            return self.backup_once(proxies, name, attempt, log, timeout, **arguments)

        def look(*, done: bool) -> None:
            bucket = proxies.settings.backup_storage.bucket
            if self.check_backup(bucket, name) is False and done:
                raise Violation(f"backup {name!r} succeeded and is not there")
            if done:
                self.check_leases([(bucket, layout.lease_key(BASE, name))])

        return self._try(once, look, tries)

    def restore(
        self,
        proxies: Proxies,
        name: str,
        restore_id: str,
        target: CollectionName,
        log: Any = None,
        *,
        tries: int = TRIES,
        timeouts: Sequence[float] = (),
        old: int | None = None,
        killed: bool = False,
        **options: Any,
    ) -> Tried:
        """Restore the backup's one collection, with as many tries as it takes, and look after each of them.

        :param timeouts: seconds after which the first tries are out of time
        :param old: the id of the collection that is to be replaced
        :param killed: Milvus is killed meanwhile; what then cannot be dropped may stay, if the log says so
        """

        def look(*, done: bool) -> None:
            bucket = proxies.settings.backup_storage.bucket
            self.check_restore(target, done=done, old=old, loaded=options.get("load") != "never")
            if done:
                short = short_id(restore_id)
                staging = layout.staging_dir(restore_id)
                leases = [(A_BUCKET, f"{staging}lease.json"), (bucket, layout.lease_key(BASE, name, short))]
                self.check_leases(leases)
                left = listing(self.cluster.s3, A_BUCKET, staging).keys() - {f"{staging}lease.json"}
                _must(not left, f"staged objects are left: {sorted(left)[:3]}")
                built = [
                    f"{d}.{c}" for d, names in self.all_collections().items() for c in names if restore_of(CollectionName(d, c)) == short
                ]
                if killed:
                    built = [one for one in built if not any(line.startswith(f"{one} stays for now") for line in log.lines)]
                _must(not built, f"collections that were built are left: {built}")

        def once(attempt: int) -> dict[str, Any]:
            timeout = [*timeouts, TRY_SECONDS][min(attempt - 1, len(timeouts))]
            return self.restore_once(proxies, name, restore_id, attempt, log, timeout, **options)

        tried = self._try(once, look, tries)
        jobs = self.jobs(target)
        _must(len(jobs) == tried.summary["jobs"] == 2, f"{len(jobs)} import jobs were submitted, {tried.summary['jobs']} were planned")
        _must(set(jobs.values()) == {JobState.COMPLETED}, f"not all import jobs are completed: {jobs}")
        return tried

    def _try(self, action: Callable[[int], dict[str, Any]], look: Callable[..., None], tries: int) -> Tried:
        tried = Tried()
        for attempt in range(1, tries + 1):
            try:
                tried.summary = action(attempt)
            except MilvusBackupError as error:
                tried.errors.append(error)
            look(done=bool(tried.summary))
            if tried.summary:
                return tried
        raise Violation(f"not done after {tries} tries: {[f'{type(e).__name__}: {e}' for e in tried.errors]}") from tried.errors[-1]

    # ---- looking --------------------------------------------------------------------------------------------------------------

    def all_collections(self) -> dict[str, list[str]]:
        """Return the names of all collections by database; others may drop theirs meanwhile."""
        found = {}
        for database in self.server.databases():
            try:
                found[database] = self.server.collections(database)
            except MilvusBackupError:
                continue
        return found

    def jobs(self, name: CollectionName) -> dict[int, JobState]:
        """Return the state of every import job that a collection ever had."""
        return {int(job.id): of_grpc(job.id, job).state for job in self.server.imports(name)}

    def read(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes, past the proxies."""
        return bytes(obstore.get(_bucket(self.cluster.s3, bucket), key).bytes())

    def source(self, segments: set[int]) -> dict[str, bytes]:
        """Return the logs of some segments, by what follows Milvus's root path: it keeps those of compacted ones for hours."""
        root, cid = f"{self.cluster.milvus.root_path}/", self.server.describe(self.shape.name).collectionID
        found = {}
        with self._lock:
            for kind in (layout.INSERT, layout.DELTA):
                for key in listing(self.cluster.s3, A_BUCKET, layout.source_dir(root, kind, cid)):
                    below = key.removeprefix(root)
                    if int(below.split("/")[3]) in segments:
                        if below not in self._source:
                            self._source[below] = self.read(A_BUCKET, key)
                        found[below] = self._source[below]
        return found

    def check_backup(self, bucket: str, name: str) -> bool:
        """Return False when there is no backup; otherwise compare every byte with Milvus's own objects."""
        try:
            backup = read_backup(ObjectStore(location(self.cluster.s3, bucket, BASE)), name)
        except BackupNotFound:
            return False
        binlogs = layout.binlogs_dir(BASE, name)
        there = listing(self.cluster.s3, bucket, binlogs)
        expected = dict(item for collection in backup.collections for item in expected_objects(collection, binlogs))
        _must(there.keys() == expected.keys(), f"backup {name!r} holds other objects than its meta names")
        found = {}
        for key, size in expected.items():
            _must(there[key][0] == size, f"{key} has {there[key][0]} bytes, the meta says {size}")
            kind, cid, partition, _, *rest = key[len(binlogs) :].split("/")
            found["/".join((kind, cid, partition, *rest))] = self.read(bucket, key)
        segments = [segment for collection in backup.collections for segment in collection.segments()]
        _must(sum(segment.rows for segment in segments) >= data.count(self.rows), f"backup {name!r} does not have all rows")
        _must(found == self.source({segment.segment_id for segment in segments}), f"backup {name!r} is not what Milvus has")
        return True

    def check_restore(self, target: CollectionName, *, done: bool, old: int | None = None, loaded: bool = True) -> None:
        """The target is not there, or still the old one, or complete."""
        there = target.collection in self.all_collections().get(target.database, [])
        if not there or self.server.collection_id(target) == old:
            _must(not done, f"{target} is not there")
            return
        _must(not loaded or self.server.load_state(target) == "Loaded", f"{target} has its name and is not loaded")
        rows = sum(segment.rows for segment in self.server.segments(target))
        _must(rows == data.count(self.rows), f"{target} has {rows} rows in its segments, not {data.count(self.rows)}")
        if loaded:
            _must(self.cluster.contents(target, load=False) == self.rows, f"{target} holds other rows than {self.shape.name}")

    def check_leases(self, keys: list[tuple[str, str]]) -> None:
        """Nobody holds any of these leases; one whose deletion failed may still be there."""
        for bucket, key in keys:
            held = holder(ObjectStore(location(self.cluster.s3, bucket, BASE)), key)
            _must(held is None, f"{key} in {bucket} is still held: {held}")

    def drop(self, target: CollectionName) -> None:
        """Remove what a restore made, and its database."""
        self.server.drop_collection(target)
        if target.database != "default":
            self.server.drop_database(target.database)


def _must(condition: object, problem: str) -> None:
    if not condition:
        raise Violation(problem)


# ---- random faults -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one seed."""

    seed: int
    faults: Counter[str]
    #: Of the backup and of the restore.
    tries: tuple[int, int]
    seconds: float
    #: What the tries that failed ended with.
    errors: tuple[str, ...]
    #: Which promise was broken, with everything needed to see it again; empty when none was.
    violation: str = ""

    def __str__(self) -> str:
        ends = f"; ended with {', '.join(self.errors)}" if self.errors else ""
        told = f"VIOLATION of a promise: {self.violation}" if self.violation else "complete and equal"
        tries = f"{self.tries[0]} + {self.tries[1]} tries"
        return f"seed {self.seed}: {sum(self.faults.values())} faults, {tries}, {self.seconds:.1f} s{ends}: {told}"


def play(rig: Rig, seed: int) -> Outcome:
    """Back up and restore under the faults that belong to a seed; never raises."""
    chosen = random.Random(seed)
    rate, bucket = chosen.choice([0.08, 0.15, 0.25]), chosen.choice([A_BUCKET, VAULT])
    own_database, replaces, kind = chosen.random() < 0.5, chosen.random() < 0.5, chosen.choice(["both", "both", "s3", "milvus"])
    # A backup takes about a second, a restore about ten.
    timeouts = [[chosen.uniform(0.1, most) for _ in range(chosen.choice([0, 0, 1, 2]))] for most in (2, 10)]
    s3 = Random(seed, rate if kind != "milvus" else 0, S3_FAULTS, 60)
    milvus = Random(seed, rate if kind != "s3" else 0, MILVUS_FAULTS, 40)
    target = CollectionName(f"faults_{seed}" if own_database else "default", f"{rig.shape.name.collection}_{seed}")
    name, alias, log, started = f"faults_{seed}", f"faults_alias_{seed}", Kept(), time.monotonic()
    tried, problem, old = [Tried(), Tried()], "", None
    try:
        if replaces:
            rig.cluster.create(data.docs(target.collection, target.database))
            rig.server.create_alias(target, alias)
            old = rig.server.collection_id(target)
        with ExitStack() as stack:
            proxies = rig.proxies(stack, s3, milvus, bucket)
            proxies.s3.slow_seconds = proxies.milvus.slow_seconds = 0.2
            tried[0] = rig.backup(proxies, name, log, timeouts=timeouts[0])
            options = {"rename": {str(rig.shape.name): str(target)}, "load": "always", "if_exists": "replace" if replaces else "fail"}
            tried[1] = rig.restore(proxies, name, f"{name}_restore", target, log, timeouts=timeouts[1], old=old, **options)
        if replaces:
            found = rig.server.describe(target._replace(collection=alias)).schema.name
            _must(found == target.collection, f"the alias of the replaced {target} points at {found}")
            rig.cluster.client(target.database).drop_alias(alias)
        rig.drop(target)
        for error in (*tried[0].errors, *tried[1].errors):
            _must(error.retryable, f"a fault that passes ended a try with an error that says no retry may help: {error!r}")
    except Exception as error:  # noqa: BLE001 (one seed must not hide the others)
        what = f"rate {rate}, {bucket}, {target}, replaces {old}, faults in {kind}, timeouts {timeouts}"
        problem = "\n".join([f"{type(error).__name__}: {error}", what, f"S3 {s3}", f"Milvus {milvus}", *log.lines[-60:]])
    faults = Counter(f"{operation} {fault.name}" for schedule in (s3, milvus) for operation, _, fault in schedule.injected)
    errors = tuple(f"{type(error).__name__} ({str(error)[:120]})" for one in tried for error in one.errors)
    return Outcome(seed, faults, (tried[0].tries, tried[1].tries), time.monotonic() - started, errors, problem)
