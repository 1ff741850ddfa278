"""Restores into 2.4 and later where REST cannot be reached: jobs go over gRPC, one segment each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core import submitting
from airflow_provider_milvus_backup.core.errors import ImportFailed, RestoreError, ServerError
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.contract import shapes
from tests.contract.jobs import COMPLETED, FAILED, Fate
from tests.contract.profiles import PROFILES

from .restoring import BACK, CREATE, NAME, RESTORE_ID, answering, deletes, grpc_only, jobs, once_each, restoring, segments
from .worlds import World

SAID = "import jobs go over gRPC, one segment each, because REST cannot be reached: "
REMEDY = "Set rest_endpoint of the connection if it is elsewhere, or enable proxy.http in Milvus"


@pytest.fixture
def deaf(milvus: Callable[..., World]) -> Iterator[Callable[[str], World]]:
    """Return what runs a Milvus whose port speaks gRPC only."""
    with ExitStack() as running:

        def run(version: str) -> World:
            world = milvus(version)
            world.address = {"port": running.enter_context(grpc_only(world))}
            return world

        yield run


@pytest.mark.parametrize("version", ["2.4.5", "2.5.10", "2.6.20", "3.0.1"])
def test_where_the_port_speaks_grpc_only_every_row_comes_back(deaf: Callable[[str], World], version: str) -> None:
    world = deaf(version)
    rows = deletes(world)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert world.said(SAID)
    assert world.said(REMEDY)
    asked = world.server.recorder.of("Import")
    assert len(asked) == len(jobs(world)) >= 4
    assert all(len(request.files) <= 2 for request in asked)
    assert all(all(request.files) for request in asked), "an empty path makes Milvus list its whole bucket"
    assert world.server.requests[CREATE] == 0


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "404"])
def test_where_rest_is_refused_or_is_not_there_grpc_is_used_and_it_is_said(milvus: Callable[..., World], endpoint: str) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 5)
    world.backup()
    with answering((404, "404 page not found")) as url:
        world.address = {"rest_endpoint": url if endpoint == "404" else endpoint}
        world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert world.said(SAID)
    assert world.said("there is no such path" if endpoint == "404" else "no answer from http://127.0.0.1:1")
    assert [len(job.files) for job in jobs(world)] == [1] * 5


def test_where_rest_answers_nothing_is_said(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 1)
    world.backup()
    world.restore(suffix="_back")
    assert not world.said("gRPC")


# ---- jobs that fail or are lost ------------------------------------------------------------------------------------------------------


def test_a_job_that_fails_ends_the_restore_with_its_reason(deaf: Callable[[str], World]) -> None:
    world = deaf("2.5.10")
    segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate(), Fate(fail="no binlog for field:v")])
    with pytest.raises(ImportFailed, match=r"no binlog for field:v"):
        world.restore(suffix="_back")
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_a_job_that_failed_for_a_passing_reason_is_submitted_again(deaf: Callable[[str], World]) -> None:
    world = deaf("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate(), Fate(fail="context deadline exceeded"), Fate(fail="no datanode available")])
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert sorted(job.state for job in jobs(world)) == [COMPLETED] * 3 + [FAILED] * 2
    assert world.said("failed (context deadline exceeded); it is submitted again")


@pytest.mark.parametrize("at", [0, 1, 2])
def test_nothing_is_submitted_twice_when_an_answer_is_lost(deaf: Callable[[str], World], at: int) -> None:
    world = deaf("2.6.4")
    segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate()] * at + [Fate(lose_answer=True)])
    with pytest.raises(ServerError, match=r"does not say over gRPC what the others import; let it be reached over REST"):
        world.restore(suffix="_back")
    assert len(jobs(world)) == at + 1, "the job whose answer was lost was submitted again"
    assert [*world.model.databases["default"].collections] == ["docs"]


def test_jobs_that_milvus_has_forgotten_hide_none_whose_answer_is_lost(deaf: Callable[[str], World]) -> None:
    world = deaf("2.6.4")
    segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate(forget=True), Fate(lose_answer=True)])
    world.at("Import", lambda: None, world.model.finish_jobs)
    with pytest.raises(ServerError, match=r"has 1 import jobs into .*, 0 of which are known"):
        world.restore(suffix="_back")
    assert len(jobs(world)) == 2, "the job whose answer was lost was submitted again"


def test_what_was_lost_over_grpc_is_found_over_rest(deaf: Callable[[str], World]) -> None:
    world = deaf("2.6.4")
    rows = segments(world, 3)
    world.backup()
    world.model.fates.extend([Fate(), Fate(lose_answer=True)])
    with restoring(world) as run, pytest.raises(ServerError, match=r"let it be reached over REST"):
        run.start("nightly", RESTORE_ID, RestoreOptions(suffix="_back"))
    world.address = {}
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(jobs(world)) == 3


def test_a_request_that_never_arrived_is_sent_again(deaf: Callable[[str], World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "_SETTLE", 0)
    world = deaf("2.5.10")
    rows = segments(world, 2)
    world.backup()

    def drop() -> None:
        raise ConnectionResetError

    world.at("Import", drop)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(jobs(world)) == 2


def test_rows_are_appended_though_there_are_older_jobs(deaf: Callable[[str], World]) -> None:
    world = deaf("2.6.4")
    rows = segments(world, 2)
    world.backup()
    world.restore(suffix="_back")
    world.restore(suffix="_back", if_exists="append")
    assert world.model.rows(BACK) == rows
    assert set(world.model.copies(BACK).values()) == {2}, "each row once from each restore"
    assert len(jobs(world)) == 4


def test_a_job_of_somebody_else_is_told_from_a_lost_one(deaf: Callable[[str], World]) -> None:
    world = deaf("2.6.4")
    segments(world, 2)
    world.backup()
    world.model.create_collection(BACK, shapes.schema(BACK[1]))
    world.model.fates.extend([Fate(fail="an older job that has failed")])
    source = world.model.collection(NAME)
    prefix = world.model.key("insert_log", source.id, source.partitions[0].id) + "/"
    world.model.import_job(BACK, [[prefix]], {"backup": "true", "storage_version": "2"}, "_default")
    world.model.finish_jobs()
    world.model.fates.append(Fate(lose_answer=True))
    with pytest.raises((ServerError, RestoreError), match=r"does not say over gRPC"):
        world.restore(suffix="_back", if_exists="append")
    assert len(jobs(world)) == 2


# ---- records that are gone -----------------------------------------------------------------------------------------------------------


def test_a_job_without_a_record_whose_rows_are_there_is_done(deaf: Callable[[str], World]) -> None:
    world = deaf("2.5.10")
    rows = segments(world, 2)
    world.backup()
    world.model.fates.extend([Fate(forget=True)] * 2)
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert len(jobs(world)) == 2


def test_the_limit_of_jobs_is_waited_for(deaf: Callable[..., World]) -> None:
    world = deaf(replace(PROFILES["2.6.4"], max_jobs=2))
    rows = segments(world, 6)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert [job.state for job in jobs(world)] == [COMPLETED] * 6
