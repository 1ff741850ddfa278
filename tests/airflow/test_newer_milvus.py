"""Operators, the sensor and the trigger with a Milvus that is asked over REST."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from airflow_provider_milvus_backup.sensors.imports import MilvusImportSensor
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger
from demo import servers
from tests.airflow.dag_runs import context, deferred_by, fired
from tests.contract import shapes
from tests.contract.jobs import Fate
from tests.versions.worlds import BUCKET, World, world

NAME = ("default", "docs")
PASSWORD = "planted-Password1"


@pytest.fixture
def milvus(s3: servers.S3Server, set_connection: Callable[..., None]) -> Iterator[World]:
    """A Milvus 2.6 that asks for a password, with rows in two partitions and deletes in L0 segments, behind the connections."""
    if BUCKET not in (bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]):
        s3.create_bucket(BUCKET)
    with world("2.6.4", s3, passwords={"root": PASSWORD}) as made:
        model = made.model
        model.create_collection(NAME, shapes.schema("docs"), shards=2)
        model.create_partition(NAME, "second")
        model.insert(NAME, [shapes.row(number) for number in range(30)])
        model.insert(NAME, [shapes.row(number) for number in range(100, 110)], "second")
        model.flush(NAME)
        model.delete(NAME, [1, 101])
        extra = {
            "bucket_name": BUCKET,
            "root_path": f"{made.root}/files",
            "aws_conn_id": "aws_default",
            "management_endpoint": made.server.management_endpoint,
        }
        login = {"login": "root", "password": PASSWORD}
        set_connection("milvus_default", conn_type="milvus", host=made.server.host, port=made.server.port, extra=extra, **login)
        keys = {"login": s3.access_key, "password": s3.secret_key}
        set_connection("aws_default", conn_type="aws", extra={"endpoint_url": s3.endpoint_url, "region_name": "us-east-1"}, **keys)
        yield made


def backup(milvus: World) -> dict[str, Any]:
    task = MilvusBackupOperator(task_id="backup", backup_name="nightly", backup_root_path=f"{milvus.root}/backup", gc_pause="require")
    return task.execute(context(task))


def restore(milvus: World, suffix: str, **more: Any) -> MilvusRestoreOperator:
    root = f"{milvus.root}/backup"
    options = {"backup_name": "nightly", "backup_root_path": root, "suffix": suffix, "poll_interval": 0.2, **more}
    return MilvusRestoreOperator(task_id=f"restore{suffix}", **options)


def wait_for(milvus: World, begun: dict[str, Any]) -> Any:
    root = f"{milvus.root}/backup"
    sensor = MilvusImportSensor(task_id="wait", restore=begun, backup_root_path=root, mode="poke", poke_interval=0.2, timeout=1200)
    return sensor.execute(context(sensor))


def test_a_deferred_restore_waits_over_rest_for_the_data_and_then_for_the_deletes(milvus: World) -> None:
    rows = milvus.model.rows(NAME)
    assert backup(milvus)["strategy"] == "flush"
    milvus.model.phase_seconds = 0.05
    task = restore(milvus, "_deferred", deferrable=True)
    waits, event = 0, None
    while True:

        def step(event: dict[str, Any] | None = event) -> Any:
            return task.execute(context(task)) if event is None else task.execute_complete(context(task), event)

        try:
            summary = step()
            break
        except BaseException as deferred:
            if type(deferred).__name__ != "TaskDeferred":
                raise
            trigger: MilvusImportTrigger = deferred.trigger  # type: ignore[attr-defined]
            assert (trigger.rest, set(trigger.databases)) == (True, {"default"})
            assert PASSWORD not in str(trigger.serialize())
            event, waits = fired(trigger), waits + 1
            assert event["status"] == "success"
    assert waits >= 2, "deletes are imported when all data is there"
    assert summary["rows"] == 40
    assert milvus.model.rows(("default", "docs_deferred")) == rows
    assert milvus.server.requests["jobs/import/create"] == summary["jobs"]


def test_the_sensor_submits_the_deletes_and_finishes(milvus: World) -> None:
    rows = milvus.model.rows(NAME)
    backup(milvus)
    task = restore(milvus, "_sensed", wait_for_completion=False)
    begun = task.execute(context(task))
    assert wait_for(milvus, begun)["restore_id"] == begun["restore_id"]
    assert milvus.model.rows(("default", "docs_sensed")) == rows


def test_a_failed_job_fires_with_the_reason_of_the_server(milvus: World) -> None:
    backup(milvus)
    milvus.model.fates.append(Fate(fail="the disk of datanode 7 is gone"))
    task = restore(milvus, "_failing", deferrable=True)
    event = fired(deferred_by(lambda: task.execute(context(task))).trigger)
    assert event["status"] == "failed"
    assert "the disk of datanode 7 is gone" in event["message"]
    with pytest.raises(Exception, match="the disk of datanode 7 is gone"):
        task.execute_complete(context(task), event)
    assert [name for name in milvus.model.database("default").collections if name.startswith("docs_failing")] == []
