"""MilvusBackupCheckOperator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.core.checking import check_fail_on, raise_for
from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry, seconds

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context


class MilvusBackupCheckOperator(MilvusBaseOperator):
    """Look at Milvus, its bucket and the backup storage before a backup or restore fails on them: one line each, with the remedy.

    Returns status (``PASS``, ``WARN`` or ``FAIL``), checks (name, status, message, remedy, seconds), capabilities and server_version. Fails
    when a check fails, after all of them ran; without a retry, unless all that failed may pass by itself. Milvus's data is never touched;
    what is written are probes, which are removed again.

    :param collections: what would be backed up: ``coll``, ``db.coll``, ``db.*``; a list or a string with commas; nothing means everything
    :param include_restore: also what only a restore needs: its privileges, and writing into Milvus's bucket
    :param include_rbac: also what users and roles need
    :param skip: names of checks to leave out, as ``backup_storage.versioning``; a list or a string with commas
    :param fail_on: ``FAIL``; ``WARN``: also on warnings; ``NEVER``: only return the result
    :param timeout: seconds (or a timedelta) that all of it may take; by default as long as it needs
    """

    template_fields: Sequence[str] = ("collections", "skip", "fail_on", *MilvusBaseOperator.template_fields)
    template_fields_renderers = {"collections": "json", "skip": "json", "config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#dcfce7"

    def __init__(
        self,
        *,
        collections: str | Sequence[str] | None = None,
        include_restore: bool = True,
        include_rbac: bool = False,
        skip: str | Sequence[str] | None = (),
        fail_on: str = "FAIL",
        timeout: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.collections = collections
        self.include_restore = include_restore
        self.include_rbac = include_rbac
        self.skip = skip
        self.fail_on = fail_on
        self.timeout = timeout

    def execute(self, context: Context) -> dict[str, Any]:
        """Check, print the lines, and return them."""
        with fail_without_retry():
            check_fail_on(self.fail_on)
            self.take_up(context)
            found = self.hook.check(
                self.collections,
                include_restore=self.include_restore,
                include_rbac=self.include_rbac,
                skip=self.skip,
                timeout=seconds(self.timeout, "timeout"),
            )
            raise_for(found, self.fail_on)
        return found
