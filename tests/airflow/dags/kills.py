"""Restores for the real scheduler and triggerer to run while they are killed; where they go is in the run's conf."""

from __future__ import annotations

from datetime import timedelta

from airflow import DAG

from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator

for how in ("running", "deferred"):
    with DAG(dag_id=f"kills_{how}", schedule=None, is_paused_upon_creation=False) as dag:
        MilvusRestoreOperator(
            task_id="restore",
            backup_name="wide",
            backup_bucket="backups",
            suffix="{{ dag_run.conf['suffix'] }}",
            load="always",
            poll_interval=1,
            deferrable=how == "deferred",
            retries=2,
            retry_delay=timedelta(0),
        )
    globals()[dag.dag_id] = dag
