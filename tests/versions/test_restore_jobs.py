"""How many jobs a restore makes of its segments, and what it does when Milvus takes no more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core.doors import RestDoor
from airflow_provider_milvus_backup.core.errors import RestoreError, WaitTimeout
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.contract import shapes
from tests.contract.jobs import COMPLETED, Fate
from tests.contract.profiles import PROFILES

from .restoring import BACK, CREATE, DESCRIBE, LIST, NAME, RESTORE_ID, creates, jobs, once_each, restoring, segments
from .worlds import World

BUSY = ("default", "busy")
OPTIONS = RestoreOptions(suffix="_back")


def limited(version: str, most: int) -> Any:
    """Return a version whose Milvus takes so many jobs at once."""
    return replace(PROFILES[version], max_jobs=most)


def occupy(world: World, count: int) -> list[int]:
    """Let somebody else's jobs take places for as long as the test wants, and return their ids."""
    if BUSY[1] not in world.model.databases["default"].collections:
        world.model.create_collection(BUSY, shapes.schema(BUSY[1]))
    name = next(name for name in (NAME, BACK) if name[1] in world.model.databases["default"].collections)
    source = world.model.collection(name)
    prefix = world.model.key("insert_log", source.id, source.partitions[0].id) + "/"
    world.model.fates.extend([Fate(hang="Pending")] * count)
    return [world.model.import_job(BUSY, [[prefix]], {"backup": "true"}, "_default").id for _ in range(count)]


def release(world: World, ids: list[int]) -> None:
    """Let somebody else's jobs end."""
    for number in ids:
        world.model.jobs[number].fate = Fate(fail="aborted")


# ---- many segments per job -----------------------------------------------------------------------------------------------------------


def test_many_segments_make_few_jobs_and_few_requests(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    assert RestDoor.per_job == 256
    monkeypatch.setattr(RestDoor, "per_job", 64)  # the same with a quarter of the objects
    world = milvus("2.6.4")
    rows = segments(world, 150, per_segment=1)
    world.backup()
    before = world.server.requests.copy()
    world.restore(suffix="_back")
    made = world.server.requests - before
    assert world.model.rows(BACK) == rows
    assert [len(body["files"]) for body in creates(world)] == [64, 64, 22]
    assert len({path for body in creates(world) for paths in body["files"] for path in paths}) == 150
    # One list finds out whether REST answers, one whether an earlier try has submitted jobs, and two before staged things are removed.
    assert made[CREATE] == 3
    assert made[LIST] <= 4
    assert made[DESCRIBE] <= 3 * 20
    assert sum(made.values()) <= 120, made


def test_jobs_are_bounded_by_bytes_too(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    rows = segments(world, 9, per_segment=3)
    world.backup()
    sizes = {
        segment["segment_id"]: sum(log["log_size"] for field in segment["binlogs"] for log in field["binlogs"])
        for backup in world.full_meta()["collection_backups"]
        for partition in backup["partition_backups"]
        for segment in partition["segment_backups"]
    }
    biggest = max(sizes.values())
    world.restore(suffix="_back", settings=replace(world.settings, max_job_bytes=3 * biggest))
    assert world.model.rows(BACK) == rows
    assert [len(body["files"]) for body in creates(world)] == [3, 3, 3]
    world.restore(suffix="_one", settings=replace(world.settings, max_job_bytes=1))
    assert world.model.rows(("default", "docs_one")) == rows
    assert [len(body["files"]) for body in creates(world)[3:]] == [1] * 9, "a segment that is too big alone is a job of its own"


def test_each_partition_has_jobs_of_its_own(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RestDoor, "per_job", 2)
    world = milvus("2.4.24")
    segments(world, 3)
    world.model.create_partition(NAME, "second")
    world.model.insert(NAME, [shapes.row(100)], "second")
    world.model.flush(NAME)
    rows = world.model.rows(NAME)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert sorted((body["partitionName"], len(body["files"])) for body in creates(world)) == [
        ("_default", 1),
        ("_default", 2),
        ("second", 1),
    ]


# ---- the server's limit --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, version: str) -> tuple[World, dict[str, Any]]:
    """A backup that is restored in seven jobs, of a Milvus that takes two."""
    monkeypatch.setattr(RestDoor, "per_job", 1)
    world = milvus(limited(version, 2))
    rows = segments(world, 7)
    world.backup()
    return world, rows


@pytest.mark.parametrize("version", ["2.4.24", "2.6.4", "3.0.1"])
def test_all_is_restored_though_milvus_takes_two_jobs_at_a_time(many: tuple[World, dict[str, Any]], version: str) -> None:
    world, rows = many
    world.model.phase_seconds = 3600.0  # what runs ends when it is looked at, however long it takes to submit the others
    world.server.recorder.before = lambda came: world.model.finish_jobs() if came.name == DESCRIBE else None
    assert world.restore(suffix="_back")["jobs"] == 7
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert [job.state for job in jobs(world)] == [COMPLETED] * 7
    assert len(creates(world)) > 7, "the limit was not met"
    assert len({str(job.files) for job in jobs(world)}) == 7


@pytest.mark.parametrize("version", ["2.6.20"])
def test_whoever_polls_and_finishes_submits_what_was_left(many: tuple[World, dict[str, Any]], version: str) -> None:
    world, rows = many
    world.model.phase_seconds = 3600.0  # none ends by itself, however long a look takes
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, OPTIONS)
        assert len(state.pending()) == 2
        with pytest.raises(RestoreError, match=r"nothing can be finished yet"):
            run.finish(state)
    polls = 0
    while True:
        with restoring(world) as run:  # each look may be that of another process
            found = run.states.find("nightly", RESTORE_ID)
            assert found
            assert len(found.pending()) <= 2
            world.model.finish_jobs()
            polls += 1
            if run.poll(found):
                run.finish(found)
                break
        assert polls < 20
    assert polls >= 3
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(jobs(world)) == 7


@pytest.mark.parametrize("version", ["2.5.10"])
def test_other_peoples_jobs_may_take_all_places_for_a_while(many: tuple[World, dict[str, Any]], version: str) -> None:
    world, rows = many
    others = occupy(world, 2)
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, OPTIONS)
        assert state.pending() == []
        assert not run.poll(state)
        with pytest.raises(
            RestoreError, match=r"Milvus has as many import jobs as it takes, and jobs of this restore wait until it takes more"
        ):
            run.finish(state)
        timer = threading.Timer(0.5, release, (world, others))
        timer.start()
        run.wait(state, 0.2)
        timer.join()
        more = occupy(world, 2)  # nothing of the finish needs a place
        run.finish(state)
        release(world, more)
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert [job.state for job in jobs(world) if job.collection != BUSY] == [COMPLETED] * 7


