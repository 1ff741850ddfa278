"""Verifying as a task: what it returns, which backup is meant, and which failures a retry is not wasted on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException
from airflow_provider_milvus_backup.core import choosing, reading
from airflow_provider_milvus_backup.core.errors import BackupInUse, StorageError
from airflow_provider_milvus_backup.core.store import ObjectStore
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.verify import MilvusVerifyBackupOperator
from benchmarks.collection import BACKUPS, BUCKET, location
from benchmarks.slow_s3 import Answer, in_thread
from tests.airflow.dag_runs import context
from tests.unit.verified_backups import NAME, VerifiedStore, contents, write

KEY = "binlogs/insert_log/10/11/13/13/100/13100"


@pytest.fixture
def served(set_connection: Callable[..., None]) -> Iterator[VerifiedStore]:
    """A backup in a store that the connections lead to. No Milvus is there."""
    store = VerifiedStore()
    with in_thread(store) as endpoint:
        write(ObjectStore(location(endpoint, ("key", "secret"), BACKUPS)))
        set_connection("milvus_default", conn_type="milvus", host="nowhere.invalid", extra={"bucket_name": BUCKET})
        set_connection("aws_default", conn_type="aws", login="key", password="secret", extra={"endpoint_url": endpoint})
        yield store


def executed(**arguments: Any) -> dict[str, Any]:
    task = MilvusVerifyBackupOperator(task_id="verify", **arguments)
    result = task.execute(context(task))
    assert isinstance(result, dict)
    return result


def test_the_newest_backup_is_verified_and_the_catalog_shows_it(served: VerifiedStore) -> None:
    result = executed(level="binlogs", max_bytes_per_second="50MiB")
    assert json.loads(json.dumps(result)) == result
    assert (result["name"], result["uri"], result["ok"]) == (NAME, f"s3://{BUCKET}/{BACKUPS}/{NAME}", True)
    assert (result["objects"], result["read_objects"], result["unproven"], result["damaged"]) == (len(contents()), len(contents()), 0, 0)
    (listed,) = MilvusBackupHook().list_backups()
    assert {key: listed["verified"][key] for key in ("level", "ok", "sample")} == {"level": "binlogs", "ok": True, "sample": None}
    assert executed(backup_name=NAME)["level"] == "objects"
    assert executed(backup_name="random:1000y", level="checksums", sample="1/1")["sample"] == "1/1"


def test_damage_fails_the_task_for_good_after_the_result_was_written(served: VerifiedStore) -> None:
    served.rot(KEY)
    with pytest.raises(AirflowFailException, match=r"BackupDamaged: .* in segment 13\. .* can be restored: default\.c20\. .*Found: "):
        executed(backup_name=NAME, level="checksums")
    (listed,) = MilvusBackupHook().list_backups()
    assert (listed["verified"]["ok"], listed["verified"]["damaged_segments"], listed["state"]) == (False, [13], "complete")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"level": "deep"}, "ConfigError: level 'deep'"),
        ({"sample": "5%"}, "ConfigError: sample '5%' means nothing at level 'objects'"),
        ({"level": "checksums", "sample": "9/3"}, "ConfigError: sample '9/3'"),
        ({"level": "checksums", "max_bytes_per_second": "-1"}, "ConfigError: max_bytes_per_second '-1'"),
        ({"backup_name": "random:"}, "ConfigError"),
        ({"backup_name": "nightly_2"}, "BackupNotFound: backup 'nightly_2' does not exist"),
    ],
)
def test_what_a_retry_would_meet_again_fails_the_task_for_good(served: VerifiedStore, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(AirflowFailException, match=said):
        executed(**arguments)
    assert f"{BACKUPS}/{NAME}/provider/verified.json" not in served.keys


@pytest.mark.parametrize("which", ["latest", "random:1000y"])
def test_a_backup_that_is_deleted_after_it_was_chosen_is_worth_a_retry(
    served: VerifiedStore, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = choosing.choose

    def late(*arguments: Any) -> Any:
        found = choose(*arguments)
        served.remove("meta/backup_meta.json")
        return found

    monkeypatch.setattr(choosing, "choose", late)
    with pytest.raises(BackupInUse, match="'nightly' was chosen, and deleted before anything could be done with it; try again"):
        executed(backup_name=which)


def test_a_store_that_is_away_is_worth_a_retry(served: VerifiedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ATTEMPTS", 2)
    monkeypatch.setattr(reading, "MAX_UNREADABLE", 2)
    served.faults[f"GET {BACKUPS}/{NAME}/binlogs"] = Answer(503, b"<Error><Code>SlowDown</Code></Error>")
    with pytest.raises(StorageError, match="cannot be read"):
        executed(level="checksums")
    assert f"{BACKUPS}/{NAME}/provider/verified.json" not in served.keys
