"""Backups that come while a sensor waits, in every way there is to wait."""

from __future__ import annotations

from typing import Any

from airflow import DAG

from airflow_provider_milvus_backup.sensors.freshness import MilvusBackupFreshnessSensor
from tests.airflow.aging import MEANWHILE


class Watched(MilvusBackupFreshnessSensor):
    """Lets a backup happen once it has found none."""

    def _look(self) -> dict[str, Any]:
        found = super()._look()
        if not found["fresh"]:
            MEANWHILE[-1](self.task_id)
        return found


WAYS: dict[str, dict[str, Any]] = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "deferred": {"deferrable": True}}

with DAG(dag_id="ages", schedule=None):
    for how, options in WAYS.items():
        Watched(task_id=how, max_age="26h", collections=[how], poke_interval=0.1, timeout=1200, **options)
    MilvusBackupFreshnessSensor(task_id="late", max_age="26h", collections="late", poke_interval=0.1, timeout=0, soft_fail=True)
