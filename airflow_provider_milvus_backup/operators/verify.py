"""MilvusVerifyBackupOperator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context


class MilvusVerifyBackupOperator(MilvusBaseOperator):
    """Verify a backup of either tool: everything is there, it is what was backed up, and Milvus can read it.

    Returns name, uri, level, sample, ok, compared_with, time, objects, bytes, read_objects, read_bytes, unproven, segments, seconds and
    damaged, and writes the same beside the backup, where the catalog shows it. Damage fails the task for good; the error names damaged
    segments and what still restores. Milvus is not asked.

    :param backup_name: a name, as ``{{ ti.xcom_pull("backup")["name"] }}``; ``latest``: the newest complete backup; ``random:30d``: any one
        of the last 30 days
    :param level: ``objects``: one listing is compared with what was written, by presence, size and ETag; ``checksums``: objects are read,
        and their content is compared, too; ``binlogs``: and they are opened, and their rows counted
    :param sample: read a part only, at the last two levels: ``3/30`` is the third of thirty parts that together are everything, as in
        ``{{ dag_run.start_date.day }}/31``; ``5%`` is another part every time. By default everything is read
    :param max_bytes_per_second: how fast to read at most: a number, or ``50MiB``; by default as fast as possible
    """

    template_fields: Sequence[str] = (
        "backup_name",
        "level",
        "sample",
        "max_bytes_per_second",
        *MilvusBaseOperator.template_fields,
    )
    template_fields_renderers = {"config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#dcfce7"

    def __init__(
        self,
        *,
        backup_name: str = "latest",
        level: str = "objects",
        sample: str | None = None,
        max_bytes_per_second: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_name = backup_name
        self.level = level
        self.sample = sample
        self.max_bytes_per_second = max_bytes_per_second

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify and return what was found."""
        with fail_without_retry():
            self.take_up(context)
            return self.hook.verify_backup(self.backup_name, self.level, self.sample, self.max_bytes_per_second)
