"""A restore that was interrupted goes on where it stopped: nothing is imported twice, and nothing half-restored looks whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import layout, targets, undoing
from airflow_provider_milvus_backup.core.doors import GrpcDoor
from airflow_provider_milvus_backup.core.errors import Cancelled, ImportFailed, RestoreError, TakenOver, TargetExists, WaitTimeout
from airflow_provider_milvus_backup.core.imports import JobState, JobStatus
from airflow_provider_milvus_backup.core.lease import Lease, Owner
from airflow_provider_milvus_backup.core.names import CollectionName, building_name, restore_id, restore_of
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo import servers
from tests.integration import data
from tests.integration.clusters import A_BUCKET, READER, VAULT, Cluster, admin, listing, location

SOURCE = CollectionName("default", "again")
TASK = ("dag", "task", "-1")


@pytest.fixture(scope="module", autouse=True)
def rows(a: Cluster, s3: servers.S3Server) -> Iterator[data.Contents]:
    """One partition, so one import job; backed up beside Milvus's data and in another bucket."""
    a.create(data.docs("again"), range(40), load=True)
    a.client().delete("again", ids=[1, 2])
    a.backup("again", "again")
    a.backup("again_staged", "again", settings=staged(a, s3))
    yield a.contents(SOURCE, load=False)
    a.drop(SOURCE)


@pytest.fixture(scope="module")
def pair(a: Cluster) -> data.Contents:
    """Two partitions, so two import jobs."""
    shape = data.docs("again_pair", partitions=["second"])
    a.create(shape, range(20), load=True)
    shape.insert(a.client(), range(100, 110), "second")
    a.backup("again_pair", "again_pair")
    return a.contents(shape.name, load=False)


@pytest.fixture(autouse=True)
def nothing_is_left(a: Cluster) -> Iterator[None]:
    """After each test: no collection that is being built, nothing staged, no lease."""
    yield
    assert [name for name in a.collections()["default"] if restore_of(CollectionName("default", name))] == []
    assert listing(a.s3, A_BUCKET, "restore-temp-") == {}
    for bucket in (A_BUCKET, VAULT):
        assert [key for key in listing(a.s3, bucket, "backup/again") if "/lease" in key] == []
    made = [name.removeprefix("again") for name in a.collections()["default"] if name.startswith("again_")]
    a.drop(*(target(suffix) for suffix in made if suffix not in WHOLE))


#: Suffixes of collections that the last test loads, all at once, and compares row by row: alone each would take three seconds.
WHOLE: list[str] = []


def staged(a: Cluster, s3: servers.S3Server) -> Any:
    return replace(a.settings, backup_storage=location(s3, VAULT))


def open_run(a: Cluster, *, timeout: float = 280, settings: Any = None, **more: Any) -> RestoreRun:
    return RestoreRun.open(settings or a.settings, Reporter(a.log), Patience(timeout=timeout), **more)


def end(run: RestoreRun, state: Any) -> None:
    run.wait(state, 1.0)
    run.finish(state)
    run.close()


def target(suffix: str) -> CollectionName:
    return SOURCE._replace(collection=f"again{suffix}")


def completed(a: Cluster, job_id: int) -> bool:
    return GrpcDoor(a.server).status(job_id, "default").state is JobState.COMPLETED


def jobs(a: Cluster, name: CollectionName) -> list[int]:
    """Return all import jobs that a collection ever had."""
    return [int(job.id) for job in a.server.imports(name)]


class Died(Exception):
    """Ends a try as a crash would."""


def die(*_: Any, **__: Any) -> Any:
    raise Died


def whole(a: Cluster, suffix: str) -> None:
    """Check that a collection has its rows and no job too many; the last test looks at the rows themselves."""
    assert len(jobs(a, target(suffix))) == 1
    WHOLE.append(suffix)


