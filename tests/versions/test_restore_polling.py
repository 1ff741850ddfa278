"""What the triggerer does: asking for REST jobs in an event loop, with one client for all that ask the same Milvus."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import polling
from airflow_provider_milvus_backup.core.errors import AuthError, ConfigError, ServerUnreachable, UnsupportedServer
from airflow_provider_milvus_backup.core.imports import JobState, JobStatus
from airflow_provider_milvus_backup.core.settings import MilvusAddress
from tests.contract.clients import fill
from tests.contract.jobs import Fate
from tests.contract.profiles import PROFILES
from tests.contract.recording import Request
from tests.contract.refusals import Refusal
from tests.contract.scenes import TARGET, Clock, dirs, options
from tests.contract.servers import ContractServer, contract_server
from tests.contract.tls import authority

from .restoring import DESCRIBE, GET_PROGRESS, LIST, answering

Ask = Callable[[int, str], Awaitable[JobStatus]]


class Milvus:
    """A contract server with something to import, whose clock stands still until it is moved."""

    def __init__(self, server: ContractServer, clock: Clock) -> None:
        self.server, self.clock, self.source = server, clock, fill(server)
        server.model.phase_seconds = 1.0

    def address(self, **more: Any) -> MilvusAddress:
        """Return how to reach it."""
        return MilvusAddress(self.server.host, self.server.port, label="connection 'milvus_test'", **more)

    def job(self, fate: Fate | None = None) -> int:
        """Start a job and return its id."""
        if fate:
            self.server.model.fates.append(fate)
        return self.server.model.import_job(TARGET, [dirs(self.source)], options(self.server.model), "_default").id

    def step(self) -> None:
        """Let every job take one step."""
        self.clock.now += self.server.model.phase_seconds

    def headers(self, request: str) -> list[Any]:
        """Return the headers of all requests of one name."""
        return [came.headers for came in self.server.recorder.requests if came.name == request]


@pytest.fixture
def running() -> Iterator[Callable[..., Milvus]]:
    """Return what runs a Milvus of a version."""
    with ExitStack() as servers:

        def run(version: str, **more: Any) -> Milvus:
            clock = Clock()
            return Milvus(servers.enter_context(contract_server(version, monotonic=clock, **more)), clock)

        yield run
    assert not polling._open, "a client was left open"


def asked(address: MilvusAddress, what: Callable[[Ask], Awaitable[Any]]) -> Any:
    """Do something with an open client, and close it."""

    async def main() -> Any:
        ask, close = await polling.open_async(address, rest=True)
        try:
            return await what(ask)
        finally:
            await close()

    return asyncio.run(main())


def one(milvus: Milvus, job_id: int, **more: Any) -> JobStatus:
    """Ask once for one job."""
    status: JobStatus = asked(milvus.address(**more), lambda ask: ask(job_id, "default"))
    return status


# ---- what became of a job ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", PROFILES)
def test_a_job_runs_through_all_states_of_its_version_until_its_rows_are_there(running: Callable[..., Milvus], version: str) -> None:
    milvus = running(version)
    job_id = milvus.job()

    async def follow(ask: Ask) -> list[JobStatus]:
        seen = []
        for _ in PROFILES[version].phases:
            seen.append(await ask(job_id, "default"))
            milvus.step()
        return [*seen, await ask(job_id, "default")]

    *steps, end = asked(milvus.address(), follow)
    assert [(status.state, status.progress) for status in steps] == [(JobState.RUNNING, phase[2]) for phase in PROFILES[version].phases]
    assert end == JobStatus(job_id, JobState.COMPLETED, rows=5, progress=100)


def test_a_failed_job_says_why(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4")
    job_id = milvus.job(Fate(fail="no binlog for field:v"))
    milvus.server.model.finish_jobs()
    status = one(milvus, job_id)
    assert (status.state, status.rows) == (JobState.FAILED, 0)
    assert "no binlog for field:v" in status.reason


@pytest.mark.parametrize("version", ["2.4.5", "2.6.20", "3.0.1"])
def test_a_job_without_a_record_is_unknown_not_failed(running: Callable[..., Milvus], version: str) -> None:
    milvus = running(version)
    job_id = milvus.job()
    milvus.server.model.finish_jobs()
    assert one(milvus, job_id).state is JobState.COMPLETED
    milvus.clock.now += PROFILES[version].retention + 1
    assert one(milvus, job_id) == JobStatus(job_id, JobState.UNKNOWN, reason="Milvus no longer has a record of this job")
    assert one(milvus, 4567).state is JobState.UNKNOWN


def test_before_2_4_13_the_older_name_is_asked_for_from_the_second_request_on(running: Callable[..., Milvus]) -> None:
    milvus = running("2.4.5")
    job_id = milvus.job()

    async def thrice(ask: Ask) -> list[JobState]:
        return [(await ask(job_id, "default")).state for _ in range(3)]

    assert asked(milvus.address(), thrice) == [JobState.RUNNING] * 3
    assert (milvus.server.requests[DESCRIBE], milvus.server.requests[GET_PROGRESS]) == (1, 3)


# ---- who asks, and where -------------------------------------------------------------------------------------------------------------


def test_login_and_the_database_of_the_job_go_with_every_request(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4", passwords={"root": "Milvus"})
    milvus.server.model.create_database("other")
    job_id = milvus.job()
    asked(milvus.address(user="root", password="Milvus"), lambda ask: ask(job_id, "other"))
    (sent,) = milvus.headers(DESCRIBE)
    assert (sent["authorization"], sent["db-name"], sent["request-timeout"]) == ("Bearer root:Milvus", "other", "60")
    with pytest.raises(AuthError, match=r"connection 'milvus_test'.*check login, password or token") as failed:
        one(milvus, job_id, user="root", password="planted-wrong")
    assert "planted" not in str(failed.value)


def test_tls_with_an_own_authority(running: Callable[..., Milvus], tmp_path: Path) -> None:
    files = authority(tmp_path, mutual=True)
    milvus = running("2.6.4", certificates=files.server)
    pair = {"client_cert": str(files.client_certificate), "client_key": str(files.client_key)}
    assert one(milvus, milvus.job(), secure=True, ca_cert=str(files.ca), **pair).state is JobState.RUNNING
    with pytest.raises(ServerUnreachable, match=r"certificate verify failed"):
        one(milvus, 1, secure=True, **pair)


def test_what_is_not_there_or_not_milvus_is_said_to_be_so(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4")
    for answer, text in (((404, "404 page not found"), "no such path"), ((200, "<html>"), "is not Milvus's REST interface")):
        with answering(answer) as url, pytest.raises(UnsupportedServer, match=text):
            one(milvus, 1, rest_endpoint=url)
    with pytest.raises(ServerUnreachable, match=r"no answer from http://127\.0\.0\.1:1"):
        one(milvus, 1, rest_endpoint="http://127.0.0.1:1")


def test_what_passes_is_an_error_after_which_the_same_client_goes_on(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4")
    job_id = milvus.job()
    answers = iter([ConnectionResetError(), Refusal(8, "rate limit exceeded[rate=1]")])

    def before(request: Any) -> None:
        if error := next(answers, None):
            raise error

    async def follow(ask: Ask) -> JobState:
        milvus.server.recorder.before = before
        with pytest.raises(ServerUnreachable) as failed:
            await ask(job_id, "default")
        assert failed.value.retryable
        with pytest.raises(Exception, match=r"rate limit exceeded"):
            await ask(job_id, "default")
        milvus.server.disconnect()
        return (await ask(job_id, "default")).state

    assert asked(milvus.address(), follow) is JobState.RUNNING


# ---- one client ----------------------------------------------------------------------------------------------------------------------


def test_all_that_ask_the_same_milvus_share_a_client_that_the_last_one_closes(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4")
    job_ids = [milvus.job() for _ in range(20)]

    async def main() -> None:
        opened = await asyncio.gather(*(polling.open_async(milvus.address(), rest=True) for _ in job_ids))
        (shared,) = polling._open.values()
        client = shared.poller.result().client  # type: ignore[attr-defined]
        assert shared.users == 20
        statuses = await asyncio.gather(*(ask(job_id, "default") for (ask, _), job_id in zip(opened, job_ids, strict=True)))
        assert [status.job_id for status in statuses] == job_ids
        for _, close in opened[1:]:
            await close()
        assert not client.is_closed
        assert (await opened[0][0](job_ids[0], "default")).state is JobState.RUNNING
        await opened[0][1]()
        assert client.is_closed
        assert not polling._open

    asyncio.run(main())


def test_another_login_is_another_client(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4", passwords={"root": "Milvus", "other": "secret"})
    job_id = milvus.job()

    async def main() -> None:
        users = [milvus.address(user="root", password="Milvus"), milvus.address(user="other", password="secret")]
        opened = [await polling.open_async(address, rest=True) for address in users]
        for ask, close in opened:
            assert (await ask(job_id, "default")).state is JobState.RUNNING
            await close()

    asyncio.run(main())
    assert [sent["authorization"] for sent in milvus.headers(DESCRIBE)] == ["Bearer root:Milvus", "Bearer other:secret"]


def test_a_client_that_cannot_be_made_fails_all_who_wait_for_it_and_none_later(running: Callable[..., Milvus], tmp_path: Path) -> None:
    files = authority(tmp_path)
    milvus = running("2.6.4", certificates=files.server)
    ca = tmp_path / "later.pem"
    job_id, address = milvus.job(), milvus.address(secure=True, ca_cert=str(ca))

    async def main() -> JobState:
        failed = await asyncio.gather(*(polling.open_async(address, rest=True) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in failed] == [ConfigError] * 3
        assert not polling._open
        ca.write_bytes(files.ca.read_bytes())
        ask, close = await polling.open_async(address, rest=True)
        try:
            return (await ask(job_id, "default")).state
        finally:
            await close()

    assert asyncio.run(main()) is JobState.RUNNING


def test_who_is_cancelled_takes_nobody_along(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4")
    job_id = milvus.job()

    async def main() -> JobState:
        first = asyncio.ensure_future(polling.open_async(milvus.address(), rest=True))
        second = asyncio.ensure_future(polling.open_async(milvus.address(), rest=True))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        ask, close = await second
        asking = asyncio.ensure_future(ask(job_id, "default"))
        await asyncio.sleep(0)
        asking.cancel()
        try:
            return (await ask(job_id, "default")).state
        finally:
            await close()

    assert asyncio.run(main()) is JobState.RUNNING


# ---- many jobs -----------------------------------------------------------------------------------------------------------------------


def all_of(milvus: Milvus, job_ids: list[int], **more: Any) -> dict[int, JobStatus]:
    """Ask for jobs at the same time."""

    async def gather(ask: Ask) -> list[JobStatus]:
        return list(await asyncio.gather(*(ask(job_id, "default") for job_id in job_ids)))

    return {status.job_id: status for status in asked(milvus.address(**more), gather)}


def test_many_running_jobs_cost_few_requests_and_those_that_ended_tell_their_rows(
    running: Callable[..., Milvus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_FRESH", 250.0)  # however long this machine takes
    milvus = running("2.6.4")
    done = [milvus.job() for _ in range(5)]
    failed = milvus.job(Fate(fail="broken"))
    milvus.server.model.finish_jobs()
    job_ids = [*done, failed, *(milvus.job() for _ in range(300))]
    found = all_of(milvus, job_ids)
    assert [found[job_id].rows for job_id in done] == [5] * 5
    assert "broken" in found[failed].reason
    assert {found[job_id].state for job_id in job_ids[6:]} == {JobState.RUNNING}
    assert milvus.server.requests[LIST] == 1
    assert milvus.server.requests[DESCRIBE] <= 20


def test_who_may_not_list_asks_for_each_job(running: Callable[..., Milvus]) -> None:
    milvus = running("2.6.4", passwords={"root": "Milvus"})
    milvus.server.accounts.forbidden["root"] = {LIST}
    job_ids = [milvus.job() for _ in range(40)]
    found = all_of(milvus, job_ids, user="root", password="Milvus")
    assert {status.state for status in found.values()} == {JobState.RUNNING}
    assert milvus.server.requests[DESCRIBE] == 40


# ---- the loop ------------------------------------------------------------------------------------------------------------------------


def test_the_loop_is_never_blocked(running: Callable[..., Milvus], tmp_path: Path) -> None:
    files = authority(tmp_path)
    milvus = running("2.6.4", certificates=files.server)
    job_ids = [milvus.job() for _ in range(40)]
    beaten, asked_in_vain = threading.Event(), []
    worked: list[float] = []
    before = 0

    def answer(request: Request) -> None:
        if request.name == DESCRIBE and not beaten.wait(60):
            asked_in_vain.append(request)

    async def heart() -> None:
        while True:
            work = time.thread_time()
            await asyncio.sleep(0.005)
            worked.append(time.thread_time() - work)
            if len(worked) - before >= 20:
                beaten.set()

    async def main() -> None:
        nonlocal before
        beating = asyncio.ensure_future(heart())
        address = milvus.address(secure=True, ca_cert=str(files.ca))
        opened = await asyncio.gather(*(polling.open_async(address, rest=True) for _ in job_ids))
        before = len(worked)
        beaten.clear()
        await asyncio.gather(*(ask(job_id, "default") for (ask, _), job_id in zip(opened, job_ids, strict=True)))
        for _, close in opened:
            await close()
        beating.cancel()

    milvus.server.recorder.before = answer
    asyncio.run(main())
    assert asked_in_vain == [], "the loop stood still until Milvus answered"
    # Of its own work, as others may have the processors.
    assert max(worked) < 0.2
