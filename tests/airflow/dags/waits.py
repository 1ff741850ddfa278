"""The same restore, waited for in every way there is."""

from __future__ import annotations

from typing import Any

from airflow import DAG

from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from airflow_provider_milvus_backup.sensors.imports import MilvusImportSensor

SPLIT: dict[str, dict[str, Any]] = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "sensor_deferred": {"deferrable": True}}

with DAG(dag_id="waits", schedule=None):
    for how, options in {"synchronous": {}, "deferred": {"deferrable": True}}.items():
        MilvusRestoreOperator(task_id=how, backup_name="shared", suffix=f"_{how}", backup_bucket="backups", poll_interval=1, **options)
    for how, options in SPLIT.items():
        submit = MilvusRestoreOperator(
            task_id=f"submit_{how}",
            backup_name="shared",
            suffix=f"_{how}",
            backup_bucket="backups",
            wait_for_completion=False,
            deferrable=True,  # says nothing where nothing is waited for
        )
        MilvusImportSensor(task_id=how, restore=submit.output, backup_bucket="backups", poke_interval=1, timeout=1200, **options)
