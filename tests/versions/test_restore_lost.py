"""Jobs whose answer was lost, whose record is gone, or that failed: nothing is ever imported twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import doors, submitting
from airflow_provider_milvus_backup.core.doors import RestDoor
from airflow_provider_milvus_backup.core.errors import ImportFailed, RestoreError, ServerError
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.restore_state import RestoreState
from tests.contract.jobs import COMPLETED, Fate

from .restoring import BACK, RESTORE_ID, creates, deletes, jobs, once_each, restoring, segments
from .worlds import World

OPTIONS = RestoreOptions(suffix="_back")
LOSES = Fate(lose_answer=True)


class Killed(BaseException):
    """The worker is gone, and writes nothing down any more."""


def dies_before_saving(monkeypatch: pytest.MonkeyPatch, world: World, after: int) -> None:
    """Let a restore die when Milvus has so many of its jobs and the state knows none of them."""
    with monkeypatch.context() as patch:
        submitted = 0
        original = submitting._submit_job

        def submit(*args: Any) -> int:
            nonlocal submitted
            job_id = original(*args)
            submitted += 1
            if submitted == after:
                raise Killed
            return job_id

        patch.setattr(submitting, "_submit_job", submit)
        with pytest.raises(Killed), restoring(world) as run:
            run.start("nightly", RESTORE_ID, OPTIONS)


def unknown(run: RestoreRun) -> RestoreState:
    """Return the state as it is written down; it knows no job."""
    state = run.states.find("nightly", RESTORE_ID)
    assert state
    assert not [job for _, job in state.jobs() if job.job_id]
    return state


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One segment per job."""
    monkeypatch.setattr(RestDoor, "per_job", 1)


