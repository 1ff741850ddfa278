"""A restore by a key that may only read, so that its state has no place but Airflow's own store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow import DAG

from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator

#: What Airflow's store held at the end of each try.
KEPT: list[str] = []


class Restore(MilvusRestoreOperator):
    """Dies at the end of its first try."""

    def execute(self, context: Any) -> Any:
        result = super().execute(context)
        KEPT.append(context["task_state_store"].get("milvus_restore"))
        if context["ti"].try_number == 1:
            raise RuntimeError("died")
        return result


with DAG(dag_id="state_store", schedule=None):
    Restore(task_id="restore", backup_name="wide", suffix="_reader", load="always", poll_interval=1, retries=1, retry_delay=timedelta(0))
