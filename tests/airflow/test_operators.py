"""Operators and the sensor: names, kills, timeouts, and what they say when something is wrong."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow_provider_milvus_backup.core import errors, names, rpc
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.base import default_backup_name, fail_without_retry
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from airflow_provider_milvus_backup.sensors.imports import MilvusImportSensor
from tests.airflow import dag_runs
from tests.airflow.dag_runs import context, deferred_by, fired
from tests.airflow.gates import stalled_imports
from tests.airflow.stack import Stack, broken_backup


def restore(**more: Any) -> MilvusRestoreOperator:
    """Return a restore of a task of its own for each suffix; one with the same suffix is a further try of it."""
    options = {"backup_name": "shared", "backup_bucket": "backups", "poll_interval": 0.5, **more}
    return MilvusRestoreOperator(task_id=f"restore{more.get('suffix', '')}", **options)


def id_of(task: MilvusRestoreOperator) -> str:
    return names.restore_id(("by_hand", task.task_id, "-1"), "manual__1")


def sensor(**more: Any) -> MilvusImportSensor:
    return MilvusImportSensor(task_id="wait", backup_bucket="backups", poke_interval=0.5, **{"timeout": 1200, **more})


# --- default backup names ------------------------------------------------------------------------------------------------


def name_of(run_id: str, map_index: int = -1, date: datetime | None = None, **more: Any) -> str:
    ti = SimpleNamespace(dag_id="nightly", run_id=run_id, task_id="docs", map_index=map_index)
    return default_backup_name({"ti": ti, "logical_date": date, **more})  # type: ignore[typeddict-item]


def test_a_scheduled_run_has_a_readable_name() -> None:
    date = datetime(2026, 11, 22, 2, tzinfo=timezone.utc)
    run_id = "scheduled__2026-11-22T02:00:00+00:00"
    assert name_of(run_id, date=date) == "nightly_20261122T020000_docs"
    assert name_of(run_id, 3, date) == "nightly_20261122T020000_docs_3"


def test_a_manual_run_without_a_logical_date_is_named_after_the_moment_it_was_asked_for() -> None:
    asked = SimpleNamespace(run_after=datetime(2026, 11, 22, 2, 3, 4, 567, tzinfo=timezone.utc))
    name = name_of("manual__2026-11-22T02:03:04.000567+00:00", dag_run=asked)
    assert re.fullmatch(r"nightly_20261122T020304_docs_[0-9a-f]{12}", name)


def test_names_differ_by_run_and_by_map_index_and_are_all_valid() -> None:
    made = [name_of(run_id, index) for run_id in ("manual__1", "manual__2", "härte/läuft") for index in (-1, 0, 1)]
    assert len(set(made)) == len(made)
    assert [names.check_backup_name(name) for name in made] == made


def test_every_try_has_the_name_of_the_first_and_every_instance_its_own(airflow_db: object) -> None:
    dag = dag_runs.load(dag_runs.DAGS / "tries.py", "names")
    runs = [dag_runs.run(dag), dag_runs.run(dag)]
    tried = inspect.unwrap(type(dag.get_task("once_more")).execute).__globals__["NAMES"]
    results = [run.result(task, index) for run in runs for task, index in (("once_more", -1), ("mapped", 0), ("mapped", 1))]
    assert [run.state for run in runs] == ["success", "success"]
    assert len(set(results)) == 6
    assert [names.check_backup_name(name) for name in results] == results
    assert tried["once_more", 1] == tried["once_more", 2] == runs[1].result("once_more")
    assert all(re.match(r"names_\d{8}T\d{6}_", name) for name in results)


# --- errors --------------------------------------------------------------------------------------------------------------


def test_a_useless_retry_is_not_made(connected: Stack, airflow_db: object) -> None:
    run = dag_runs.run(dag_runs.load(dag_runs.DAGS / "tries.py", "useless_retries"))
    assert (run.state, run.task("restore").try_number) == ("failed", 1)


def test_exactly_the_errors_that_a_retry_cannot_help_fail_the_task_for_good() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MilvusBackupError)]
    final = set()
    for kind in kinds:
        try:
            with fail_without_retry():
                raise kind("what happened")
        except AirflowFailException as error:
            assert str(error) == f"{kind.__name__}: what happened"  # noqa: PT017
            final.add(kind)
        except kind:
            pass
    assert set(kinds) - final == {
        errors.ServerError,
        errors.ServerUnreachable,
        errors.StorageError,
        errors.SourceChanged,
        errors.BackupInUse,
        errors.TakenOver,
        errors.WaitTimeout,
        errors.Cancelled,
    }


def test_a_milvus_that_is_away_is_named_and_worth_a_retry(
    connected: Stack, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "CONNECT_SECONDS", 0.5)
    set_connection("milvus_default", conn_type="milvus", host="127.0.0.1", port=1)
    task = MilvusBackupOperator(task_id="backup", backup_name="never")
    with pytest.raises(errors.ServerUnreachable, match=r"127.0.0.1:1 \(connection 'milvus_default'\)"):
        task.execute(context(task))


@pytest.mark.parametrize(
    "event",
    [None, {}, [], "success", {"status": "success"}, {"restore_id": "x"}, {"backup_name": "b"}, {"backup_name": None, "restore_id": "x"}],
)
def test_an_event_without_a_restore_is_a_clear_error(event: Any) -> None:
    task = restore()
    with pytest.raises(RuntimeError, match="clear the task to restore again") as raised:
        task.execute_complete(context(task), event)
    assert repr(event) in str(raised.value)


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failed_import_is_reported_with_the_reason_of_the_server_and_undone(connected: Stack, backed_up: Any, deferrable: bool) -> None:
    broken_backup(connected, "broken")
    task = restore(backup_name="broken", suffix=f"_broken_{deferrable}", deferrable=deferrable)

    def run() -> Any:
        if not deferrable:
            return task.execute(context(task))
        event = fired(deferred_by(lambda: task.execute(context(task))).trigger)
        assert event["status"] == "failed"
        resumed = restore(backup_name="broken", suffix="_broken_True", deferrable=True)
        return resumed.execute_complete(context(resumed), event)

    said = r"^ImportFailed: import job \d+ into default.coll_broken_\w+, partition '\w+', failed: "
    with pytest.raises(AirflowFailException, match=said) as raised:
        run()
    reason = re.search(r"failed: (.*) \(files: ", str(raised.value))
    assert reason
    assert reason[1] != "no reason given"
    assert f"coll_broken_{deferrable}" not in connected.collections()
    assert connected.staged(id_of(task)) == []


def test_an_import_whose_milvus_was_away_for_the_trigger_is_waited_for_by_a_new_one(connected: Stack, backed_up: Any) -> None:
    def resume(event: Any) -> Any:
        resumed = restore(suffix="_away", deferrable=True, load="always")
        return resumed.execute_complete(context(resumed), event)

    with stalled_imports(connected):
        task = restore(suffix="_away", deferrable=True, load="always")
        trigger = deferred_by(lambda: task.execute(context(task))).trigger
        event = {"status": "error", "message": "gave up", "backup_name": trigger.backup_name, "restore_id": trigger.restore_id}
        again = deferred_by(lambda: resume(event)).trigger
    assert again.serialize() == trigger.serialize()
    event = fired(again)
    assert event["status"] == "success"
    assert resume(event)["restore_id"] == trigger.restore_id
    assert connected.rows("coll_away") == connected.rows("coll")
    assert connected.staged(trigger.restore_id) == []


# --- timeouts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_timeout_says_what_runs_on_and_its_sensor_finishes_the_restore(
    connected: Stack, backed_up: Any, deferrable: bool
) -> None:
    name = f"coll_late_{deferrable}".lower()
    options = {"suffix": name.removeprefix("coll"), "deferrable": deferrable}

    def run(timeout: float) -> Any:
        task = restore(**options, timeout=timeout)
        if not deferrable:
            return task.execute(context(task))
        event = fired(deferred_by(lambda: task.execute(context(task))).trigger)
        assert event["status"] == "timeout"
        resumed = restore(**options, timeout=timeout)
        return resumed.execute_complete(context(resumed), event)

    text = (
        r"^out of time while import jobs \d.* are still running in Milvus. A retry goes on "
        r".*MilvusImportSensor\(backup_name='(\w+)', restore_id='(\w+)'\)"
    )
    said = None
    with stalled_imports(connected):
        for timeout in (1.5, 3, 6, 12, 24, 48, 96):  # on a busy machine time may be over before anything is imported
            with pytest.raises(errors.WaitTimeout, match=r"^out of time while") as raised:
                run(timeout)
            if said := re.search(text, str(raised.value)):
                break
    assert said, str(raised.value)
    assert f"{name}__restore_{said[2]}" in connected.collections(), "a timeout undoes nothing"
    assert name not in connected.collections(), "what is not complete does not have its name"

    waiting = sensor(backup_name=said[1], restore_id=said[2])
    summary = waiting.execute(context(waiting))
    assert (summary["restore_id"], summary["rows"]) == (said[2], summary["collections"][0]["rows"])
    assert connected.rows(name) == connected.rows("coll")
    assert connected.loaded(name)
    assert connected.staged(said[2]) == []
    assert sensor(restore=summary).poke(context(waiting)).xcom_value == summary, "finishing twice gives the same summary"


def test_a_sensor_that_times_out_in_the_triggerer_fails_or_is_skipped_and_a_later_one_finishes(connected: Stack, backed_up: Any) -> None:
    with stalled_imports(connected):
        submit = restore(suffix="_slow", wait_for_completion=False)
        submitted = submit.execute(context(submit))
        named = {k: submitted[k] for k in ("backup_name", "restore_id")}
        event = {"status": "timeout", "message": "2 import jobs are still running", **named, "deadline": time.time()}
        for more, error in (({}, AirflowSensorTimeout), ({"soft_fail": True}, AirflowSkipException)):
            waiting = sensor(restore=submitted, deferrable=True, **more)
            with pytest.raises(error, match="2 import jobs are still running"):
                waiting.execute_complete(context(waiting), event)
        unwatched = sensor(restore=submitted, deferrable=True)
        with pytest.raises(RuntimeError, match="no longer watches them; it sent None"):
            unwatched.execute_complete(context(unwatched), None)

    waiting = sensor(restore=submitted)
    assert waiting.execute(context(waiting))["restore_id"] == submitted["restore_id"]
    assert connected.rows("coll_slow") == connected.rows("coll")


@pytest.mark.parametrize("named", [{}, {"restore": {}}, {"restore": {"backup_name": "b"}}, {"backup_name": "b"}])
def test_a_sensor_with_nothing_to_wait_for_says_what_to_give_it(named: dict[str, Any]) -> None:
    waiting = sensor(**named)
    with pytest.raises(AirflowFailException, match=r"nothing to wait for.*wait_for_completion=False"):
        waiting.execute(context(waiting))


def test_a_sensor_for_an_unknown_restore_names_it(connected: Stack, backed_up: Any) -> None:
    waiting = sensor(backup_name="shared", restore_id="feedfeedfeedfeed")
    with pytest.raises(AirflowFailException, match="no restore 'feedfeedfeedfeed' of backup 'shared'"):
        waiting.execute(context(waiting))
