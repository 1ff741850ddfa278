"""The trigger: what it persists, what it reports of real import jobs, and that it never blocks the triggerer's loop."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import imports, polling
from airflow_provider_milvus_backup.core.doors import GrpcDoor
from airflow_provider_milvus_backup.core.errors import ImportFailed, ServerUnreachable
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.triggers import imports as triggers
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger
from tests.airflow.dag_runs import deferred_by, fired
from tests.airflow.gates import stalled_imports
from tests.airflow.stack import Stack, broken_backup

#: How each release so far has persisted a deferred restore, the newest last. Their triggers must start after any upgrade: never change a
#: file, only add one.
GOLDEN = [Path(__file__).parent / "golden" / f"{name}.json" for name in ("import_trigger", "import_trigger_2", "import_trigger_3")]
MAX_LAG = 0.2  # seconds; Airflow logs a blocked main thread from here on


def trigger(job_ids: list[int], **more: Any) -> MilvusImportTrigger:
    return MilvusImportTrigger("milvus_default", job_ids, "shared", "0123456789abcdef", **{"poll_interval": 0.5, **more})


# --- what is persisted ---------------------------------------------------------------------------------------------------


def rebuilt(path: str, arguments: dict[str, Any]) -> MilvusImportTrigger:
    module, _, name = path.rpartition(".")
    made: MilvusImportTrigger = getattr(importlib.import_module(module), name)(**arguments)
    return made


def test_a_trigger_survives_serialization_unchanged() -> None:
    path, arguments = trigger([449012345678901234, 5], deadline=1795000000.5, config="/etc/backup.yaml").serialize()
    assert rebuilt(path, json.loads(json.dumps(arguments))).serialize() == (path, arguments)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_triggers_persisted_by_earlier_releases_still_start(golden: Path) -> None:
    persisted = json.loads(golden.read_text())
    path, arguments = rebuilt(persisted["classpath"], persisted["kwargs"]).serialize()
    assert path == persisted["classpath"]
    assert {name: arguments[name] for name in persisted["kwargs"]} == persisted["kwargs"]


def test_a_trigger_of_the_first_release_undoes_nothing() -> None:
    persisted = json.loads(GOLDEN[0].read_text())
    assert rebuilt(persisted["classpath"], persisted["kwargs"]).cancel_on_kill is False, "it does not know whose restore it watches"


def test_the_persisted_form_is_that_of_the_newest_golden_file() -> None:
    path, arguments = MilvusImportTrigger(
        milvus_conn_id="milvus_default",
        job_ids=[449012345678901234],
        backup_name="my_backup",
        restore_id="0123456789abcdef",
        poll_interval=5.0,
        deadline=1795000000.5,
        config="/opt/airflow/backup.yaml",
        token="0123456789abcdef0123456789abcdef",
        cancel_on_kill=True,
        aws_conn_id="aws_milvus",
        backup_aws_conn_id="aws_backups",
        backup_bucket="backups",
        backup_root_path="backup",
        rest=True,
        databases=["default"],
    ).serialize()
    assert {"classpath": path, "kwargs": arguments} == json.loads(GOLDEN[-1].read_text())


def test_the_arguments_are_json_without_secrets(set_connection: Callable[..., None]) -> None:
    from airflow_provider_milvus_backup.core.restore_state import RestoreState
    from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator

    set_connection("milvus_default", conn_type="milvus", host="h", password="planted-password", extra={"token": "planted-token"})
    config = {"milvus": {"password": "planted-in-config"}, "minio": {"secretAccessKey": "planted-too"}}
    operator = MilvusRestoreOperator(task_id="restore", backup_name="b", config=config, timeout=60)
    deferred = deferred_by(lambda: operator._defer(RestoreState("id", "b", [], started=time.time())))
    path, arguments = deferred.trigger.serialize()
    text = json.dumps([path, arguments, deferred.kwargs])
    assert json.loads(text) == [path, arguments, deferred.kwargs]
    assert {type(value) for value in arguments.values()} <= {str, float, list, bool, type(None)}
    assert "planted" not in text + repr(deferred.trigger)


# --- what it reports of real jobs ------------------------------------------------------------------------------------------


@pytest.fixture
def jobs(connected: Stack, backed_up: Any) -> Iterator[list[int]]:
    """Start the import jobs of a restore and return them."""
    hook = MilvusBackupHook(backup_bucket="backups")
    state = hook.start_restore("shared", suffix="_triggered", load="never")
    yield state.pending()
    hook.wait_restore(state, None, 0.5)
    hook.finish_restore(state)
    connected.drop("coll_triggered")


def test_a_deadline_in_the_past_fires_while_jobs_are_still_running_and_success_follows(connected: Stack, jobs: list[int]) -> None:
    with stalled_imports(connected):
        event = fired(trigger(jobs, deadline=time.time() - 1))
    assert (event["status"], event["backup_name"], event["restore_id"]) == ("timeout", "shared", "0123456789abcdef")
    assert str(jobs[0]) in event["message"]
    assert "still running" in event["message"]

    assert fired(trigger(jobs)) == {**event, "status": "success", "message": "2 import jobs completed", "deadline": None}


def test_a_failed_job_fires_with_the_reason_of_the_server(connected: Stack) -> None:
    broken_backup(connected, "broken_for_the_trigger")
    hook = MilvusBackupHook(backup_bucket="backups")
    state = hook.start_restore("broken_for_the_trigger", suffix="_failing", load="never")
    event = fired(trigger(state.pending()))
    assert event["status"] == "failed"
    reasons = re.findall(r"import job (\d+): (.{10,})", event["message"])
    assert [int(job) in state.pending() for job, _ in reasons] == [True]
    server = hook.get_conn()
    assert GrpcDoor(server).status(int(reasons[0][0]), "default").reason == reasons[0][1]
    server.close()
    with pytest.raises(ImportFailed):
        hook.poll_restore(state)  # undoes it


def test_a_job_without_a_record_fires_as_failed(connected: Stack) -> None:
    event = fired(trigger([1]))
    assert event["status"] == "failed"
    assert "import job 1: Milvus no longer has a record of this job" in event["message"]


def test_a_milvus_that_stays_away_fires_an_error_that_says_jobs_may_go_on(
    set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(triggers, "BUDGET", 1.0)
    set_connection("milvus_default", conn_type="milvus", host="127.0.0.1", port=1, login="root", password="planted-password")
    event = fired(trigger([5]))
    assert event["status"] == "error"
    assert "may still be running" in event["message"]
    assert "127.0.0.1:1 (connection 'milvus_default')" in event["message"]
    assert "planted" not in event["message"] + caplog.text


def test_a_wrong_password_fires_an_error_at_once(
    milvus_b: Any, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "BUDGET", float("inf"))  # whatever is worth another look would be looked past for ever
    set_connection("milvus_default", conn_type="milvus", host=milvus_b.host, port=milvus_b.port, login="root", password="planted-wrong")
    event = fired(trigger([5]))
    assert event["status"] == "error"
    assert "check login, password or token" in event["message"]
    assert "planted" not in event["message"]


def test_a_connection_that_names_no_host_fires_an_error(set_connection: Callable[..., None]) -> None:
    set_connection("milvus_default", conn_type="milvus")
    assert fired(trigger([5]))["status"] == "error"


def test_a_missing_connection_fires_an_error(airflow_db: object) -> None:
    event = fired(MilvusImportTrigger("milvus_never_made", [5], "shared", "0123456789abcdef"))
    assert event["status"] == "error"
    assert "milvus_never_made" in event["message"]


# --- what it survives ------------------------------------------------------------------------------------------------------


class Away(ServerUnreachable):
    """No answer, after which some time has passed."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__("away")
        self.meanwhile = meanwhile


