"""Once an hour, fail when a collection has no backup of the last 26 hours: failing is what pages somebody.

It looks at Milvus's collections and at what backups hold, not at the DAG that makes them, so it also notices a schedule that was paused, a
collection that nobody backs up, and backups that stopped months ago. Give it the `on_failure_callback` of your on-call tool.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow import DAG

from airflow_provider_milvus_backup.sensors.freshness import MilvusBackupFreshnessSensor

with DAG(
    dag_id="milvus_backup_watchdog",
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    # For a Milvus or a storage that cannot be looked at; what is late fails at once.
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    doc_md=__doc__,
    tags=["milvus"],
):
    MilvusBackupFreshnessSensor(task_id="fresh", max_age="26h", fail_when_late=True)
