"""Move collections from cluster A to cluster B by way of a bucket that both sides reach.

Needs the connections `milvus_a` and `milvus_b`, each with the bucket, root path and aws connection of its own storage, and the aws
connection `migration_s3` for the bucket in between. The restore is split in two tasks: one submits the import jobs, the other waits for
them and finishes the restore.
"""

from __future__ import annotations

from airflow import DAG

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from airflow_provider_milvus_backup.sensors.imports import MilvusImportSensor

BETWEEN = {"backup_aws_conn_id": "migration_s3", "backup_bucket": "{{ params.bucket }}"}

with DAG(
    dag_id="milvus_migrate_cluster",
    schedule=None,
    params={"bucket": "migration", "collections": ["default.*"]},
    render_template_as_native_obj=True,
    doc_md=__doc__,
    tags=["milvus"],
):
    backup = MilvusBackupOperator(
        task_id="backup",
        milvus_conn_id="milvus_a",
        collections="{{ params.collections }}",
        **BETWEEN,
    )
    restore = MilvusRestoreOperator(
        task_id="restore",
        milvus_conn_id="milvus_b",
        backup_name="{{ ti.xcom_pull('backup')['name'] }}",
        wait_for_completion=False,
        **BETWEEN,
    )
    wait = MilvusImportSensor(
        task_id="wait",
        milvus_conn_id="milvus_b",
        restore=restore.output,
        poke_interval=5,
        mode="reschedule",
        **BETWEEN,
    )
    backup >> restore >> wait
