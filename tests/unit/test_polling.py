"""Looking at many jobs over REST costs little: one client for all triggers, one list for all jobs, and nothing is guessed from it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import httpx
import pytest

from airflow_provider_milvus_backup.core import polling, rest
from airflow_provider_milvus_backup.core.doors import RestDoor
from airflow_provider_milvus_backup.core.errors import ConfigError
from airflow_provider_milvus_backup.core.imports import JobState, JobStatus
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.server import MilvusServer
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.contract import scenes, shapes
from tests.contract.jobs import Fate
from tests.contract.servers import ContractServer, contract_server

JOBS = 40
DESCRIBE, LIST = "jobs/import/describe", "jobs/import/list"
NAME = CollectionName(*scenes.TARGET)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ContractServer]:
    monkeypatch.setattr(polling, "_FRESH", 250.0)  # one look, however long this machine takes for it
    model, source = scenes.filled("2.6.20")
    model.create_collection(scenes.TARGET, shapes.schema("target"))
    with contract_server("2.6.20", model=model, passwords={"root": "Milvus"}) as running:
        running.model.phase_seconds = 0.0
        running.model.fates.extend([Fate(hang="Importing")] * JOBS)
        for _ in range(JOBS):
            model.import_job(scenes.TARGET, [scenes.dirs(source)], scenes.options(model), "_default")
        yield running


def address(server: ContractServer) -> MilvusAddress:
    return MilvusAddress(server.host, server.port, user="root", password="Milvus")


def end_some(server: ContractServer) -> list[int]:
    """Let the first job complete, the second fail, and the record of the third vanish; return all ids."""
    first, second, third, *_ = jobs = list(server.model.jobs.values())
    first.fate = Fate()
    second.fate = Fate(fail="the disk is full")
    server.model.finish_jobs()
    server.model.forget_job(third.id)
    return [job.id for job in jobs]


def look(server: ContractServer, act: Callable[[polling.Ask], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        ask, close = await polling.open_async(address(server), rest=True)
        try:
            return await act(ask)
        finally:
            await close()

    return asyncio.run(run())


def in_loop(server: ContractServer, ids: list[int]) -> list[JobStatus]:
    async def act(ask: polling.Ask) -> list[JobStatus]:
        return await asyncio.gather(*(ask(job_id, "default") for job_id in ids))

    found: list[JobStatus] = look(server, act)
    return found


def in_worker(server: ContractServer, ids: list[int]) -> list[JobStatus]:
    milvus = MilvusServer(address(server))
    try:
        return list(RestDoor(milvus).statuses(NAME, ids))
    finally:
        milvus.close()


LOOKS = pytest.mark.parametrize("look_at", [in_loop, in_worker])


@LOOKS
def test_many_running_jobs_are_looked_at_in_one_request(
    server: ContractServer, look_at: Callable[[ContractServer, list[int]], list[JobStatus]]
) -> None:
    ids = list(server.model.jobs)
    assert [(status.job_id, status.state) for status in look_at(server, ids)] == [(job_id, JobState.RUNNING) for job_id in ids]
    assert server.requests[LIST] == 1
    assert server.requests[DESCRIBE] <= 8


@LOOKS
def test_jobs_that_have_ended_are_asked_for_one_by_one(
    server: ContractServer, look_at: Callable[[ContractServer, list[int]], list[JobStatus]]
) -> None:
    ids = end_some(server)
    first, second, third, *others = look_at(server, ids[::-1])[::-1]
    assert (first.state, first.rows) == (JobState.COMPLETED, 10)
    assert (second.state, second.reason) == (JobState.FAILED, "the disk is full")
    assert third.state is JobState.UNKNOWN
    assert [status.state for status in others] == [JobState.RUNNING] * (JOBS - 3)
    assert [status.job_id for status in (first, second, third, *others)] == ids


@LOOKS
def test_who_may_not_list_jobs_asks_for_each(
    server: ContractServer, look_at: Callable[[ContractServer, list[int]], list[JobStatus]]
) -> None:
    server.accounts.forbidden["root"] = {LIST}
    ids = end_some(server)
    states = [status.state for status in look_at(server, ids)]
    assert states == [JobState.COMPLETED, JobState.FAILED, JobState.UNKNOWN] + [JobState.RUNNING] * (JOBS - 3)
    assert server.requests[DESCRIBE] == JOBS
    assert server.requests[LIST] == 1


@LOOKS
def test_a_few_jobs_are_not_listed(server: ContractServer, look_at: Callable[[ContractServer, list[int]], list[JobStatus]]) -> None:
    look_at(server, list(server.model.jobs)[:3])
    assert server.requests == {DESCRIBE: 3}


def test_a_list_is_believed_for_a_second_only(server: ContractServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_FRESH", 0.2)

    async def act(ask: polling.Ask) -> list[JobState]:
        ids = list(server.model.jobs)
        await asyncio.gather(*(ask(job_id, "default") for job_id in ids))
        end_some(server)
        await asyncio.sleep(0.25)
        return [status.state for status in await asyncio.gather(*(ask(job_id, "default") for job_id in ids[::-1]))][:-4:-1]

    assert look(server, act) == [JobState.COMPLETED, JobState.FAILED, JobState.UNKNOWN]


def test_a_thousand_triggers_make_one_client_and_few_connections(server: ContractServer) -> None:
    made = mock.Mock(side_effect=httpx.AsyncClient)
    connections = mock.Mock(side_effect=server._proxy._serve)
    server._proxy._serve = connections

    async def trigger(job_id: int) -> JobState:
        ask, close = await polling.open_async(address(server), rest=True)
        try:
            return (await ask(job_id, "default")).state
        finally:
            await close()

    async def run() -> list[JobState]:
        return await asyncio.gather(*(trigger(job_id) for job_id in list(server.model.jobs) * 25))

    with mock.patch.object(httpx, "AsyncClient", made):
        assert set(asyncio.run(run())) == {JobState.RUNNING}
    assert made.call_count == 1
    assert connections.call_count <= rest.CONNECTIONS
    assert not polling._open


def test_a_client_that_cannot_be_made_is_everybodys_error_and_nobodys_later(server: ContractServer) -> None:
    broken = MilvusAddress(server.host, server.port, secure=True, ca_cert="/does/not/exist.pem")

    async def run() -> list[Any]:
        opened = await asyncio.gather(*(polling.open_async(broken, rest=True) for _ in range(5)), return_exceptions=True)
        ask, close = await polling.open_async(address(server), rest=True)
        opened.append((await ask(next(iter(server.model.jobs)), "default")).state)
        await close()
        return opened

    *failed, state = asyncio.run(run())
    assert {type(error) for error in failed} == {ConfigError}
    assert state is JobState.RUNNING
    assert not polling._open


def test_without_tls_no_certificates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "create_default_context", mock.Mock(side_effect=AssertionError))
    with httpx.Client(**rest.client_options(MilvusAddress("127.0.0.1", 1))):
        pass