@pytest.mark.parametrize("where", ["again", "again_staged"])
def test_a_retry_attaches_to_running_jobs(a: Cluster, s3: servers.S3Server, rows: data.Contents, where: str) -> None:
    settings = staged(a, s3) if where == "again_staged" else a.settings
    one = open_run(a, settings=settings)
    first = one.start(where, "attached", RestoreOptions(suffix=f"_attached_{where}"))
    one.close()
    two = open_run(a, settings=settings)
    state = two.start(where, "attached", RestoreOptions(suffix=f"_attached_{where}"))
    assert [job.job_id for _, job in state.jobs()] == [job.job_id for _, job in first.jobs()]
    end(two, state)
    whole(a, f"_attached_{where}")


@pytest.mark.parametrize("submitted", [0, 1])
def test_a_try_that_dies_while_it_submits_is_continued_with_the_jobs_that_milvus_knows(
    a: Cluster, pair: data.Contents, monkeypatch: pytest.MonkeyPatch, submitted: int
) -> None:
    """The answer to the last submission is lost as well: Milvus has the job, and the state does not know."""
    one, count = open_run(a), 0
    original = type(one.ends.server).submit_import

    def submit(*args: Any) -> int:
        nonlocal count
        original(*args)
        count += 1
        if count > submitted:
            raise Died
        return jobs(a, args[1])[-1]

    monkeypatch.setattr(type(one.ends.server), "submit_import", submit)
    with pytest.raises(Died):
        one.start("again_pair", f"submitting-{submitted}", RestoreOptions(suffix=f"_{submitted}"))
    one.close()
    monkeypatch.undo()
    a.restore("again_pair", restore_id=f"submitting-{submitted}", suffix=f"_{submitted}")
    name = CollectionName("default", f"again_pair_{submitted}")
    assert len(jobs(a, name)) == 2
    assert a.contents(name) == pair


def test_a_finished_restore_is_not_repeated_by_a_retry_and_refused_after_a_clear(a: Cluster, rows: data.Contents) -> None:
    first = a.restore("again", restore_id="finished", suffix="_finished")
    assert a.restore("again", restore_id="finished", suffix="_finished") == first
    whole(a, "_finished")
    cleared = open_run(a, owner=Owner("dag/run/task/-1", 1, 2))
    with pytest.raises(TargetExists, match="again_finished already exists"):
        cleared.start("again", "finished", RestoreOptions(suffix="_finished"))
    cleared.close()


def test_other_arguments_begin_another_restore_and_undo_the_first(a: Cluster, rows: data.Contents) -> None:
    one = open_run(a)
    one.start("again", "arguments", RestoreOptions(suffix="_one"))
    one.close()
    other = open_run(a)
    state, ends = other.start("again", "arguments", RestoreOptions(suffix="_two")), other.ends
    assert ends.server.patience is ends.backups.patience is ends.milvus_store.patience is ends.patience, "undoing had one of its own"
    end(other, state)
    assert "again_one" not in a.collections()["default"]
    whole(a, "_two")


