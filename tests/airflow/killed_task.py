"""Execute one operator in a process of its own, to be killed in the middle: ``python -m tests.airflow.killed_task backup '{…}'``."""

from __future__ import annotations

import json
import sys

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator
from tests.airflow.dag_runs import context

if __name__ == "__main__":
    kind, options = sys.argv[1:]
    task = {"backup": MilvusBackupOperator, "restore": MilvusRestoreOperator}[kind](**json.loads(options))
    sys.stdout.write(json.dumps(task.execute(context(task))))
