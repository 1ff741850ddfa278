"""MilvusBackupOperator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, default_backup_name, fail_without_retry, seconds

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context


class MilvusBackupOperator(MilvusBaseOperator):
    """Back up Milvus collections into object storage, in the format of ``milvus-backup``.

    Returns the summary: name, uri, rows, objects, bytes, seconds, and the same per collection.

    :param backup_name: letters, digits and underscores; by default made from DAG, run and task
        (``nightly_20261122T020000_docs``), the same in every try of a task instance
    :param collections: ``coll``, ``db.coll`` or ``db.*``, as a list or a string with commas; nothing means everything
    :param strategy: ``flush``: everything written before the task started, each collection as of its own flush; ``flush_all``: all
        collections as of one moment (Milvus 2.6.11 and later); ``skip_flush``: what Milvus has already flushed; ``meta_only``: schemas and
        indexes without data
    :param if_exists: a finished backup has the name: ``fail``; ``skip``: return its summary; ``replace``: make it anew and remove the old
        one after the commit. ``resume`` goes on with an unfinished attempt of somebody else. A retry always goes on with its own
    :param include_rbac: users, roles, grants and privilege groups of the cluster, too (Milvus 2.4.9 and later)
    :param gc_pause: pause Milvus's garbage collection while objects are copied: ``auto`` (try, and warn), ``require`` or ``off``; by
        default as backup.yaml says, else ``auto``
    :param format: ``binlog``, or ``snapshot``: Milvus writes the backup itself (3.0.1 and later)
    :param object_lock_days: lock the complete backup by S3 Object Lock for so many days from its commit, so that nobody deletes it; the
        bucket must have Object Lock
    :param object_lock_mode: ``GOVERNANCE`` can be lifted by who has the permission to bypass it, ``COMPLIANCE`` by nobody
    :param timeout: seconds (or a timedelta) that one try may take; by default as long as it needs
    """

    template_fields: Sequence[str] = (
        "backup_name",
        "collections",
        "strategy",
        "if_exists",
        "gc_pause",
        "format",
        "object_lock_mode",
        *MilvusBaseOperator.template_fields,
    )
    template_fields_renderers = {"collections": "json", "config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#e0f2fe"

    def __init__(
        self,
        *,
        backup_name: str | None = None,
        collections: str | Sequence[str] | None = None,
        strategy: str = "flush",
        if_exists: str = "fail",
        include_rbac: bool = False,
        gc_pause: str | None = None,
        format: str = "binlog",  # noqa: A002 (as the meta and milvus-backup call it)
        object_lock_days: int | None = None,
        object_lock_mode: str = "GOVERNANCE",
        timeout: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_name = backup_name
        self.collections = collections
        self.strategy = strategy
        self.if_exists = if_exists
        self.include_rbac = include_rbac
        self.gc_pause = gc_pause
        self.format = format
        self.object_lock_days = object_lock_days
        self.object_lock_mode = object_lock_mode
        self.timeout = timeout

    def execute(self, context: Context) -> dict[str, Any]:
        """Back up and return the summary."""
        name = self.backup_name or default_backup_name(context)
        self.log.info("backing up as %r", name)
        with fail_without_retry():
            self.take_up(context)
            return self.hook.backup(
                name,
                self.collections,
                self.strategy,
                self.if_exists,
                include_rbac=self.include_rbac,
                gc_pause=self.gc_pause,
                format=self.format,
                object_lock_days=self.object_lock_days,
                object_lock_mode=self.object_lock_mode,
                timeout=seconds(self.timeout, "timeout"),
            )
