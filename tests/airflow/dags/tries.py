"""What one task instance keeps from try to try, and which errors are not tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow import DAG

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.base import default_backup_name
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator

#: (task, try) → name.
NAMES: dict[tuple[str, int], str] = {}


class NameOnly(MilvusBackupOperator):
    """Returns the name that the backup would have, in its second try."""

    def execute(self, context: Any) -> Any:
        name = default_backup_name(context)
        NAMES[self.task_id, context["ti"].try_number] = name
        if self.retries and context["ti"].try_number == 1:
            raise RuntimeError("there is a second try")
        return name


with DAG(dag_id="names", schedule=None):
    NameOnly(task_id="once_more", retries=1, retry_delay=timedelta(0))
    NameOnly.partial(task_id="mapped").expand(collections=["a", "b"])

with DAG(dag_id="useless_retries", schedule=None):
    MilvusRestoreOperator(task_id="restore", backup_name="never_made", retries=2, retry_delay=timedelta(0))


class AnswerLost:
    """Does its work in the first try, and dies before Airflow hears of it."""

    def once(self, context: Any, result: Any) -> Any:
        if context["ti"].try_number == 1:
            raise RuntimeError("the answer was lost")
        return result


class BackupLost(AnswerLost, MilvusBackupOperator):
    """Loses the answer of a backup."""

    def execute(self, context: Any) -> Any:
        return self.once(context, super().execute(context))


class RestoreLost(AnswerLost, MilvusRestoreOperator):
    """Loses the answer of a restore."""

    def execute(self, context: Any) -> Any:
        return self.once(context, super().execute(context))

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        return self.once(context, super().execute_complete(context, event))


with DAG(dag_id="lost_answers", schedule=None):
    again: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(0), "backup_bucket": "backups"}
    BackupLost(task_id="backup", backup_name="lost_answers", collections=["tags"], **again)
    RestoreLost(task_id="restore", backup_name="wide", suffix="_lost", load="always", poll_interval=1, deferrable=True, **again)
