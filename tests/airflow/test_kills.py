"""Kills: a killed task never ends as a success, and what it has made is undone or left for the next, as asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import errors, targets
from airflow_provider_milvus_backup.core.doors import GrpcDoor
from airflow_provider_milvus_backup.core.names import CollectionName, restore_id
from airflow_provider_milvus_backup.core.restore import RestoreRun
from airflow_provider_milvus_backup.core.state_store import StateStore
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from airflow_provider_milvus_backup.sensors.imports import MilvusImportSensor
from airflow_provider_milvus_backup.triggers import imports as triggers
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger
from tests.airflow.dag_runs import context, deferred_by, fired
from tests.airflow.gates import behind, s3_proxy, stalled_imports
from tests.airflow.real import until
from tests.airflow.stack import PARTITIONS, Stack, in_environment


def restore(suffix: str, **more: Any) -> MilvusRestoreOperator:
    options = {"backup_name": "shared", "backup_bucket": "backups", "poll_interval": 0.5, "load": "always", **more}
    return MilvusRestoreOperator(task_id=f"restore{suffix}", suffix=suffix, **options)


def built(stack: Stack, name: str) -> list[str]:
    """Return what restores are building for a collection of this name."""
    return [other for other in stack.collections() if other.startswith(f"{name}__restore_")]


def id_of(task: MilvusRestoreOperator) -> str:
    return restore_id(("by_hand", task.task_id, "-1"), "manual__1")


def staged(stack: Stack, restore_id: str) -> list[str]:
    return stack.keys("a-bucket", f"restore-temp-{restore_id}/")


def running(stack: Stack, name: str) -> bool:
    """Return whether imports run into what restores are building for a collection; until they end it is not dropped."""
    server = MilvusBackupHook().get_conn()
    try:
        return any(GrpcDoor(server).running(CollectionName("default", building)) for building in built(stack, name))
    finally:
        server.close()


def killed(task: Any) -> str:
    """Execute a task that is killed meanwhile, and return what it says."""
    with pytest.raises(errors.Cancelled, match="stopped") as raised:
        task.execute(context(task))
    return str(raised.value)


def killed_while_it_waits(stack: Stack, task: MilvusRestoreOperator) -> str:
    """Kill a restore when it has looked at its import jobs for the first time and all of them run: then all are submitted."""
    poll = RestoreRun.poll

    def polled(*arguments: Any) -> bool:
        done = poll(*arguments)
        task.on_kill()
        return done

    with stalled_imports(stack), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RestoreRun, "poll", polled)
        return killed(task)


# --- operators -----------------------------------------------------------------------------------------------------------


def test_a_killed_backup_never_ends_as_a_success_and_a_later_try_completes_it(connected: Stack) -> None:
    connected.client().insert("tags", [{"name": "tag-killed", "vector": [0.5] * 8, "title": "late", "doc": {}}])  # something to flush
    task = MilvusBackupOperator(task_id="backup", backup_name="killed", collections=["tags"])

    def kill(operation: str, path: str) -> None:
        if operation == "put" and path.endswith("backup/killed/provider/attempt.json"):
            task.on_kill()

    with s3_proxy(connected) as s3, in_environment(behind(connected, s3=s3).connections()):
        s3.before = kill
        killed(task)
    left = connected.keys("a-bucket", "backup/killed/")
    assert "backup/killed/meta/backup_meta.json" not in left
    assert "backup/killed/provider/lease.json" not in left, "nobody has to wait until its lease ends"

    again = MilvusBackupOperator(task_id="backup", backup_name="killed", collections=["tags"])
    assert again.execute(context(again, try_number=2))["rows"] == len(connected.rows("tags"))


def test_a_restore_that_is_killed_before_it_imports_leaves_nothing(
    connected: Stack, backed_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = restore("_killed_early")
    made = []

    def make(*arguments: Any, **more: Any) -> Any:
        targets_make(*arguments, **more)
        made.append(built(connected, "coll_killed_early"))
        task.on_kill()

    targets_make = targets.make
    monkeypatch.setattr(targets, "make", make)
    with pytest.raises(errors.Cancelled, match="stopped while import jobs were being submitted"):
        task.execute(context(task))
    assert len(made[0]) == 1
    assert not [name for name in connected.collections() if name.startswith("coll_killed_early")]
    assert staged(connected, id_of(task)) == []


def test_a_restore_that_is_killed_while_it_imports_is_undone_as_far_as_milvus_lets_it_and_the_next_try_drops_the_rest(
    connected: Stack, wide: dict[Any, Any]
) -> None:
    task = restore("_killed", backup_name="wide", poll_interval=60)
    killed_while_it_waits(connected, task)
    assert "wide_killed" not in connected.collections()
    assert set(staged(connected, id_of(task))) <= {f"restore-temp-{id_of(task)}/lease.json"}, "the lease says that it is not over"

    until(lambda: not running(connected, "wide_killed"), "no import of the killed restore runs any more")
    again = restore("_killed", backup_name="wide")
    assert again.execute(context(again, try_number=2))["rows"] == len(wide)
    assert connected.rows("wide_killed") == wide
    assert built(connected, "wide_killed") == []
    assert staged(connected, id_of(task)) == []


def test_a_killed_restore_that_shall_not_be_undone_goes_on_in_milvus_and_a_sensor_finishes_it(
    connected: Stack, wide: dict[Any, Any]
) -> None:
    task = restore("_left", backup_name="wide", poll_interval=60, cancel_on_kill=False)
    said = killed_while_it_waits(connected, task)
    assert jobs_of(connected, "wide_left") == len(PARTITIONS)
    assert "are still running in Milvus" in said
    assert len(built(connected, "wide_left")) == 1

    waiting = MilvusImportSensor(
        task_id="wait", backup_name="wide", restore_id=id_of(task), backup_bucket="backups", poke_interval=0.5, timeout=1200
    )
    assert waiting.execute(context(waiting))["rows"] == len(wide)
    assert connected.rows("wide_left") == wide
    assert built(connected, "wide_left") == []
    assert staged(connected, id_of(task)) == []


def jobs_of(stack: Stack, name: str) -> int:
    server = MilvusBackupHook().get_conn()
    try:
        return sum(len(server.imports(CollectionName("default", building))) for building in built(stack, name))
    finally:
        server.close()


def test_a_sensor_that_is_killed_stops_and_leaves_the_restore_alone(connected: Stack, wide: dict[Any, Any]) -> None:
    submit = restore("_watched", backup_name="wide", wait_for_completion=False)
    submitted = submit.execute(context(submit))

    def sensor(**more: Any) -> MilvusImportSensor:
        options = {"backup_bucket": "backups", "poke_interval": 0.5, "timeout": 1200, **more}
        return MilvusImportSensor(task_id="wait", restore=submitted, **options)

    with stalled_imports(connected), pytest.MonkeyPatch.context() as patch:
        # The trigger of a sensor is told, too, when a user marks the sensor.
        waiting = sensor(deferrable=True)
        trigger = deferred_by(lambda: waiting.execute(context(waiting))).trigger
        asyncio.run(trigger.on_kill())
        assert len(built(connected, "wide_watched")) == 1

        waiting, poke = sensor(), MilvusImportSensor.poke

        def poked(*arguments: Any) -> Any:
            looked = poke(*arguments)
            waiting.on_kill()
            return looked

        patch.setattr(MilvusImportSensor, "poke", poked)
        said = killed(waiting)
    assert f"restore {submitted['restore_id']} of backup 'wide', which goes on" in said
    assert len(built(connected, "wide_watched")) == 1

    waiting = sensor()
    assert waiting.execute(context(waiting))["rows"] == len(wide)
    assert connected.rows("wide_watched") == wide
    assert staged(connected, waiting.restore["restore_id"]) == []


def test_a_kill_before_anything_began_harms_nothing(connected: Stack) -> None:
    waiting = MilvusImportSensor(task_id="wait", backup_name="b", restore_id="r")
    for task in (MilvusBackupOperator(task_id="backup"), restore("_never"), waiting):
        task.on_kill()


@pytest.fixture(autouse=True)
def no_leases(stack: Stack) -> Iterator[None]:
    yield
    stack.remove_leases()


# --- the trigger ---------------------------------------------------------------------------------------------------------

#: How long undoing waits for imports to end, in seconds, on a machine that is busy.
PATIENT = 600.0


def waiting_in_the_triggerer(suffix: str, try_number: int = 1, **more: Any) -> MilvusImportTrigger:
    task = restore(suffix, deferrable=True, **more)
    deferred = deferred_by(lambda: task.execute(context(task, try_number=try_number)))
    path, arguments = deferred.trigger.serialize()
    assert path.endswith(".MilvusImportTrigger")
    return MilvusImportTrigger(**arguments)


@pytest.mark.parametrize("harassed", [False, True])
def test_a_trigger_undoes_the_restore_of_a_task_that_a_user_marks_however_often_it_is_cancelled_meanwhile(
    connected: Stack, backed_up: Any, monkeypatch: pytest.MonkeyPatch, harassed: bool
) -> None:
    monkeypatch.setattr(triggers, "ON_KILL_SECONDS", PATIENT)
    name = f"coll_marked_{harassed}".lower()
    trigger = waiting_in_the_triggerer(name[4:])
    assert len(built(connected, name)) == 1

    async def on_kill() -> None:
        task = asyncio.ensure_future(trigger.on_kill())
        while not task.done():
            await asyncio.sleep(0.1)
            if harassed:
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(on_kill())
    assert not [other for other in connected.collections() if other.startswith(name)]
    assert staged(connected, trigger.restore_id) in ([], [f"restore-temp-{trigger.restore_id}/lease.json"])

    event = {"status": "success", "message": "", **{key: getattr(trigger, key) for key in ("backup_name", "restore_id", "deadline")}}
    resumed = restore(name[4:], deferrable=True)
    with pytest.raises(Exception, match="was undone: its task was marked or cleared; restore again"):
        resumed.execute_complete(context(resumed), event)
    asyncio.run(trigger.on_kill())  # once more does nothing


def test_a_trigger_does_not_wait_longer_than_airflow_for_what_is_being_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert triggers.ON_KILL_SECONDS < 30
    over = threading.Event()
    monkeypatch.setattr(triggers, "ON_KILL_SECONDS", 0.01)
    monkeypatch.setattr(MilvusImportTrigger, "_undo", lambda _: over.wait(600))

    async def on_kill() -> bool:
        await MilvusImportTrigger("milvus_default", [1], "shared", "0123456789abcdef", cancel_on_kill=True, token="t").on_kill()
        try:
            return over.is_set()
        finally:
            over.set()

    assert asyncio.run(on_kill()) is False


def test_a_restore_that_its_trigger_has_undone_no_longer_holds_the_backup(
    connected: Stack, backed_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triggers, "ON_KILL_SECONDS", PATIENT)
    trigger = waiting_in_the_triggerer("_free")
    asyncio.run(trigger.on_kill())
    assert built(connected, "coll_free") == []
    assert staged(connected, trigger.restore_id) == []
    assert connected.keys("backups", f"backup/shared/provider/leases/{trigger.restore_id}") == []


def test_a_trigger_undoes_nothing_that_a_new_try_has_gone_on_with(connected: Stack, wide: dict[Any, Any]) -> None:
    old = waiting_in_the_triggerer("_cleared", backup_name="wide")
    building = built(connected, "wide_cleared")
    new = waiting_in_the_triggerer("_cleared", try_number=2, backup_name="wide")
    assert old.restore_id == new.restore_id
    assert old.token != new.token
    assert old.job_ids == new.job_ids, "nothing is submitted again"
    asyncio.run(old.on_kill())
    assert built(connected, "wide_cleared") == building

    event = fired(new)
    assert event["status"] == "success"
    resumed = restore("_cleared", backup_name="wide", deferrable=True)
    summary = resumed.execute_complete(context(resumed, try_number=2), event)
    asyncio.run(old.on_kill())
    asyncio.run(new.on_kill())  # it is finished
    assert (summary["rows"], summary["jobs"]) == (len(wide), len(PARTITIONS))
    assert connected.rows("wide_cleared") == wide
    assert staged(connected, new.restore_id) == []


def test_a_cleared_task_restores_though_the_old_trigger_undoes_the_restore_that_it_was_about_to_go_on_with(
    connected: Stack, backed_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = waiting_in_the_triggerer("_raced")
    find = StateStore.find

    def found(*arguments: Any) -> Any:
        monkeypatch.setattr(StateStore, "find", find)
        state = find(*arguments)
        asyncio.run(old.on_kill())
        return state

    monkeypatch.setattr(StateStore, "find", found)
    task = restore("_raced", load="never")
    assert task.execute(context(task, try_number=2))["rows"] > 0


def test_a_trigger_that_shall_not_undo_does_nothing_when_its_task_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    undone: list[Any] = []
    monkeypatch.setattr(MilvusImportTrigger, "_undo", undone.append)
    for more in ({"cancel_on_kill": False, "token": "t"}, {"cancel_on_kill": True, "token": ""}):
        asyncio.run(MilvusImportTrigger("milvus_default", [1], "shared", "0123456789abcdef", **more).on_kill())
    assert undone == []
