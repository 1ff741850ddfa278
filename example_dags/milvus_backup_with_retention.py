"""Back everything up every night, then remove what is no longer needed: seven days, four weeks, twelve months stay.

Retention runs only after a backup that succeeded, sees the backups of this DAG alone, and looks back from the newest one: where backups
stop, deletion stops. `dry_run=True` prints the same table and deletes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow import DAG

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.retention import MilvusBackupRetentionOperator

with DAG(
    dag_id="milvus_backup_with_retention",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["milvus"],
):
    backup = MilvusBackupOperator(task_id="backup")
    retention = MilvusBackupRetentionOperator(
        task_id="retention",
        name_pattern="{{ dag.dag_id }}_*",
        keep_daily=7,
        keep_weekly=4,
        keep_monthly=12,
    )
    backup >> retention
