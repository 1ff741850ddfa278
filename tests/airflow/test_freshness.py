"""The freshness sensor and its trigger: what they wait for, what they say, and that the triggerer's loop is never blocked."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow_provider_milvus_backup.core.errors import Cancelled, ConfigError, ServerUnreachable, StorageError
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.sensors.freshness import MilvusBackupFreshnessSensor
from airflow_provider_milvus_backup.triggers import freshness as triggers
from airflow_provider_milvus_backup.triggers import imports
from airflow_provider_milvus_backup.triggers.freshness import MilvusBackupFreshnessTrigger
from tests.airflow import aging, dag_runs
from tests.airflow.aging import MEANWHILE, Aging
from tests.airflow.dag_runs import context, deferred_by
from tests.airflow.test_trigger import rebuilt

#: As for the trigger of imports: never change one, only add one.
GOLDEN = [Path(__file__).parent / "golden" / "freshness_trigger.json"]
LATE = re.compile(r"default\.docs: 30 h \d\d min old in 'nightly_1', 4 h \d\d min late")


@pytest.fixture(scope="module")
def both() -> Iterator[Aging]:
    """``docs`` has a backup of 30 hours ago, ``tags`` a newer one as well."""
    with aging.aging() as ends:
        ends.create("docs", "tags")
        ends.backup("nightly_1", 30, "docs", "tags")
        ends.backup("nightly_2", 6, "tags")
        yield ends


def sensor(**arguments: Any) -> MilvusBackupFreshnessSensor:
    given = {"collections": ["docs", "tags"], "max_age": "26h", "poke_interval": 0.01, "timeout": 0, **arguments}
    return MilvusBackupFreshnessSensor(task_id="fresh", **given)


def executed(made: MilvusBackupFreshnessSensor) -> Any:
    return made.execute(context(made))


def trigger(**arguments: Any) -> MilvusBackupFreshnessTrigger:
    given = {"max_age": "26h", "collections": ["docs", "tags"], "poll_interval": 0.01, **arguments}
    return MilvusBackupFreshnessTrigger("milvus_default", **given)


def fired(made: MilvusBackupFreshnessTrigger) -> dict[str, Any]:
    async def run() -> list[Any]:
        return [event.payload async for event in made.run()]

    (payload,) = asyncio.run(asyncio.wait_for(run(), 120))
    assert set(payload) == {"status", "message", "deadline"}
    return dict(payload)


# ---- the sensor --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"deferrable": True}, {"fail_when_late": True}, {"mode": "reschedule", "fail_when_late": True}])
def test_what_is_fresh_passes_at_once_and_is_returned(both: Aging, more: dict[str, Any]) -> None:
    found = executed(sensor(max_age="31h", **more))
    assert json.loads(json.dumps(found)) == found
    assert (found["fresh"], found["late_count"], found["missing_count"]) == (True, 0, 0)
    assert [(one["name"], one["backup"]) for one in found["collections"]] == [("default.docs", "nightly_1"), ("default.tags", "nightly_2")]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({}, AirflowSensorTimeout),
        ({"soft_fail": True}, AirflowSkipException),
        ({"fail_when_late": True}, AirflowFailException),
        ({"fail_when_late": True, "deferrable": True}, AirflowFailException),
        ({"fail_when_late": True, "soft_fail": True}, AirflowSkipException),
        ({"max_age": timedelta(hours=26)}, AirflowSensorTimeout),
    ],
)
def test_the_end_of_patience_says_who_is_late_and_by_how_much(both: Aging, more: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        executed(sensor(**more))
    assert type(caught.value) is error
    assert LATE.search(str(caught.value))
    assert "tags" not in str(caught.value)


def test_a_collection_that_nobody_backs_up_fails_it(both: Aging) -> None:
    both.create("forgotten")
    try:
        with pytest.raises(AirflowFailException, match=r"1 of 3 collections without .*: default\.forgotten: no backup that"):
            executed(sensor(max_age="31h", collections=None, fail_when_late=True))
    finally:
        both.milvus.model.drop_collection(aging.CollectionName("default", "forgotten"))


@pytest.mark.parametrize("more", [{"max_age": "soon"}, {"level": "deep"}, {"collections": ["dogs"]}, {"name_pattern": " "}])
@pytest.mark.parametrize("deferrable", [True, False])
def test_what_no_waiting_can_help_fails_at_once_and_for_good(both: Aging, more: dict[str, Any], deferrable: bool) -> None:
    with pytest.raises(AirflowFailException, match="ConfigError: "):
        executed(sensor(timeout=600, deferrable=deferrable, **more))


def test_a_milvus_that_is_away_fails_the_try_and_not_the_named_collections(
    both: Aging, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_milvus_backup.core.rpc.CONNECT_SECONDS", 0.2)
    set_connection("milvus_default", conn_type="milvus", host="127.0.0.1", port=1)
    with pytest.raises(ServerUnreachable):
        executed(sensor(max_age="31h", collections=None, fail_when_late=True))
    found = executed(sensor(max_age="31h", fail_when_late=True))
    assert (found["fresh"], "the backups alone are judged" in found["warnings"][0]) == (True, True)


def test_a_killed_sensor_does_not_go_on(both: Aging) -> None:
    made = sensor(max_age="31h")
    made.on_kill()
    with pytest.raises(Cancelled):
        executed(made)


@pytest.mark.usefixtures("airflow_db")
def test_every_way_to_wait_ends_when_the_backup_is_there_and_soft_fail_skips(both: Aging) -> None:
    both.create("poke", "reschedule", "deferred", "late")
    both.backup("late", 90, "late")
    MEANWHILE.append(lambda name: both.backup(name, 0, name))
    try:
        dag = dag_runs.load(dag_runs.DAGS / "ages.py", "ages")
        run = dag_runs.run(dag)
    finally:
        MEANWHILE.clear()
        for name in ("poke", "reschedule", "deferred", "late"):
            both.milvus.model.drop_collection(aging.CollectionName("default", name))
    assert run.states() == {"poke": "success", "reschedule": "success", "deferred": "success", "late": "skipped"}
    for how in ("poke", "reschedule", "deferred"):
        assert [(one["name"], one["backup"]) for one in run.result(how)["collections"]] == [(f"default.{how}", how)]


@pytest.mark.usefixtures("airflow_db")
def test_the_watchdog_fails_without_a_retry_when_a_backup_is_late_and_passes_when_it_is_there(both: Aging) -> None:
    dag = dag_runs.load(dag_runs.EXAMPLES / "milvus_backup_watchdog.py", "milvus_backup_watchdog")
    late = dag_runs.run(dag)
    assert (late.states(), late.task("fresh").try_number) == ({"fresh": "failed"}, 1)
    both.backup("nightly_3", 1, "docs")
    try:
        assert dag_runs.run(dag).states() == {"fresh": "success"}
    finally:
        for key in [key for key in both.served.objects if "/nightly_3/" in key]:
            both.served.objects.pop(key)
        both.served._sorted = None


# ---- deferred ------------------------------------------------------------------------------------------------------------------------


def deferral(**arguments: Any) -> Any:
    made = sensor(deferrable=True, timeout=600, **arguments)
    return deferred_by(lambda: executed(made))


def test_what_is_handed_to_the_triggerer_is_json_without_secrets_and_names_the_resolved_place(both: Aging) -> None:
    deferred = deferral(max_age=timedelta(hours=26))
    path, kwargs = deferred.trigger.serialize()
    text = json.dumps([path, kwargs, deferred.kwargs])
    assert json.loads(text) == [path, kwargs, deferred.kwargs]
    assert "planted" not in text + repr(deferred.trigger)
    assert (kwargs["max_age"], kwargs["backup_bucket"], kwargs["backup_root_path"]) == (26 * 3600.0, "a-bucket", "backup")
    assert deferred.timeout.total_seconds() > 600, "the trigger itself ends the wait, and says who is late"


def test_a_configuration_that_may_hold_secrets_is_not_persisted_but_waited_for_on_the_worker(both: Aging) -> None:
    config = {"minio": {"backupRootPath": "backup", "secretAccessKey": "planted-too"}}
    with pytest.raises(AirflowSensorTimeout, match="docs"):
        executed(sensor(deferrable=True, config=config))


def test_the_trigger_says_who_is_late_when_the_deadline_is_over_and_the_sensor_looks_for_itself(both: Aging) -> None:
    event = fired(trigger(deadline=1.0))
    assert event == {"status": "timeout", "message": event["message"], "deadline": 1.0}
    assert LATE.search(event["message"])
    made = sensor()
    with pytest.raises(AirflowSensorTimeout, match=LATE):
        made.execute_complete(context(made), event)
    made = sensor(soft_fail=True)
    with pytest.raises(AirflowSkipException, match=LATE):
        made.execute_complete(context(made), event)
    made = sensor(max_age="31h")
    assert made.execute_complete(context(made), event)["fresh"], "what came at the last moment counts"


@pytest.mark.parametrize("event", [None, {}, "text", {"status": "error", "message": "m", "deadline": 9e9}, {"status": "timeout"}])
def test_a_trigger_that_ended_otherwise_is_no_timeout_so_a_retry_goes_on(both: Aging, event: Any) -> None:
    made = sensor()
    with pytest.raises(RuntimeError, match="no longer watches them"):
        made.execute_complete(context(made), event)


def test_a_success_that_is_none_any_more_is_waited_for_again_until_the_same_deadline(both: Aging) -> None:
    made = sensor()
    deferred = deferred_by(lambda: made.execute_complete(context(made), {"status": "success", "message": "m", "deadline": 9e9}))
    assert deferred.trigger.deadline == 9e9


# ---- the trigger ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_triggers_persisted_by_earlier_releases_still_start(golden: Path) -> None:
    persisted = json.loads(golden.read_text())
    path, kwargs = rebuilt(persisted["classpath"], persisted["kwargs"]).serialize()
    assert path == persisted["classpath"]
    assert {name: kwargs[name] for name in persisted["kwargs"]} == persisted["kwargs"]


def test_the_persisted_form_is_that_of_the_newest_golden_file() -> None:
    persisted = json.loads(GOLDEN[-1].read_text())
    path, kwargs = rebuilt(persisted["classpath"], persisted["kwargs"]).serialize()
    assert {"classpath": path, "kwargs": kwargs} == persisted


def test_it_fires_when_everything_is_fresh(both: Aging) -> None:
    assert fired(trigger(max_age="31h"))["status"] == "success"
    assert fired(trigger(max_age=31 * 3600.0))["status"] == "success"


@pytest.mark.parametrize("more", [{"max_age": "soon"}, {"collections": ["dogs"]}])
def test_what_no_waiting_can_help_fires_an_error(both: Aging, more: dict[str, Any]) -> None:
    event = fired(trigger(**more))
    assert (event["status"], event["message"].startswith("ConfigError: ")) == ("error", True)


def test_a_missing_connection_fires_an_error(airflow_db: object) -> None:
    event = fired(MilvusBackupFreshnessTrigger("milvus_never_made", "26h"))
    assert (event["status"], "milvus_never_made" in event["message"]) == ("error", True)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, set_connection: Callable[..., None]) -> list[Any]:
    """Answers of the hook, one after the other: raised, called or returned."""
    answers: list[Any] = []

    def look(hook: MilvusBackupHook, *promise: Any) -> Any:
        answer = answers.pop(0)
        if callable(answer):
            answer = answer(hook)
        if isinstance(answer, Exception):
            raise answer
        return {"fresh": answer, "message": "told"}

    monkeypatch.setattr(MilvusBackupHook, "check_freshness", look)
    set_connection("milvus_default", conn_type="milvus", host="127.0.0.1")
    return answers


def test_failures_that_pass_are_survived_until_they_last_too_long(looks: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(triggers, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: now[0]))

    def away(seconds: float) -> Callable[[Any], Exception]:
        def raising(_: Any) -> Exception:
            now[0] += seconds
            return StorageError("away")

        return raising

    nearly = imports.BUDGET - 1
    looks += [away(nearly), False, away(nearly), True]
    assert fired(trigger())["status"] == "success"
    looks += [away(nearly), away(2), True]
    event = fired(trigger())
    assert (event["status"], event["message"], len(looks)) == ("error", "StorageError: away", 1)


def test_an_error_that_does_not_pass_fires_at_once(looks: list[Any]) -> None:
    looks += [ConfigError("wrong")]
    assert fired(trigger())["status"] == "error"


def test_the_deadline_ends_the_wait_while_nothing_can_be_looked_at(looks: list[Any]) -> None:
    looks += [StorageError("away")]
    assert fired(trigger(deadline=1.0)) == {"status": "timeout", "message": "away", "deadline": 1.0}


def test_the_event_comes_late_enough_for_airflow_to_have_seen_the_deferral(looks: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    now = iter([0.0, 1.0, 2.0, 3.0])
    monkeypatch.setattr(imports, "EARLIEST", 8.0)
    monkeypatch.setattr(triggers.asyncio, "sleep", sleep)
    monkeypatch.setattr(triggers, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: next(now)))
    looks += [True]
    assert fired(trigger())["status"] == "success"
    assert pauses == [5.0], "three seconds had passed"


def test_the_loop_goes_on_while_a_look_lasts(looks: list[Any]) -> None:
    looking, beaten = threading.Event(), threading.Event()

    def look(_: Any) -> bool:
        looking.set()
        return beaten.wait(60)

    looks += [look]

    async def beat() -> Any:
        task = asyncio.ensure_future(anext(trigger().run()))  # type: ignore[arg-type]
        assert await asyncio.to_thread(looking.wait, 60)
        beaten.set()  # which the loop could not do if the look blocked it
        return (await task).payload

    assert asyncio.run(beat())["status"] == "success"


def test_a_cancelled_trigger_stops_the_look_in_its_thread(looks: list[Any]) -> None:
    looking, stopped = threading.Event(), threading.Event()

    def look(hook: MilvusBackupHook) -> bool:
        looking.set()
        assert hook._stop.wait(60)
        stopped.set()
        return False

    looks += [look]

    async def cancel() -> None:
        task = asyncio.ensure_future(anext(trigger().run()))  # type: ignore[arg-type]
        assert await asyncio.to_thread(looking.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert stopped.wait(60)
