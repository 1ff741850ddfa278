"""Restores that are killed, run out of time, or go on where REST is no longer what it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core.doors import RestDoor
from airflow_provider_milvus_backup.core.errors import Cancelled, ServerError, WaitTimeout
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from tests.contract.jobs import COMPLETED, Fate
from tests.contract.profiles import PROFILES
from tests.contract.recording import Request

from .restoring import BACK, CREATE, RESTORE_ID, creates, deletes, grpc_only, headers, jobs, once_each, restoring, segments
from .worlds import World

OPTIONS = RestoreOptions(suffix="_back")


def hanging(request: str, until: threading.Event, meanwhile: Callable[[], object]) -> Callable[[Request], None]:
    """Return what lets the first request of a name wait, and something happen while it does."""
    waited = threading.Event()

    def before(came: Request) -> None:
        if came.name == request and not waited.is_set():
            waited.set()
            meanwhile()
            until.wait(250)

    return before


def _asking() -> list[threading.Thread]:
    found = [thread for thread in threading.enumerate() if thread.name.startswith("milvus-rest")]
    assert found, "nobody waits for an answer any more"
    return found


@pytest.mark.parametrize("request_", [CREATE, "jobs/import/describe"])
def test_a_request_that_hangs_does_not_keep_a_restore_beyond_its_time(milvus: Callable[..., World], request_: str) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 3)
    world.backup()
    answering = threading.Event()
    with restoring(world) as run:
        world.server.recorder.before = hanging(request_, answering, lambda: setattr(run.ends.patience, "deadline", 0.0))
        with pytest.raises(WaitTimeout):
            run.wait(run.start("nightly", RESTORE_ID, OPTIONS), 0.2)
    assert all(thread.daemon for thread in _asking()), "the process would stay until Milvus answers"
    answering.set()
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)


def test_a_kill_reaches_a_restore_that_waits_for_an_answer(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    segments(world, 2)
    world.backup()
    answering = threading.Event()
    with restoring(world) as run:
        world.server.recorder.before = hanging(CREATE, answering, run.ends.patience.stop.set)
        with pytest.raises(Cancelled):
            run.start("nightly", RESTORE_ID, OPTIONS)
        assert _asking(), "it was still waiting for the answer when it was killed"
        answering.set()
    assert "docs_back" not in world.model.databases["default"].collections


def test_a_retry_where_rest_is_gone_says_so_and_goes_on_when_it_is_back(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RestDoor, "per_job", 2)
    world = milvus(replace(PROFILES["2.6.4"], max_jobs=1))
    rows = segments(world, 6)
    world.backup()
    world.model.phase_seconds = 3600.0  # none ends by itself and makes room for the next
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, OPTIONS)
        assert len(state.pending()) == 1
    world.model.finish_jobs()
    world.model.phase_seconds = 0.01
    with grpc_only(world) as number:
        gone = replace(world.settings, milvus=replace(world.settings.milvus, port=number))
        with restoring(world, settings=gone) as run:
            found = run.states.find("nightly", RESTORE_ID)
            assert found
            with pytest.raises(ServerError, match=r"2 segments.*only over REST.*rest_endpoint") as failed:
                run.wait(found, 0.2)
    assert failed.value.retryable
    assert len(jobs(world)) == 1
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert [job.state for job in jobs(world)] == [COMPLETED] * 3


def test_what_grpc_began_rest_ends(milvus: Callable[..., World]) -> None:
    world = milvus(replace(PROFILES["2.5.10"], max_jobs=2))
    rows = deletes(world)
    world.backup()
    with grpc_only(world) as number:
        gone = replace(world.settings, milvus=replace(world.settings.milvus, port=number))
        with restoring(world, settings=gone) as run:
            assert not run.start("nightly", RESTORE_ID, OPTIONS).rest
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert creates(world)


def test_a_cancelled_restore_leaves_what_imports_still_run_into_and_the_next_one_drops_it(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4")
    rows = segments(world, 2)
    world.backup()
    world.model.fates.append(Fate(hang="Importing"))
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, OPTIONS)
        run.cancel(state, "the task was cleared", 0.2)
    (building,) = {*world.model.databases["default"].collections} - {"docs"}
    assert world.said(f"default.{building} stays for now, because imports into it still run")
    jobs(world)[0].fate = Fate()
    world.model.finish_jobs()
    world.restore(restore_id=RESTORE_ID, suffix="_back")
    assert world.model.rows(BACK) == rows
    assert {*world.model.databases["default"].collections} == {"docs", "docs_back"}


def test_passwords_may_have_any_letters(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.4", passwords={"root": "Pässwörd€"})
    world.address = {"user": "root", "password": "Pässwörd€"}
    rows = segments(world, 1)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert {sent["authorization"] for sent in headers(world, CREATE)} == {"Bearer root:Pässwörd€"}
