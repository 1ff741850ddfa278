"""Every week, restore one of the backups of the last 30 days, look at what came of it, and drop it again.

A backup is worth what its restore proves. This one restores into a Milvus of its own, connection `milvus_drill`, out of the bucket in which
`milvus_backup_with_retention` keeps its backups: by default `a-bucket`, that of the Milvus that is backed up, opened by `aws_default`. It
fails when rows, schema or indexes are not those of the backup, when a check fails, or when the recovery takes more than an hour. Give
`checks` what your users would miss first.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow import DAG

from airflow_provider_milvus_backup.operators.drill import MilvusRestoreDrillOperator

with DAG(
    dag_id="milvus_restore_drill",
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    params={"bucket": "a-bucket", "pattern": "milvus_backup_with_retention_*"},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["milvus"],
):
    MilvusRestoreDrillOperator(
        task_id="drill",
        milvus_conn_id="milvus_drill",
        backup_aws_conn_id="aws_default",
        backup_bucket="{{ params.bucket }}",
        backup_name="random:30d",
        name_pattern="{{ params.pattern }}",
        sample=3,
        database="drill",
        checks=[{"collection": "coll", "expression": "id >= 0", "min_count": 1}],
        max_seconds=timedelta(hours=1),
    )
