"""Delete and retention as tasks: what they return, which failures a retry is not wasted on, and the example DAG."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException
from airflow_provider_milvus_backup.core.errors import BackupInUse
from airflow_provider_milvus_backup.core.lease import Holding, Owner
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.delete import MilvusDeleteBackupOperator
from airflow_provider_milvus_backup.operators.retention import MilvusBackupRetentionOperator
from benchmarks.catalog import backup
from demo import servers
from tests.airflow import dag_runs
from tests.airflow.dag_runs import context
from tests.airflow.stack import KEYS, Stack

ROOT = "thinned"


@pytest.fixture
def place(s3: servers.S3Server, set_connection: Callable[..., None]) -> Callable[[str], None]:
    """Return ``place(name)``: puts a small backup below ROOT. No Milvus is there."""
    set_connection("milvus_default", conn_type="milvus", host="nowhere.invalid", extra={"bucket_name": "a-bucket"})
    extra = {"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"}
    set_connection("aws_default", conn_type="aws", login=KEYS["a"]["access_key"], password=KEYS["a"]["secret_key"], extra=extra)
    client = s3.client()

    def put(name: str) -> None:
        for key, content in backup(name).items():
            client.put_object(Bucket="a-bucket", Key=f"{ROOT}/{key.partition('/')[2]}", Body=content)

    return put


def executed(kind: Any, **arguments: Any) -> dict[str, Any]:
    task = kind(task_id="task", backup_root_path=ROOT, **arguments)
    result = task.execute(context(task))
    assert isinstance(result, dict)
    return result


def test_a_backup_is_deleted_once_and_missing_is_a_success(place: Callable[[str], None]) -> None:
    place("gone")
    first = executed(MilvusDeleteBackupOperator, backup_name="gone")
    second = executed(MilvusDeleteBackupOperator, backup_name="gone")
    assert [(told["name"], told["state"], told["objects"]) for told in (first, second)] == [
        ("gone", "complete", len(backup("gone"))),
        ("gone", "missing", 0),
    ]


def test_a_hold_fails_the_task_for_good_and_a_lease_is_worth_a_retry(place: Callable[[str], None], s3: servers.S3Server) -> None:
    place("wanted")
    hook = MilvusBackupHook(backup_root_path=ROOT)
    hook.hold_backup("wanted", "audit", "ann")
    with pytest.raises(AirflowFailException, match="ConfigError: backup 'wanted' is on hold of ann"):
        executed(MilvusDeleteBackupOperator, backup_name="wanted")
    hook.release_backup("wanted")
    key = f"{ROOT}/wanted/provider/leases/0123456789abcdef.json"
    held = Holding(Owner("dag/run/restore/-1"), "restore backup 'wanted'", seconds=3600)
    s3.client().put_object(Bucket="a-bucket", Key=key, Body=held.to_json())
    with pytest.raises(BackupInUse, match="restore backup 'wanted'"):
        executed(MilvusDeleteBackupOperator, backup_name="wanted")
    s3.client().delete_object(Bucket="a-bucket", Key=key)
    assert executed(MilvusDeleteBackupOperator, backup_name="wanted")["state"] == "complete"


def test_retention_shows_and_then_removes_the_same(place: Callable[[str], None]) -> None:
    for name in ("thin_a", "thin_b", "other"):
        place(name)
    MilvusBackupHook(backup_root_path=ROOT).hold_backup("thin_b", "audit", "ann")
    rules = {"keep_last": 0, "min_count": 0, "allow_empty": True, "name_pattern": "thin_*"}
    shown = executed(MilvusBackupRetentionOperator, dry_run=True, **rules)
    listed = [found["name"] for found in MilvusBackupHook(backup_root_path=ROOT).list_backups()]
    done = executed(MilvusBackupRetentionOperator, **rules)
    left = [found["name"] for found in MilvusBackupHook(backup_root_path=ROOT).list_backups()]
    assert shown == {**done, "dry_run": True}
    assert (done["kept"], done["removed"]) == (1, ["thin_a"])
    assert (sorted(listed), sorted(left)) == (["other", "thin_a", "thin_b"], ["other", "thin_b"])
    assert "on hold" in done["table"][-1] + done["table"][-2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({}, "the retention policy keeps nothing"), ({"keep_last": -1}, "keep_last -1"), ({"keep_daily": 1, "timezone": "Mars"}, "Mars")],
)
def test_a_wrong_policy_fails_the_task_for_good(place: Callable[[str], None], wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(AirflowFailException, match=f"ConfigError: .*{said}"):
        executed(MilvusBackupRetentionOperator, **wrong)


@pytest.mark.usefixtures("airflow_db")
def test_the_example_removes_old_backups_of_its_own_after_a_new_one(connected: Stack) -> None:
    dag = dag_runs.load(dag_runs.EXAMPLES / "milvus_backup_with_retention.py", "milvus_backup_with_retention")
    hook = MilvusBackupHook()
    old = "milvus_backup_with_retention_20260101T020000_backup"
    for name in (old, "milvus_backup_with_retention_of_others", "unrelated"):
        hook.backup(name, ["tags"])
    run = dag_runs.run(dag, by_hand=True)
    assert run.states() == {"backup": "success", "verify": "success", "retention": "success"}
    new, result = run.result("backup")["name"], run.result("retention")
    checked = run.result("verify")
    assert (checked["name"], checked["level"], checked["ok"], checked["sample"].endswith("/31")) == (new, "binlogs", True, True)
    assert (result["removed"], result["kept"]) == ([], 2), "the oldest stays while a rule has places left"
    assert new in result["table"][2]
    again = hook.apply_retention(keep_last=1, name_pattern="milvus_backup_with_retention_20*")
    assert again["removed"] == [old]
    others = {"milvus_backup_with_retention_of_others", "unrelated"}
    assert {new, *others} <= {found["name"] for found in hook.list_backups()}
    for name in (new, *others):
        hook.delete_backup(name)
