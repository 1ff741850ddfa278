"""Back up every collection, each in a task of its own: one that fails is retried alone, and the others are safe.

Every task instance has a backup name of its own, the same in every retry: `milvus_nightly_backup_20261122T020000_backup_0`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow import DAG

try:
    from airflow.sdk import task
except ImportError:  # Airflow 2
    from airflow.decorators import task

from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook
from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator

with DAG(
    dag_id="milvus_nightly_backup",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["milvus"],
):

    @task
    def collections() -> list[str]:
        """Return all collections of all databases."""
        return MilvusBackupHook().list_collections()

    MilvusBackupOperator.partial(task_id="backup", max_active_tis_per_dagrun=4).expand(collections=collections())