class Answers:
    """Stands in for Milvus: gives one answer after the other, raising those that are errors."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()
        self.closed = 0

    async def open(self, address: Any, *, rest: bool) -> tuple[Any, Any]:
        assert not rest

        async def ask(job_id: int, database: str) -> imports.JobStatus:
            assert database == "default"
            self.asked.set()
            answer = self.answers.pop(0) if self.answers else imports.JobState.RUNNING
            if isinstance(answer, Exception):
                if isinstance(answer, Away):
                    answer.meanwhile()
                raise answer
            return imports.JobStatus(job_id, answer, rows=10)

        async def close() -> None:
            self.closed += 1

        return ask, close


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]) -> Callable[..., Answers]:
    def make(*answers: Any) -> Answers:
        made = Answers(*answers)
        monkeypatch.setattr(polling, "open_async", made.open)
        set_connection("milvus_default", conn_type="milvus", host="127.0.0.1")
        return made

    return make


def test_failures_that_pass_are_survived(answering: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(triggers, "time", SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    running, done = imports.JobState.RUNNING, imports.JobState.COMPLETED

    def away(seconds: float) -> Exception:
        return Away(lambda: now.__setitem__(0, now[0] + seconds))

    # Together longer than the budget, but Milvus answers in between.
    answers = answering(away(200), away(99), running, away(200), away(99), done)
    assert fired(trigger([5], poll_interval=0.01))["status"] == "success"
    assert (answers.answers, answers.closed) == ([], 1)

    answers = answering(away(200), away(99), away(1), done)
    event = fired(trigger([5], poll_interval=0.01))
    assert (event["status"], len(answers.answers)) == ("error", 1)


def test_the_event_comes_late_enough_for_airflow_to_have_seen_the_deferral(
    answering: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, pauses = [0.0], []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(triggers, "EARLIEST", 8.0)
    monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
    monkeypatch.setattr(triggers, "time", SimpleNamespace(time=time.time, monotonic=lambda: now[0]))
    answers = answering(Away(lambda: now.__setitem__(0, 3.0)), imports.JobState.COMPLETED)
    assert fired(trigger([5]))["status"] == "success"
    assert pauses[-1] == 5.0, "three seconds had passed"
    assert answers.closed == 1, "the channel is not kept open meanwhile"


def test_the_channel_is_closed_when_the_trigger_is_cancelled(answering: Callable[..., Answers]) -> None:
    answers = answering()

    async def cancel() -> None:
        events: AsyncIterator[Any] = trigger([5], poll_interval=60).run()
        task = asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
        await answers.asked.wait()
        while not task.done() and not answers.closed:
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert answers.closed == 1


# --- the loop --------------------------------------------------------------------------------------------------------------

LAG = """
import asyncio, json, sys, time
from airflow_provider_milvus_backup._compat import get_connection_async
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger
assert "pymilvus" not in sys.modules and "grpc" not in sys.modules
worked = []

async def heart():
    while True:
        work = time.thread_time()
        await asyncio.sleep(0.01)
        worked.append(time.thread_time() - work)

async def main():
    await get_connection_async("milvus_default")  # what Airflow imports for it is not what is measured
    beating = asyncio.create_task(heart())
    await asyncio.sleep(0.2)
    events = [event.payload async for event in MilvusImportTrigger("milvus_default", [int(sys.argv[1])], poll_interval=0.3).run()]
    beating.cancel()
    return events

events = asyncio.run(main())
print(json.dumps({"events": events, "worked": max(worked), "beats": len(worked), "imported": "pymilvus" in sys.modules}))
"""


def test_the_loop_is_never_blocked_not_even_by_the_first_import_of_pymilvus(jobs: list[int]) -> None:
    done = subprocess.run([sys.executable, "-c", LAG, str(jobs[0])], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert [event["status"] for event in answer["events"]] == ["success"]
    assert answer["imported"]
    # The work of the loop's own thread: others may have the processors for as long as they like.
    assert answer["worked"] < MAX_LAG
    assert answer["beats"] > 20
