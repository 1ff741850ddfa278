"""The preflight as a task: what it returns, when it fails and whether a retry is worth it. And backups that are locked at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException
from airflow_provider_milvus_backup.core import rpc
from airflow_provider_milvus_backup.core.errors import CheckFailed, StorageError
from airflow_provider_milvus_backup.core.preflight import NAMES
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.check import MilvusBackupCheckOperator
from demo import servers
from tests.airflow.dag_runs import context
from tests.airflow.stack import Stack

LOCKED = "locked-backups"


def executed(kind: Any = MilvusBackupCheckOperator, **arguments: Any) -> dict[str, Any]:
    task = kind(task_id="task", **arguments)
    result = task.execute(context(task))
    assert isinstance(result, dict)
    return result


def test_the_result_is_small_and_has_every_line(connected: Stack) -> None:
    before = connected.keys("backups") + connected.staged()
    found = executed(collections="coll", backup_bucket="backups", skip="milvus.management")
    assert found["status"] == "PASS"
    assert [line["name"] for line in found["checks"]] == list(NAMES)
    assert {line["status"] for line in found["checks"]} == {"PASS", "SKIP"}
    assert found["server_version"].startswith("v2.3.5")
    assert len(json.dumps(found)) < 10_000
    assert connected.keys("backups") + connected.staged() == before


def test_a_failed_line_fails_the_task_for_good_after_all_of_them_ran(connected: Stack, set_connection: Callable[..., None]) -> None:
    set_connection("reader", **connected.aws_connection("reader"))
    with pytest.raises(AirflowFailException, match=r"CheckFailed: 1 of 27 checks did not pass: backup_storage\.write FAIL: .*denied"):
        executed(backup_aws_conn_id="reader", backup_root_path="checked")
    told = executed(backup_aws_conn_id="reader", backup_root_path="checked", fail_on="NEVER")
    assert (told["status"], told["retryable"]) == ("FAIL", False)
    assert told["checks"][-1]["status"] == "PASS"


def test_warnings_fail_only_where_they_are_to(connected: Stack) -> None:
    assert executed(collections="coll")["status"] == "WARN"
    with pytest.raises(AirflowFailException, match=r"CheckFailed: 1 of 27 checks did not pass: milvus\.management WARN"):
        executed(collections="coll", fail_on="WARN")


def test_what_may_pass_by_itself_is_worth_a_retry(
    connected: Stack, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "CONNECT_SECONDS", 0.3)
    set_connection("away", **{**connected.connections()["milvus_default"], "port": 9})
    with pytest.raises(CheckFailed, match=r"milvus\.connect FAIL: .* did not answer"):
        executed(milvus_conn_id="away")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fail_on": "never"}, "fail_on 'never' is not one of FAIL, WARN, NEVER"),
        ({"skip": ["clock"]}, "skip 'clock' is not the name of a check"),
        ({"collections": "a.b.c"}, "a.b.c"),
        ({"timeout": 0}, "timeout 0"),
        ({"skip": 7}, "skip 7 is neither a list of names nor a text with commas"),
        ({"include_restore": "false"}, "include_restore 'false' is neither True nor False"),
        ({"include_rbac": None}, "include_rbac None is neither True nor False"),
    ],
)
def test_wrong_arguments_fail_the_task_for_good_before_anything_is_asked(
    set_connection: Callable[..., None], wrong: dict[str, Any], said: str
) -> None:
    set_connection("milvus_default", conn_type="milvus", host="nowhere.invalid")
    set_connection("aws_default", conn_type="aws", login="key", password="secret")
    with pytest.raises(AirflowFailException, match=f"ConfigError: .*{said}"):
        executed(**wrong)


def test_a_killed_check_stops(connected: Stack) -> None:
    before, task = connected.staged(), MilvusBackupCheckOperator(task_id="task")
    task.on_kill()
    with pytest.raises(Exception, match=r"stopped while milvus\.connect was about to be checked") as raised:
        task.execute(context(task))
    assert not isinstance(raised.value, AirflowFailException)
    assert connected.staged() == before


# ---- locked backups ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(s3: servers.S3Server) -> str:
    """A bucket with Object Lock, which the admin's key alone may lock objects in."""
    s3.client().create_bucket(Bucket=LOCKED, ObjectLockEnabledForBucket=True)
    return LOCKED


def test_a_backup_is_locked_when_it_is_made_and_a_retry_returns_the_same(
    connected: Stack, s3: servers.S3Server, locked: str, set_connection: Callable[..., None]
) -> None:
    admin = {**connected.aws_connection("a"), "login": s3.access_key, "password": s3.secret_key}
    set_connection("admin", **admin)
    arguments = {"backup_name": "kept", "collections": ["tags"], "strategy": "meta_only", "object_lock_days": 3}
    place = {"backup_bucket": locked, "backup_aws_conn_id": "admin"}
    first = executed(MilvusBackupOperator, **arguments, **place)
    assert executed(MilvusBackupOperator, **arguments, **place) == first
    found = s3.client().get_object_retention(Bucket=locked, Key="backup/kept/meta/backup_meta.json")["Retention"]
    assert found["Mode"] == first["object_lock"]["mode"] == "GOVERNANCE"
    assert found["RetainUntilDate"].isoformat().startswith(first["object_lock"]["until"][:19])
    hook = MilvusBackupHook(**place)
    (listed,) = hook.list_backups("kept")
    assert listed["locked"] == hook.get_backup("kept")["locked"] == {**first["object_lock"], "legal_hold": False}
    assert hook.lock_backup("kept", 3) == first["object_lock"]


def test_a_try_that_died_between_commit_and_lock_is_gone_on_with(
    connected: Stack, s3: servers.S3Server, locked: str, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection("admin", **{**connected.aws_connection("a"), "login": s3.access_key, "password": s3.secret_key})
    place = {"backup_bucket": locked, "backup_aws_conn_id": "admin"}
    arguments = {"backup_name": "died", "collections": ["tags"], "object_lock_days": 3}
    locks, key = s3.client(), "backup/died/meta/backup_meta.json"

    def dies(*_: object) -> None:
        raise StorageError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr("airflow_provider_milvus_backup.core.locking._Locker._one", dies)
        with pytest.raises(StorageError, match="the store is away"):
            executed(MilvusBackupOperator, **arguments, **place)
    assert "ObjectLockMode" not in locks.head_object(Bucket=locked, Key=key)
    (before,) = MilvusBackupHook(**place).list_backups("died")
    done = executed(MilvusBackupOperator, **arguments, **place)
    (after,) = MilvusBackupHook(**place).list_backups("died")
    assert after == {**before, "locked": {**done["object_lock"], "legal_hold": False}}
    assert locks.head_object(Bucket=locked, Key=key)["ObjectLockMode"] == "GOVERNANCE"


def test_a_lock_that_cannot_be_is_refused_before_a_backup_is_made(connected: Stack, locked: str) -> None:
    for wrong, said in (
        ({"backup_bucket": "backups"}, "bucket 'backups' has no Object Lock"),
        ({"backup_bucket": locked, "if_exists": "replace"}, "contradict each other"),
        ({"backup_bucket": locked, "object_lock_mode": "FOREVER"}, "object_lock_mode 'FOREVER'"),
    ):
        with pytest.raises(AirflowFailException, match=f"ConfigError: .*{said}"):
            executed(MilvusBackupOperator, backup_name="refused", collections=["tags"], object_lock_days=3, **wrong)
    assert not [key for key in connected.keys("backups") if "refused" in key]
