"""MilvusDeleteBackupOperator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context


class MilvusDeleteBackupOperator(MilvusBaseOperator):
    """Delete a backup of either tool, complete or not; one that is not there is a success.

    Returns name, uri, state (what it was), objects, bytes, seconds. Fails for a backup that is on hold, and for a directory that is no
    backup; while the backup is written or restored a retry may find it free. Milvus is not asked.

    :param backup_name: the backup
    """

    template_fields: Sequence[str] = ("backup_name", *MilvusBaseOperator.template_fields)
    template_fields_renderers = {"config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#fee2e2"

    def __init__(self, *, backup_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backup_name = backup_name

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete and return what was deleted."""
        with fail_without_retry():
            self.take_up(context)
            return self.hook.delete_backup(self.backup_name)
