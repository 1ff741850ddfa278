"""Back a collection up and restore it beside the original: `coll` becomes `coll_bak`.

Needs the connections `milvus_default` and `aws_default`. While Milvus imports, the restore waits in the triggerer and holds no worker slot.
"""

from __future__ import annotations

from airflow import DAG

from airflow_provider_milvus_backup.operators.backup import MilvusBackupOperator
from airflow_provider_milvus_backup.operators.restore import MilvusRestoreOperator

with DAG(
    dag_id="milvus_backup_and_restore",
    schedule=None,
    params={"backup_name": "my_backup", "collection": "coll", "suffix": "_bak"},
    doc_md=__doc__,
    tags=["milvus"],
):
    backup = MilvusBackupOperator(
        task_id="backup",
        backup_name="{{ params.backup_name }}",
        collections=["{{ params.collection }}"],
    )
    restore = MilvusRestoreOperator(
        task_id="restore",
        backup_name="{{ params.backup_name }}",
        suffix="{{ params.suffix }}",
        deferrable=True,
    )
    backup >> restore
