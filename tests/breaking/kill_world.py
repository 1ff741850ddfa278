"""What the scenarios of :mod:`.test_kills` share, and what must be true between kill and retry and after it."""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.errors import BackupNotFound
from airflow_provider_milvus_backup.core.lease import Lease, Owner
from airflow_provider_milvus_backup.core.names import CollectionName, replaced_name, restore_of, short_id
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore_plan import expected_objects
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.breaking.kill_scenarios import (
    BACKUPS,
    BASE,
    CHANGED,
    DOCS,
    FOREIGN,
    FOREIGN_ID,
    OLD_ROWS,
    REPLACING_BACKUPS,
    REPLACING_RESTORES,
    RESTORED,
    RESTORES,
    Scenario,
)
from tests.breaking.processes import Children, Task, run_and_kill
from tests.format_reader import check_backup
from tests.integration import data
from tests.integration.clusters import A_BUCKET, VAULT, Cluster, Lines, Listing, admin, listing, location


class Quiet(Lines):
    """Keeps lines without printing them: pytest shows what a thread prints in whatever test runs in that moment."""

    def info(self, text: str, *args: object) -> None:
        self.lines.append(text % args)

    warning = info


@dataclass
class World:
    """Everything that the scenarios share, and what became of each."""

    cluster: Cluster
    task: Task
    children: Children
    rows: dict[CollectionName, data.Contents] = field(default_factory=dict)
    #: Id of the old collection, by scenario.
    old_ids: dict[str, int] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    futures: dict[str, Future[None]] = field(default_factory=dict)
    #: What the retries said, by scenario.
    logs: defaultdict[str, Quiet] = field(default_factory=lambda: defaultdict(Quiet))

    def outcome(self, scenario: Scenario) -> None:
        """Wait for the scenario to end, and raise what it raised."""
        wait([self.futures[scenario.name]])
        print(*self.logs[scenario.name].lines, sep="\n")  # noqa: T201 (pytest shows it when the test fails)
        self.futures[scenario.name].result()

    # ---- what is there -------------------------------------------------------------------------------------------------------

    def target(self, scenario: Scenario) -> CollectionName:
        return CollectionName("default", f"{DOCS.name.collection}_{scenario.name}")

    def store(self, bucket: str) -> ObjectStore:
        return ObjectStore(location(self.cluster.s3, bucket))

    def objects(self, bucket: str, prefix: str) -> Listing:
        return listing(self.cluster.s3, bucket, prefix)

    def body(self, bucket: str, key: str) -> bytes:
        return bytes(admin(self.cluster.s3).get_object(Bucket=bucket, Key=key)["Body"].read())

    def foreign(self) -> dict[str, Any]:
        """Return all objects and collections that no scenario may touch."""
        ours = (f"{self.cluster.milvus.root_path}/", f"{BASE}/kills_", f"{BASE}/here/provider/", f"{BASE}/away/provider/")
        restores = [self.restore_id(scenario) for scenario in (*BACKUPS, *REPLACING_BACKUPS, *RESTORES, *REPLACING_RESTORES)]
        restores += [f"between-{scenario.name}" for scenario in REPLACING_BACKUPS]
        staging = tuple(layout.staging_dir(restore) for restore in restores)
        found: dict[str, Any] = {
            bucket: {key: item for key, item in self.objects(bucket, "").items() if not key.startswith((*ours, *staging))}
            for bucket in (A_BUCKET, VAULT)
        }
        server = self.cluster.server
        for shape in (DOCS, CHANGED, FOREIGN):
            segments = sorted((s.segment_id, s.rows) for s in server.segments(shape.name))
            found[str(shape.name)] = server.collection_id(shape.name), server.load_state(shape.name), segments
        return found

    def source_logs(self, shape: data.Collection) -> dict[tuple[str, ...], tuple[int, str]]:
        """Return (size, ETag) of all logs of the segments that Milvus has, by kind, partition, segment and what follows."""
        cid = self.cluster.server.describe(shape.name).collectionID
        segments = {str(segment.segment_id) for segment in self.cluster.server.segments(shape.name)}
        found = {}
        for kind in (layout.INSERT, layout.DELTA):
            prefix = layout.source_dir(self.cluster.milvus.root_path, kind, cid)
            for key, item in self.objects(A_BUCKET, prefix).items():
                partition, segment, *log = key[len(prefix) :].split("/")
                if segment in segments:
                    found[(kind, partition, segment, *log)] = item
        return found

    def backup_logs(self, name: str) -> dict[tuple[str, ...], tuple[int, str]]:
        """Return the same of a backup that is complete, after comparing everything that its meta says with what is there."""
        backup = read_backup(self.store(VAULT), name)
        there, binlogs = self.objects(VAULT, f"{BASE}/{name}/"), layout.binlogs_dir(BASE, name)
        found = {}
        for collection in backup.collections:
            for key, size in expected_objects(collection, binlogs):
                kind, cid, partition, _, segment, *log = key[len(binlogs) :].split("/")
                assert cid == str(collection.collection_id)
                assert there[key][0] == size == len(self.body(VAULT, key))
                found[(kind, partition, segment, *log)] = there[key]
        named = {key for collection in backup.collections for key, _ in expected_objects(collection, binlogs)}
        directories = {key.rpartition("/")[0] for key in named}
        strays = [key for key in there if key not in named and key.rpartition("/")[0] in directories]
        assert strays == []  # Milvus would import them too
        return found

    # ---- kill and retry ------------------------------------------------------------------------------------------------------

    def restore_id(self, scenario: Scenario) -> str:
        return f"restore-{scenario.name}"

    def task_of(self, scenario: Scenario) -> Task:
        if "backup" in scenario.kind:
            return replace(self.task, name=scenario.name, arguments=scenario.arguments)
        here = "in place" in scenario.kind
        return replace(
            self.task,
            name="here" if here else "away",
            backups=(A_BUCKET if here else VAULT, BASE),
            restore_id=self.restore_id(scenario),
            arguments={**scenario.arguments, "suffix": f"_{scenario.name}"},
        )

    def play(self, scenario: Scenario) -> None:
        """Kill, look, retry, and look again."""
        task = self.task_of(scenario)
        old = self.backup_logs(scenario.name) if scenario.kind == "replacing backup" else {}
        with self.children.one() as child:
            code, requests = run_and_kill(task, child, scenario.point)
            assert code == -signal.SIGKILL, f"{scenario.point} never came, but {requests}\n{child.said()}"
        if "backup" in scenario.kind:
            self.look_at_killed_backup(scenario, old)
        else:
            self.look_at_killed_restore(scenario)
        log = self.logs[scenario.name]
        if scenario.kind == "replacing backup":
            self.restore_between(scenario, log)
        summary = task.retried().run(log)
        if "backup" in scenario.kind:
            assert summary["rows"] >= data.count(self.rows[self.shape(scenario).name])
            self.look_at_backup(scenario)
        else:
            assert summary["rows"] == data.count(self.rows[DOCS.name])
            self.look_at_restore(scenario)
        assert self.foreign() == self.before
        assert self.leases(scenario) == []
        if (scenario.kind, scenario.promise) in RESTORED:
            shape, suffix = self.shape(scenario), f"_{scenario.name}"
            replace(task, restore_id=self.restore_id(scenario), arguments={"suffix": suffix, "load": "never"}).run(log)
            self.compare_rows(CollectionName("default", shape.name.collection + suffix), shape)

    def restore_between(self, scenario: Scenario, log: Lines) -> None:
        """Begin to restore the backup that is there after the kill: the old one or the new one, it can be restored."""
        arguments = {"suffix": f"_{scenario.name}_between", "meta_only": True, "load": "never"}
        replace(self.task_of(scenario), restore_id=f"between-{scenario.name}", arguments=arguments).run(log)

    def shape(self, scenario: Scenario) -> data.Collection:
        return CHANGED if scenario.kind == "replacing backup" else DOCS

    def look_at_killed_backup(self, scenario: Scenario, old: dict[tuple[str, ...], tuple[int, str]]) -> None:
        """Nothing is there, or something complete."""
        try:
            there = self.backup_logs(scenario.name)
        except BackupNotFound:
            assert not old
        else:
            assert there in (old, self.source_logs(self.shape(scenario)))

    def look_at_backup(self, scenario: Scenario) -> None:
        name, directory = scenario.name, f"{BASE}/{scenario.name}/"
        backup = read_backup(self.store(VAULT), name)
        assert [collection.name for collection in backup.collections] == [self.shape(scenario).name]
        assert self.backup_logs(name) == self.source_logs(self.shape(scenario))
        objects = {key: size for key, (size, _) in self.objects(VAULT, directory).items()}
        if scenario.kind == "backup":
            check_backup(objects, lambda key: self.body(VAULT, key), BASE, name, milvus_root=self.cluster.milvus.root_path)
        binlogs = layout.binlogs_dir(BASE, name)
        known = {key for collection in backup.collections for key, _ in expected_objects(collection, binlogs)}
        known |= {layout.meta_key(BASE, name, file) for file in layout.META_FILES}
        ours = ("attempt", "schemas", "plan", "summary", "catalog", "manifest")
        known |= {layout.provider_key(BASE, name, f"{file}.json") for file in ours}
        between = layout.provider_key(BASE, name, "restores", f"between-{name}.json")  # see restore_between
        assert objects.keys() - {layout.lease_key(BASE, name), between} == known

    def rows_of(self, name: CollectionName) -> int:
        return sum(segment.rows for segment in self.cluster.server.segments(name))

    def look_at_killed_restore(self, scenario: Scenario) -> None:
        """The target is not there, or it is the old collection, or it is complete; the old one is not lost before that."""
        server, target = self.cluster.server, self.target(scenario)
        there, old = server.collection_id(target), self.old_ids.get(scenario.name)
        complete = there not in (None, old)
        if complete:
            assert self.rows_of(target) == data.count(self.rows[DOCS.name])
        elif old:
            kept = target if there == old else replaced_name(target, self.restore_id(scenario))
            assert server.collection_id(kept) == old
            assert self.rows_of(kept) == len(OLD_ROWS)

    def compare_rows(self, name: CollectionName, shape: data.Collection) -> None:
        """Every row is there, and once."""
        expected = self.rows[shape.name]
        assert self.cluster.contents(name) == expected
        # A query does not show a row twice; these numbers do.
        counted = self.cluster.client().query(name.collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
        assert counted[0]["count(*)"] == self.rows_of(name) == data.count(expected)

    def look_at_restore(self, scenario: Scenario) -> None:
        target, server = self.target(scenario), self.cluster.server
        self.compare_rows(target, DOCS)
        assert [index.field_name for index in server.indexes(target)] == ["vector"]
        left = {restore_of(CollectionName("default", name)) for name in self.cluster.client().list_collections()}
        assert short_id(self.restore_id(scenario)) not in left
        staging = layout.staging_dir(self.restore_id(scenario))
        assert self.objects(A_BUCKET, staging).keys() <= {f"{staging}lease.json"}
        if scenario.kind == "replacing restore":
            described = server.describe(CollectionName("default", f"alias_{scenario.name}"))
            assert described.collectionID == server.collection_id(target) != self.old_ids[scenario.name]

    def leases(self, scenario: Scenario) -> list[str]:
        """Return the keys of the leases that a task has left."""
        task = self.task_of(scenario)
        bucket, name, short = task.backups[0], task.name, short_id(task.restore_id)
        keys = [(bucket, layout.lease_key(BASE, name))]
        if task.restore_id:
            keys = [(bucket, layout.lease_key(BASE, name, short)), (A_BUCKET, f"{layout.staging_dir(task.restore_id)}lease.json")]
        return [key for bucket, key in keys if self.objects(bucket, key)]


def prepare(world: World, selected: Sequence[Scenario]) -> None:
    """Make what is backed up, restored and replaced, and what must not be touched."""
    cluster = world.cluster
    client, server = cluster.client(), cluster.server
    for shape in (DOCS, CHANGED, FOREIGN):
        cluster.create(shape)
        shape.insert(client, range(40))
    for shape in (DOCS, CHANGED):
        shape.insert(client, range(100, 120), "second")
    replaced = {s: data.docs(world.target(s).collection) for s in selected if s.kind == "replacing restore"}
    for scenario, shape in replaced.items():
        cluster.create(shape)
        shape.insert(client, OLD_ROWS)
        server.create_alias(shape.name, f"alias_{scenario.name}")
        world.old_ids[scenario.name] = server.describe(shape.name).collectionID
    data.flush(server, [DOCS, CHANGED, FOREIGN, *replaced.values()])
    for shape in (DOCS, CHANGED):
        client.delete(shape.name.collection, ids=[3, 7, 101])
    data.flush(server, [DOCS, CHANGED])
    for name, bucket in (("here", A_BUCKET), ("away", VAULT)):
        replace(world.task, name=name, backups=(bucket, BASE), arguments={"collections": DOCS.name.collection}).run(cluster.log)
    of_changed = replace(world.task, arguments={"collections": CHANGED.name.collection}, owner=("dag/old/task/-1", 0, 1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda s: replace(of_changed, name=s.name).run(cluster.log), (s for s in selected if s.kind == "replacing backup")))
    CHANGED.insert(client, range(200, 220))
    client.delete(CHANGED.name.collection, ids=[8, 102])
    data.flush(server, [CHANGED])
    data.load(server, [DOCS.name, CHANGED.name])
    world.rows = {shape.name: cluster.contents(shape.name, load=False) for shape in (DOCS, CHANGED)}

    # Another restore that is under way, another task's unfinished backup, and files that are nobody's.
    store, vault = world.store(A_BUCKET), world.store(VAULT)
    for place, key, doing in (
        (store, layout.staging_dir(FOREIGN_ID) + "lease.json", "restore backup 'away'"),
        (vault, layout.lease_key(BASE, "foreign"), "write backup 'foreign'"),
    ):
        lease = Lease(place, key, Owner("another/run/task/-1"), doing, Reporter(cluster.log))
        lease.take()
        lease.hand_over(24 * 3600)
    store.write(layout.staging_dir(FOREIGN_ID) + "binlogs/insert_log/1/2/3/4/5", b"staged by somebody else")
    vault.write(f"{BASE}/foreign/binlogs/insert_log/1/2/3/3/4/5", b"copied by somebody else")
    for bucket in (A_BUCKET, VAULT):
        world.store(bucket).write("restore-temporary/a file.txt", b"nobody's")
    world.before = world.foreign()


def clean(world: World) -> None:
    """Leave nothing to the tests of other modules."""
    for name in world.cluster.client().list_collections():
        if name.startswith("kills_"):
            for alias in world.cluster.server.describe(CollectionName("default", name)).aliases:
                world.cluster.client().drop_alias(alias)
            world.cluster.drop(CollectionName("default", name))
    for bucket in (A_BUCKET, VAULT):
        store = world.store(bucket)
        store.delete([key for key in world.objects(bucket, "") if not key.startswith(f"{world.cluster.milvus.root_path}/")])