@pytest.mark.parametrize("version", ["2.6.4"])
def test_a_restore_that_never_gets_a_place_runs_out_of_time_and_is_gone_on_with(
    many: tuple[World, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    world, rows = many
    others = occupy(world, 2)
    with restoring(world) as run, monkeypatch.context() as patch:
        state = run.start("nightly", RESTORE_ID, OPTIONS)
        assert not run.poll(state)
        patch.setattr(RestoreRun, "poll", lambda *_: False)  # time is over in a pause, and not in a request
        run.ends.patience.deadline = 0.0
        with pytest.raises(WaitTimeout, match=r"jobs of this restore wait until it takes more.*A retry goes on with restore"):
            run.wait(state, 0.2)
    release(world, others)
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)


@pytest.mark.parametrize("version", ["2.4.24"])
def test_l0_jobs_wait_for_a_place_too(many: tuple[World, dict[str, Any]], version: str) -> None:
    world, rows = many
    world.model.delete(NAME, [0, 5])
    world.model.flush(NAME)
    world.model.delete(NAME, [7])
    world.backup("later")
    for pk in (0, 5, 7):
        del rows["_default"][pk]
    world.restore("later", suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert sum("l0_import" in body["options"] for body in creates(world)) >= 2


def test_segments_of_two_storage_versions_are_jobs_of_their_own(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    world.model.profile = replace(PROFILES["2.6.20"], storage_version=1)  # before it was upgraded
    segments(world, 2)
    world.model.profile = PROFILES["2.6.20"]
    world.model.insert(NAME, [shapes.row(100)])
    rows = world.model.rows(NAME)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert [(body["options"].get("storage_version"), len(body["files"])) for body in creates(world)] in (
        [(None, 2), ("2", 1)],
        [("2", 1), (None, 2)],
    )
