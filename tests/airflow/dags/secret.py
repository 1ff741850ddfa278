"""A backup and restores whose secrets come from connections, and the same from a backup.yaml that is filled in by templates."""

from __future__ import annotations

from airflow import DAG

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator

CONFIG = {
    "milvus": {
        "address": "127.0.0.1",
        "port": "{{ var.value.milvus_port }}",
        "user": "keeper",
        "password": "{{ var.value.milvus_pw }}",
    },
    "minio": {
        "address": "127.0.0.1",
        "port": "{{ var.value.s3_port }}",
        "accessKeyID": "{{ var.value.s3_key }}",
        "secretAccessKey": "{{ var.value.s3_sec }}",
        "bucketName": "b-bucket",
        "backupBucketName": "b-bucket",
    },
}

for where, options in {"connections": {}, "config": {"milvus_conn_id": "nobody", "config": CONFIG}}.items():
    with DAG(dag_id=f"secret_{where}", schedule=None) as dag:
        backup = MilvusBackupOperator(task_id="backup", backup_name=f"secret_{where}", collections=["small"], **options)
        restore = MilvusRestoreOperator(
            task_id="restore",
            backup_name=f"secret_{where}",
            suffix=f"_{where}",
            poll_interval=1,
            deferrable=where == "connections",  # a backup.yaml that is no file does not travel into the triggerer
            **options,
        )
        backup >> restore
    globals()[dag.dag_id] = dag
