"""Airflow's own store for what a task keeps from try to try; collected only where Airflow has it (conftest.py)."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from airflow_provider_milvus_backup._compat import AirflowFailException
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from tests.airflow import dag_runs
from tests.airflow.dag_runs import context
from tests.airflow.stack import KEYS, PARTITIONS, Stack, in_environment


class Store(dict[str, Any]):
    """The calls of Airflow's store that the provider makes."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)

    def set(self, key: str, value: Any) -> None:
        self[key] = value


def reader(stack: Stack) -> dict[str, dict[str, Any]]:
    return {**stack.connections(), "aws_default": stack.aws_connection("reader")}


def test_a_key_that_may_only_read_restores_in_place_with_its_state_in_airflows_store_alone(
    stack: Stack, wide: dict[Any, Any], airflow_db: object
) -> None:
    before = stack.keys("a-bucket", "backup/wide/"), stack.staged()
    with in_environment(reader(stack)):
        dag = dag_runs.load(dag_runs.DAGS / "state_store.py", "state_store")
        run = dag_runs.run(dag)
        assert run.states() == {"restore": "success"}
        assert run.task("restore").try_number == 2
        server = MilvusBackupHook().get_conn()
        assert len(server.imports(CollectionName("default", "wide_reader"))) == len(PARTITIONS), "the retry imported again"
        server.close()
    assert stack.rows("wide_reader") == wide
    assert (stack.keys("a-bucket", "backup/wide/"), stack.staged()) == before, "something was written"
    first, second = inspect.unwrap(type(dag.get_task("restore")).execute).__globals__["KEPT"]
    assert first == second
    assert json.loads(first)["summary"] == run.result("restore")
    assert [key["name"] for key in KEYS.values() if str(key["secret_key"]) in first] == []


def test_where_nothing_can_be_written_a_restore_without_the_store_is_refused_before_it_changes_anything(
    stack: Stack, wide: dict[Any, Any]
) -> None:
    there = stack.collections()
    task = MilvusRestoreOperator(task_id="restore", backup_name="wide", suffix="_refused")
    with in_environment(reader(stack)), pytest.raises(AirflowFailException, match=r"StorageDenied: the state of restore .* Allow one"):
        task.execute(context(task))
    assert stack.collections() == there


def test_the_store_follows_what_is_kept_beside_the_backup(connected: Stack, backed_up: Any) -> None:
    store = Store()
    task = MilvusRestoreOperator(task_id="mirrored", backup_name="shared", backup_bucket="backups", suffix="_mirrored", load="never")
    summary = task.execute(context(task, task_state_store=store))
    key = f"backup/shared/provider/restores/{summary['restore_id']}.json"
    beside = connected.s3.client().get_object(Bucket="backups", Key=key)["Body"].read().decode()
    assert list(store) == ["milvus_restore"]
    assert store["milvus_restore"] == beside