# ---- lost answers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.4.5", "2.6.20", "3.0.1"])
def test_a_job_whose_answer_was_lost_is_found_again(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = segments(world, 3)
    world.backup()
    world.model.fates.append(LOSES)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(creates(world)) == len(jobs(world)) == 1


@pytest.mark.usefixtures("small")
def test_every_second_answer_may_be_lost(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 6)
    world.backup()
    world.model.fates.extend([Fate(), LOSES] * 2)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(creates(world)) == len(jobs(world)) == 6


def test_a_lost_job_that_ended_meanwhile_is_found_too(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.fates.append(LOSES)
    world.at("jobs/import/list", lambda: None, lambda: None, world.model.finish_jobs)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert [job.state for job in jobs(world)] == [COMPLETED]


def test_a_request_that_never_arrived_is_sent_again(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "_SETTLE", 0)
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()

    def drop() -> None:
        raise ConnectionResetError

    world.at("jobs/import/create", drop)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(creates(world)) == 2
    assert len(jobs(world)) == 1


def begins_late(world: World, lists: int) -> None:
    """Let the connection of the next request for a job end at once, and the job begin right before the list after so many others."""

    def drop() -> None:
        raise ConnectionResetError

    def begin() -> None:
        asked = creates(world)[0]
        world.model.import_job(("default", asked["collectionName"]), asked["files"], asked["options"], asked["partitionName"])
        world.model.finish_jobs()

    def count() -> None:
        world.at("jobs/import/list", *[lambda: None] * lists, begin)
        drop()

    world.at("jobs/import/create", count)


@pytest.mark.parametrize("version", ["2.5.10", "2.6.20"])
def test_a_job_that_begins_a_while_after_its_request_was_given_up_is_not_submitted_again(
    milvus: Callable[..., World], version: str
) -> None:
    world = milvus(version)
    rows = segments(world, 3)
    world.backup()
    begins_late(world, lists=2)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(creates(world)) == len(jobs(world)) == 1


@pytest.mark.parametrize("append", [False, True])
def test_a_job_that_begins_when_it_was_submitted_again_already_fails_the_restore(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, append: bool
) -> None:
    world = milvus("2.6.20")
    segments(world, 3)
    world.backup()
    monkeypatch.setattr(submitting, "_SETTLE", 0)
    options = {"if_exists": "append"} if append else {}
    if append:
        world.restore(suffix="_back")
    older = len(creates(world))
    with restoring(world) as run:
        begins_late(world, lists=10**6)
        state = run.start("nightly", RESTORE_ID, replace(OPTIONS, **options))
        run.wait(state, 0.05)
        asked = creates(world)[older]
        world.model.import_job(("default", asked["collectionName"]), asked["files"], asked["options"], asked["partitionName"])
        world.model.finish_jobs()
        said = "rows were appended twice: delete them" if append else "what this restore had created is dropped again"
        with pytest.raises(ImportFailed, match=rf"has begun both them and those that were submitted instead \(\[\d+\]\); {said}"):
            run.finish(state)
    assert [*world.model.databases["default"].collections] == (["docs", "docs_back"] if append else ["docs"])


def test_a_lost_l0_job_is_found_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    rows = deletes(world)
    world.backup()
    world.model.fates.extend([Fate(), Fate(), LOSES, LOSES])
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert len(creates(world)) == len(jobs(world))
    assert len({str(job.files) for job in jobs(world)}) == len(jobs(world))


def test_a_lost_job_that_waits_in_the_queue_is_asked_for_until_milvus_says_what_it_imports(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.phase_seconds = 0.3  # a job in the queue has no details
    world.model.fates.append(LOSES)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert len(jobs(world)) == 1


def test_a_lost_job_that_stays_in_the_queue_is_not_submitted_again(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_DETAILS_SECONDS", 0.5)
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.fates.append(replace(LOSES, hang="Pending"))
    with (
        restoring(world) as run,
        pytest.raises(ServerError, match=r"does not say yet what its import jobs \[\d+\].*may be of this restore"),
    ):
        run.start("nightly", RESTORE_ID, OPTIONS)
    assert len(jobs(world)) == 1
    jobs(world)[0].fate = Fate()
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert len(jobs(world)) == 1


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("after", [1, 3])
def test_a_restore_that_died_between_submit_and_save_finds_its_jobs(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    world = milvus("2.6.20")
    rows = segments(world, 4)
    world.backup()
    dies_before_saving(monkeypatch, world, after)
    assert len(jobs(world)) == after
    with restoring(world) as run:
        unknown(run)
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(creates(world)) == len(jobs(world)) == 4


@pytest.mark.usefixtures("small")
def test_older_jobs_of_the_same_backup_are_not_taken_for_those_that_append(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    older = jobs(world)
    assert {job.state for job in older} == {COMPLETED}
    assert set(world.model.copies(BACK).values()) == {1}
    world.model.fates.append(LOSES)
    world.restore(suffix="_back", if_exists="append")
    assert len(jobs(world)) == len(older) + 2
    assert set(world.model.copies(BACK).values()) == {2}, "each row once from each restore"


@pytest.mark.usefixtures("small")
def test_appending_goes_on_where_it_died_and_appends_nothing_twice(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world = milvus("2.5.10")
    segments(world, 3)
    world.backup()
    world.restore(suffix="_back")
    older = len(jobs(world))
    with monkeypatch.context() as patch:
        patch.setattr(__import__(__name__, fromlist=["OPTIONS"]), "OPTIONS", replace(OPTIONS, if_exists="append"))
        dies_before_saving(monkeypatch, world, 2)
    world.restore(restore_id=RESTORE_ID, suffix="_back", if_exists="append")
    assert len(jobs(world)) == older + 3
    assert set(world.model.copies(BACK).values()) == {2}


@pytest.mark.usefixtures("small")
def test_appending_that_died_too_long_ago_for_its_job_to_be_found_says_what_to_do(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = milvus("2.6.20")
    segments(world, 3)
    world.backup()
    world.restore(suffix="_back")
    with monkeypatch.context() as patch:
        patch.setattr(__import__(__name__, fromlist=["OPTIONS"]), "OPTIONS", replace(OPTIONS, if_exists="append"))
        dies_before_saving(monkeypatch, world, 2)
    world.model.finish_jobs()
    jobs(world)[-1].fate = Fate(forget=True)
    copies, made = world.model.copies(BACK), len(jobs(world))
    monkeypatch.setattr(submitting, "_RECORDS", 0)
    with pytest.raises(RestoreError, match=r"an earlier try died while it submitted an import job into default\.docs_back, too long ago"):
        world.restore(restore_id=RESTORE_ID, suffix="_back", if_exists="append")
    assert (world.model.copies(BACK), len(jobs(world))) == (copies, made)


# ---- records that are gone -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.4.5", "2.6.4", "3.0.1"])
def test_a_job_without_a_record_whose_rows_are_there_is_done(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = segments(world, 3)
    world.backup()
    world.model.fates.append(Fate(forget=True))
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert world.said("Milvus has no record of it any more, and all its rows are in default.docs_back")
    assert len(creates(world)) == 1


@pytest.mark.usefixtures("small")
def test_a_job_without_a_record_whose_rows_are_not_there_is_begun_anew(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate(), Fate(forget=True, fail="nobody will ever know")])
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert world.said("default.docs_back is begun anew: Milvus no longer has a record of this job")
    assert [*world.model.databases["default"].collections] == ["docs", "docs_back"]


@pytest.mark.parametrize("version", ["2.5.10", "3.0.1"])
def test_where_rows_were_deleted_a_job_without_a_record_is_begun_anew(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.backup()
    world.model.fates.extend([Fate(forget=True)] * 2 if version == "3.0.1" else [Fate(), Fate(), Fate(forget=True)])
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert world.said("is begun anew: Milvus no longer has a record of this job")


def test_appending_without_a_record_says_what_to_do_and_imports_nothing_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 3)
    world.backup()
    world.restore(suffix="_back")
    made = len(creates(world))
    world.model.fates.append(Fate(forget=True))
    with pytest.raises(
        RestoreError, match=r"no record of import job \d+ into default\.docs_back any more.*nothing is imported again\. Compare"
    ):
        world.restore(suffix="_back", if_exists="append")
    assert len(creates(world)) == made + 1
    assert set(world.model.copies(BACK).values()) == {2}
