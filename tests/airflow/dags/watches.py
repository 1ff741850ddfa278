"""Waits in the triggerer for a backup of one collection."""

from __future__ import annotations

from airflow import DAG

from airflow_provider_milvus_backup.sensors.freshness import MilvusBackupFreshnessSensor

with DAG(dag_id="watches", schedule=None, is_paused_upon_creation=False, params={"collection": "", "backups": ""}):
    MilvusBackupFreshnessSensor(
        task_id="fresh",
        max_age="26h",
        collections="{{ params.collection }}",
        name_pattern="{{ params.backups }}",
        poke_interval=1,
        timeout=1200,
        deferrable=True,
    )
