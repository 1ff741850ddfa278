"""MilvusRestoreOperator."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import conf
from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry, seconds, task_identity
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context
    from airflow_provider_milvus_backup.core.restore_state import RestoreState


#: Seconds that checking, loading and naming may take at least, however late the imports were done.
LAST_STEPS = 60.0


class MilvusRestoreOperator(MilvusBaseOperator):
    """Restore Milvus collections from a backup, ours or one of ``milvus-backup``.

    Returns the summary: rows, jobs, bytes, seconds, and the same per collection. With ``wait_for_completion=False`` it returns
    ``restore_id``, ``backup_name`` and the job ids as soon as the import jobs are submitted;
    :class:`~airflow_provider_milvus_backup.sensors.imports.MilvusImportSensor` then waits for them and finishes the restore.

    :param backup_name: which backup
    :param collections: which collections of it, by their name in the backup; nothing means all
    :param suffix: follows every collection's name (``coll`` → ``coll_bak``)
    :param rename: ``{"a": "b", "db1.a": "db2.b", "db1.*": "db2.*"}``; excludes ``suffix``
    :param if_exists: what to do with a target collection that exists: ``fail``, ``replace`` (it is dropped when the new one is complete,
        not before) or ``append``
    :param restore_indexes: create the indexes of the backup
    :param load: load the collections ``as_backed_up``, ``always`` or ``never``
    :param restore_aliases: point the aliases of the backup at the restored collections
    :param meta_only: create collections and indexes without data
    :param max_shards: shards of a restored collection at most
    :param cut_at_flush: leave out rows that were written after the backup's flush
    :param restore_rbac: create users, roles, grants and privilege groups of the backup that are missing (Milvus 2.4.9 and later)
    :param allow_downgrade: restore into an older line of Milvus than the backup was taken from
    :param wait_for_completion: wait until Milvus has imported everything; False wins over ``deferrable``
    :param deferrable: wait in the triggerer, without a worker slot; by default ``[operators] default_deferrable``
    :param poll_interval: longest pause between two looks at the import jobs, in seconds
    :param timeout: seconds (or a timedelta) that one try may take, waiting in the triggerer included; a retry goes on with what was done.
        By default as long as it needs
    :param cancel_on_kill: undo the restore when the task is killed, or is marked or cleared while it waits in the triggerer (Airflow 3.3
        and later); otherwise Milvus goes on importing, and a retry or a MilvusImportSensor goes on with it
    """

    template_fields: Sequence[str] = (
        "backup_name",
        "collections",
        "suffix",
        "rename",
        "if_exists",
        "load",
        *MilvusBaseOperator.template_fields,
    )
    template_fields_renderers = {"collections": "json", "rename": "json", "config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#dcfce7"

    def __init__(
        self,
        *,
        backup_name: str,
        collections: str | Sequence[str] | None = None,
        suffix: str | None = None,
        rename: Mapping[str, str] | None = None,
        if_exists: str = "fail",
        restore_indexes: bool = True,
        load: str = "as_backed_up",
        restore_aliases: bool = False,
        meta_only: bool = False,
        max_shards: int | None = None,
        cut_at_flush: bool = False,
        restore_rbac: bool = False,
        allow_downgrade: bool = False,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval: float = 5.0,
        timeout: float | timedelta | None = None,
        cancel_on_kill: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_name = backup_name
        self.collections = collections
        self.suffix = suffix
        self.rename = rename
        self.if_exists = if_exists
        self.restore_indexes = restore_indexes
        self.load = load
        self.restore_aliases = restore_aliases
        self.meta_only = meta_only
        self.max_shards = max_shards
        self.cut_at_flush = cut_at_flush
        self.restore_rbac = restore_rbac
        self.allow_downgrade = allow_downgrade
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill

    def execute(self, context: Context) -> dict[str, Any]:
        """Create, submit and, unless told otherwise, wait and finish; a retry goes on where the try before it stopped."""
        from airflow_provider_milvus_backup.core.imports import check_poll_interval
        from airflow_provider_milvus_backup.core.names import restore_id

        dag_id, run_id, task_id, map_index = task_identity(context)
        with fail_without_retry():
            check_poll_interval(self.poll_interval)
            self.take_up(context)
            state = self.hook.start_restore(
                self.backup_name,
                restore_id((dag_id, task_id, str(map_index)), run_id),
                timeout=seconds(self.timeout, "timeout"),
                collections=self.collections,
                suffix=self.suffix,
                rename=self.rename,
                if_exists=self.if_exists,
                restore_indexes=self.restore_indexes,
                load=self.load,
                restore_aliases=self.restore_aliases,
                meta_only=self.meta_only,
                max_shards=self.max_shards,
                cut_at_flush=self.cut_at_flush,
                restore_rbac=self.restore_rbac,
                allow_downgrade=self.allow_downgrade,
            )
            if not self.wait_for_completion:
                return {"restore_id": state.restore_id, "backup_name": state.backup_name, "jobs": state.pending()}
            if self.deferrable and not state.imported:
                self._defer(state)
            self.hook.wait_restore(state, _left(state), self.poll_interval)
            return self._finish(state)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the trigger has fired: believe Milvus, not the event, about what became of the jobs."""
        if not (isinstance(event, dict) and event.get("backup_name") and event.get("restore_id")):
            raise RuntimeError(f"the trigger sent {event!r} instead of what became of the import jobs; clear the task to restore again")
        if event.get("status") == "error":
            self.log.warning("the trigger could not look at the import jobs: %s", event.get("message"))
        with fail_without_retry():
            self.take_up(context)
            state = self.hook.load_restore(event["backup_name"], event["restore_id"])
            if not self.hook.poll_restore(state):
                if event.get("status") != "timeout":
                    self._defer(state)
                self.hook.wait_restore(state, 0, self.poll_interval)  # says what is still running
            return self._finish(state)

    def take_up(self, context: Context) -> None:
        """Tell the hook also what a kill means."""
        super().take_up(context)
        self.hook.cancel_on_kill = self.cancel_on_kill

    def _finish(self, state: RestoreState) -> dict[str, Any]:
        left = _left(state)
        # All rows are there: what is left takes seconds, and a retry would only do the same.
        return self.hook.finish_restore(state, None if left is None else max(left, LAST_STEPS))

    def _defer(self, state: RestoreState) -> None:
        from airflow_provider_milvus_backup.core.report import counted

        if self.hook.cancelled:  # Airflow 3 calls on_kill() and lets execute() go on: either of these raises Cancelled
            self.hook.wait_restore(state, None, self.poll_interval)
            self._finish(state)
        left = _left(state)
        self.log.info("waiting in the triggerer for %s", counted(len(state.pending()), "import job"))
        self.defer(
            trigger=MilvusImportTrigger(
                milvus_conn_id=self.milvus_conn_id,
                job_ids=state.pending(),
                backup_name=state.backup_name,
                restore_id=state.restore_id,
                poll_interval=self.poll_interval,
                deadline=state.deadline,
                config=self.config if isinstance(self.config, str) else None,
                token=state.token,
                # A backup.yaml that is no file does not travel: it may hold secrets. Without it the other end is unknown.
                cancel_on_kill=self.cancel_on_kill and (self.config is None or isinstance(self.config, str)),
                aws_conn_id=self.aws_conn_id,
                backup_aws_conn_id=self.backup_aws_conn_id,
                backup_bucket=self.backup_bucket,
                backup_root_path=self.backup_root_path,
                rest=state.rest,
                databases=state.pending_databases(),
            ),
            method_name="execute_complete",
            # The trigger reports a timeout by itself; this is for a trigger that cannot.
            timeout=None if left is None else timedelta(seconds=left + 60),
        )


def _left(state: RestoreState) -> float | None:
    """Return the seconds until the try gives up, None when it never does."""
    return None if state.deadline is None else max(0.0, state.deadline - time.time())