def test_a_failed_job_is_submitted_again_where_that_can_help(a: Cluster, rows: data.Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus is believed to have given up one job; it has not, so there is one row too many for the check at the end to find."""
    one = open_run(a)
    state = one.start("again", "passing", RestoreOptions(suffix="_passing"))
    one.wait(state, 1.0)
    state.targets[0].jobs[0].state = ""
    job_id = state.targets[0].jobs[0].job_id
    failing, original = JobStatus(job_id, JobState.FAILED, reason="the import task has timed out"), GrpcDoor.status
    monkeypatch.setattr(GrpcDoor, "status", lambda door, job, database: failing if job == job_id else original(door, job, database))
    one.wait(state, 1.0)
    assert len(jobs(a, state.targets[0].building)) == 2
    with pytest.raises(ImportFailed, match=r"again_passing__restore_\w+ holds 76 rows, but .* brought 38"):
        one.finish(state)
    one.close()
    assert "again_passing" not in a.collections()["default"]


@pytest.mark.parametrize(
    ("state", "reason"), [(JobState.FAILED, "task marked failed as service restarted"), (JobState.UNKNOWN, "no record")]
)
def test_after_a_restart_of_milvus_or_when_the_records_of_jobs_are_gone_the_collection_is_begun_anew(
    a: Cluster, rows: data.Contents, monkeypatch: pytest.MonkeyPatch, state: JobState, reason: str
) -> None:
    name = f"anew-{state.value}"
    one = open_run(a)
    restore = one.start("again", name, RestoreOptions(suffix=f"_{state.value}"))
    (job,) = (job for _, job in restore.jobs())
    gone, original, ended = job.job_id, GrpcDoor.status, JobStatus(job.job_id, state, reason=reason)
    data.wait_until(lambda: completed(a, gone))
    monkeypatch.setattr(GrpcDoor, "status", lambda door, job, database: ended if job == gone else original(door, job, database))
    end(one, restore)
    assert restore.targets[0].generation == 1
    whole(a, f"_{state.value}")


def test_nobody_guesses_about_rows_that_were_appended(a: Cluster, rows: data.Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    a.create(data.docs("again_appended"), range(7000, 7003))
    one = open_run(a)
    state = one.start("again", "guess", RestoreOptions(suffix="_appended", if_exists="append"))
    for _, job in state.jobs():
        data.wait_until(lambda job=job: completed(a, job.job_id))  # type: ignore[misc]
    monkeypatch.setattr(GrpcDoor, "status", lambda door, job, database: JobStatus(job, JobState.UNKNOWN, reason="no record"))
    with pytest.raises(RestoreError, match=r"no record of import job \d+ into default.again_appended .* nothing is imported again"):
        one.wait(state, 1.0)
    one.close()
    assert len(jobs(a, target("_appended"))) == 1
    assert data.count(a.contents(target("_appended"))) == data.count(rows) + 3


def test_a_retry_of_an_append_imports_nothing_twice(a: Cluster, rows: data.Contents) -> None:
    a.create(data.docs("again_twice"), range(7000, 7003))
    one = open_run(a)
    one.start("again", "twice", RestoreOptions(suffix="_twice", if_exists="append"))
    one.close()
    a.restore("again", restore_id="twice", suffix="_twice", if_exists="append")
    assert len(jobs(a, target("_twice"))) == 1
    assert data.count(a.contents(target("_twice"))) == data.count(rows) + 3


def test_of_two_processes_with_one_restore_the_older_one_is_refused(a: Cluster, rows: data.Contents) -> None:
    one, two = open_run(a), open_run(a)
    first = one.start("again", "both", RestoreOptions(suffix="_both"))
    state = two.start("again", "both", RestoreOptions(suffix="_both"))
    data.wait_until(lambda: all(completed(a, job.job_id) for _, job in first.jobs()))
    with pytest.raises(TakenOver, match="is continued by another process"):
        one.poll(first)
    one.cancel(first, "the older one was killed late", 1)
    end(two, state)
    one.close()
    whole(a, "_both")


def test_replace_keeps_the_old_collection_and_its_aliases_until_the_new_one_is_complete(
    a: Cluster, rows: data.Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.create(data.docs("again_old"), range(9000, 9010), load=True)
    a.client().create_alias("again_old", "again_alias")
    old = a.contents(target("_old"), load=False)
    one = open_run(a)
    monkeypatch.setattr(targets, "give_name", die)
    state = one.start("again", "old", RestoreOptions(suffix="_old", if_exists="replace"))
    one.wait(state, 1.0)
    with pytest.raises(Died):
        one.finish(state)
    assert a.contents(target("_old"), load=False) == old
    monkeypatch.undo()
    one.finish(state)
    one.close()
    whole(a, "_old")
    assert a.client().describe_collection("again_old")["aliases"] == ["again_alias"]
    a.client().drop_alias("again_alias")


def test_a_failed_replacement_leaves_the_old_collection(a: Cluster) -> None:
    a.create(data.docs("again_kept"), range(9000, 9010), load=True)
    a.backup("again_broken", "again")
    key, (size, _) = min(listing(a.s3, A_BUCKET, "backup/again_broken/binlogs/insert_log/").items())
    admin(a.s3).put_object(Bucket=A_BUCKET, Key=key, Body=bytes(size))
    with pytest.raises(ImportFailed):
        a.restore("again_broken", suffix="_kept", if_exists="replace")
    assert sorted(a.contents(target("_kept"), load=False)["_default"]) == list(range(9000, 9010))


def test_a_timeout_names_the_running_jobs_and_a_retry_waits_for_them(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_run(a)
    state = one.start("again", "slow", RestoreOptions(suffix="_slow"))
    monkeypatch.setattr(RestoreRun, "poll", lambda *_: False)  # on a busy machine they may have ended before the first look
    one.ends.patience.deadline = 0.0
    message = r"out of time while import jobs \d+(, \d+)? are still running in Milvus. A retry goes on with restore slow of backup 'again'"
    with pytest.raises(WaitTimeout, match=message + r", and so does MilvusImportSensor\(backup_name='again', restore_id='slow'\)"):
        one.wait(state, 1.0)
    one.close()
    monkeypatch.undo()
    a.restore("again", restore_id="slow", suffix="_slow")
    whole(a, "_slow")


@pytest.mark.parametrize("cancel", [True, False])
def test_a_kill_undoes_the_restore_unless_told_otherwise(a: Cluster, s3: servers.S3Server, rows: data.Contents, cancel: bool) -> None:
    one = open_run(a, settings=staged(a, s3), cancel_on_kill=cancel)
    state = one.start("again_staged", f"killed-{cancel}", RestoreOptions(suffix="_killed"))
    one.wait(state, 1.0)
    one.ends.patience.stop.set()
    with pytest.raises(Cancelled, match=r"stopped while all rows were imported\. A retry goes on with restore killed-"):
        one.finish(state)
    one.close()
    built = building_name(target("_killed"), f"killed-{cancel}").collection
    assert (built in a.collections()["default"]) is not cancel
    a.restore("again_staged", restore_id=f"killed-{cancel}", suffix="_killed", settings=staged(a, s3))
    assert len(jobs(a, target("_killed"))) == 1
    assert a.contents(target("_killed")) == rows


def test_a_killed_restore_of_nobody_who_comes_back_is_undone(a: Cluster) -> None:
    one = open_run(a, resumable=False)
    state = one.start("again", "nobody", RestoreOptions(suffix="_nobody"))
    one.wait(state, 1.0)
    one.ends.patience.timeout, one.ends.patience.deadline = 0, 0
    one.ends.patience.failure = WaitTimeout("out of time")
    with pytest.raises(WaitTimeout):
        one.finish(state)
    one.close()


def test_finishing_too_early_is_refused_and_changes_nothing(a: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    one = open_run(a)
    state = one.start("again", "early", RestoreOptions(suffix="_early"))
    monkeypatch.setattr(RestoreRun, "poll", lambda *_: False)
    with pytest.raises(RestoreError, match="nothing can be finished yet: import jobs"):
        one.finish(state)
    monkeypatch.undo()
    end(one, state)
    whole(a, "_early")


def test_a_read_only_backup_keeps_the_state_in_the_bucket_of_milvus(a: Cluster, s3: servers.S3Server, rows: data.Contents) -> None:
    settings = replace(a.settings, backup_storage=location(s3, VAULT, user=READER))
    one = open_run(a, settings=settings)
    state = one.start("again_staged", "read-only", RestoreOptions(suffix="_readonly"))
    one.close()
    assert state.place == "in Milvus's bucket"
    assert layout.staging_dir("read-only") + "state.json" in listing(a.s3, A_BUCKET, "restore-temp-")
    a.restore("again_staged", restore_id="read-only", suffix="_readonly", settings=settings)
    whole(a, "_readonly")


def test_leftovers_of_the_same_task_and_of_the_same_target_go_with_the_next_success(
    a: Cluster, s3: servers.S3Server, rows: data.Contents
) -> None:
    dead, alive, other = restore_id(TASK, "monday"), restore_id(TASK, "tuesday"), restore_id(("dag", "other", "-1"), "monday")
    suffixes = {dead: "_left", alive: "_alive", other: "_mine"}
    begun = [(open_run(a, settings=staged(a, s3)), run_id, RestoreOptions(suffix=suffix)) for run_id, suffix in suffixes.items()]
    for run, state in [(run, run.start("again_staged", run_id, options)) for run, run_id, options in begun]:
        run.wait(state, 1.0)
        run.close()
    for run_id in (dead, other):  # their leases run out
        lease = Lease(ObjectStore(a.storage), undoing.lease_of(run_id), Owner(f"restore {run_id}"), "", Reporter(a.log))
        lease.take()
        lease.hand_over(0)
    a.restore("again_staged", restore_id=restore_id(TASK, "wednesday"), suffix="_mine", settings=staged(a, s3))
    there = a.collections()["default"]
    assert building_name(target("_left"), dead).collection not in there
    assert building_name(target("_mine"), other).collection not in there
    assert building_name(target("_alive"), alive).collection in there
    assert {key.split("/")[0] for key in listing(a.s3, A_BUCKET, "restore-temp-")} == {f"restore-temp-{i}" for i in (alive, other)}
    assert a.contents(target("_mine")) == rows
    for run_id in (alive, other, dead):
        run = open_run(a, settings=staged(a, s3))
        run.cancel(run.states.load("again_staged", run_id), "cleaning up", 5)
        run.close()
    ObjectStore(a.storage).delete([key for key in listing(a.s3, A_BUCKET, "restore-temp-") if key.endswith("lease.json")])
    ObjectStore(location(s3, VAULT)).delete(listing(a.s3, VAULT, "backup/again_staged/provider/leases/"))


def test_a_collection_that_only_looks_like_a_leftover_stays(a: Cluster, rows: data.Contents) -> None:
    """Nothing but its name says that a restore has made it."""
    name = building_name(target("_looks"), "0123456789abcdef")
    a.create(data.docs(name.collection), range(3))
    try:
        a.restore("again", suffix="_looks", load="never")
        assert name.collection in a.collections()["default"]
    finally:
        a.drop(name)


def test_a_backup_of_everything_leaves_out_what_a_restore_is_building(a: Cluster) -> None:
    one = open_run(a)
    state = one.start("again", "building", RestoreOptions(suffix="_building"))
    summary = a.backup("without_building", strategy="meta_only")
    assert {"again"} <= {one["name"] for one in summary["collections"]}
    assert not any(restore_of(CollectionName(one["database"], one["name"])) for one in summary["collections"])
    end(one, state)


def test_a_database_that_was_created_for_a_failed_restore_goes_again(a: Cluster) -> None:
    a.backup("again_db_broken", "again")
    key, (size, _) = min(listing(a.s3, A_BUCKET, "backup/again_db_broken/binlogs/insert_log/").items())
    admin(a.s3).put_object(Bucket=A_BUCKET, Key=key, Body=bytes(size))
    with pytest.raises(ImportFailed):
        a.restore("again_db_broken", rename={"again": "again_db.again"})
    assert "again_db" not in a.server.databases()


def test_all_these_collections_hold_the_rows_that_were_backed_up(a: Cluster, rows: data.Contents) -> None:
    assert len(WHOLE) >= 10
    names = [target(suffix) for suffix in WHOLE]
    data.load(a.server, names)
    for name in names:
        assert a.contents(name, load=False) == rows, name
    a.drop(*names)
