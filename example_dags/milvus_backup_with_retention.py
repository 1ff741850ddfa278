"""Back everything up every night, verify it, then remove what is no longer needed: seven days, four weeks, twelve months stay.

Every backup is compared with what was written, and a thirty-first part of it is read and opened, another one each day of the month.
Retention runs only after a backup in which nothing is wrong, sees the backups of this DAG alone, and looks back from the newest one: where
backups stop, deletion stops. `dry_run=True` prints the same table and deletes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow import DAG

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.retention import MilvusBackupRetentionOperator
from airflow_provider_milvus_backup.operators.verify import MilvusVerifyBackupOperator

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
    verify = MilvusVerifyBackupOperator(
        task_id="verify",
        backup_name="{{ ti.xcom_pull(task_ids='backup')['name'] }}",
        level="binlogs",
        sample="{{ dag_run.start_date.day }}/31",
        max_bytes_per_second="200MiB",
    )
    retention = MilvusBackupRetentionOperator(
        task_id="retention",
        name_pattern="{{ dag.dag_id }}_20*",
        keep_daily=7,
        keep_weekly=4,
        keep_monthly=12,
    )
    backup >> verify >> retention
