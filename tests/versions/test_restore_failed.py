"""Jobs that fail: submitted again where that can help, else the restore ends with Milvus's reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core.doors import RestDoor
from airflow_provider_milvus_backup.core.errors import ImportFailed
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.contract import shapes
from tests.contract.jobs import COMPLETED, FAILED, Fate

from .restoring import BACK, NAME, RESTORE_ID, jobs, once_each, restoring, segments
from .worlds import World

OPTIONS = RestoreOptions(suffix="_back")
LOSES = Fate(lose_answer=True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One segment per job."""
    monkeypatch.setattr(RestDoor, "per_job", 1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("append", [False, True])
def test_a_job_that_failed_for_a_passing_reason_is_submitted_again(milvus: Callable[..., World], append: bool) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    if append:
        world.model.create_collection(BACK, shapes.schema(BACK[1]))
    world.model.fates.extend([Fate(), Fate(fail="rpc error: code = DeadlineExceeded desc = context deadline exceeded")])
    world.restore(suffix="_back", if_exists="append" if append else "fail")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert [job.state for job in jobs(world)] == [COMPLETED, FAILED, COMPLETED]
    assert world.said("failed (rpc error: code = DeadlineExceeded desc = context deadline exceeded); it is submitted again")


def test_a_job_that_fails_for_good_ends_the_restore_with_its_reason_and_leaves_nothing(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 2)
    world.backup()
    world.model.fates.append(Fate(fail="vector dimension 8 is not equal to schema dimension 16"))
    with pytest.raises(ImportFailed, match=r"vector dimension 8 is not equal to schema dimension 16 \(files: .*insert_log") as failed:
        world.restore(suffix="_back")
    assert "What this restore had created was dropped again" in str(failed.value)
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_a_job_that_fails_again_and_again_ends_the_restore(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 2)
    world.backup()
    world.model.fates.extend([Fate(fail="no datanode")] * 9)
    with pytest.raises(ImportFailed, match=r"no datanode"):
        world.restore(suffix="_back")
    assert len(jobs(world)) == 4
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_a_job_that_failed_while_its_answer_was_lost_is_submitted_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    world.model.fates.append(replace(LOSES, fail="connection refused"))
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert [job.state for job in jobs(world)] == [FAILED, COMPLETED]
    assert NAME[1] in world.model.databases["default"].collections


@pytest.mark.usefixtures("small")
def test_nothing_is_begun_anew_while_other_jobs_of_the_collection_run(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate(forget=True), Fate(hang="Importing"), Fate()])
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, OPTIONS)
        world.model.finish_jobs()
        assert not run.poll(state)
        assert not run.poll(state)
        jobs(world)[1].fate = Fate()
        run.wait(state, 0.2)
        run.finish(state)
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(jobs(world)) == 3
