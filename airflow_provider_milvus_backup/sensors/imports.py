"""MilvusImportSensor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_milvus_backup.core.errors import Cancelled, ConfigError
from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry, hook_of
from airflow_provider_milvus_backup.triggers.imports import MilvusImportTrigger

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context
    from airflow_provider_milvus_backup.core.restore_state import RestoreState
    from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook


class MilvusImportSensor(BaseSensorOperator):
    """Wait for the import jobs of a restore and finish it: check rows, load, remove staged objects.

    It takes over from a ``MilvusRestoreOperator(wait_for_completion=False)``, or from a restore whose wait timed out, and returns
    the summary that the operator would have returned. Works in modes ``poke`` and ``reschedule`` and deferred.

    :param restore: what the restore operator returned (``restore.output``)
    :param backup_name: instead of ``restore``: the backup
    :param restore_id: instead of ``restore``: the id that the restore's log and error messages name
    :param deferrable: wait in the triggerer; by default ``[operators] default_deferrable``

    The connection arguments are those of the operators and must name the same places.
    """

    template_fields: Sequence[str] = ("restore", "backup_name", "restore_id", *MilvusBaseOperator.template_fields)
    template_fields_renderers = {"restore": "json", "config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#fef9c3"

    def __init__(
        self,
        *,
        restore: Mapping[str, Any] | None = None,
        backup_name: str | None = None,
        restore_id: str | None = None,
        milvus_conn_id: str = "milvus_default",
        aws_conn_id: str | None = None,
        backup_aws_conn_id: str | None = None,
        backup_bucket: str | None = None,
        backup_root_path: str | None = None,
        config: str | Mapping[str, Any] | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.restore = restore
        self.backup_name = backup_name
        self.restore_id = restore_id
        self.milvus_conn_id = milvus_conn_id
        self.aws_conn_id = aws_conn_id
        self.backup_aws_conn_id = backup_aws_conn_id
        self.backup_bucket = backup_bucket
        self.backup_root_path = backup_root_path
        self.config = config
        self.deferrable = deferrable

    @cached_property
    def hook(self) -> MilvusBackupHook:
        """Return the hook for the rendered arguments."""
        hook = hook_of(self)
        hook.cancel_on_kill = False  # the restore is another task's
        return hook

    def on_kill(self) -> None:
        """Ask the engine to stop looking; the restore goes on."""
        self.hook.cancel()

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        """Look once; when all jobs have ended, finish the restore."""
        with fail_without_retry():
            state = self._state()
            if self.hook.cancelled:  # Airflow 3 calls on_kill() and lets execute() go on
                raise Cancelled(f"stopped while waiting for restore {state.restore_id} of backup {state.backup_name!r}, which goes on")
            if not self.hook.poll_restore(state):
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=self.hook.finish_restore(state))

    def execute(self, context: Context) -> Any:
        """Wait as the mode says, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        looked = self.poke(context)
        if looked.is_done:
            return looked.xcom_value
        self._defer(time.time() + self.timeout)
        return None

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on after the trigger has fired."""
        looked = self.poke(context)
        if looked.is_done:
            return looked.xcom_value
        if not isinstance(event, dict) or event.get("status") == "error" or event.get("deadline") is None:
            # Not the sensor's timeout, which no retry follows: the jobs are still running, and the next try can wait for them.
            raise RuntimeError(f"import jobs are still running, but the trigger no longer watches them; it sent {event!r}")
        if event.get("status") != "timeout":  # failed jobs were submitted again
            self._defer(float(event["deadline"]))
        message = event.get("message") or "the trigger sent no message"
        if self.soft_fail:
            raise AirflowSkipException(message)
        raise AirflowSensorTimeout(message)

    def _defer(self, deadline: float) -> None:
        state = self._state()
        self.defer(
            trigger=MilvusImportTrigger(
                milvus_conn_id=self.milvus_conn_id,
                job_ids=state.pending(),
                backup_name=state.backup_name,
                restore_id=state.restore_id,
                poll_interval=self.poke_interval,
                deadline=deadline,
                config=self.config if isinstance(self.config, str) else None,
                rest=state.rest,
                databases=state.pending_databases(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - time.time()) + 60),
        )

    def _state(self) -> RestoreState:
        named: Mapping[str, Any] = self.restore or {"backup_name": self.backup_name, "restore_id": self.restore_id}
        backup_name, restore_id = named.get("backup_name"), named.get("restore_id")
        if not (backup_name and restore_id):
            raise ConfigError(
                f"nothing to wait for: restore is {self.restore!r}, backup_name {self.backup_name!r}, restore_id {self.restore_id!r}; "
                "give restore=<restore task>.output of a MilvusRestoreOperator with wait_for_completion=False"
            )
        return self.hook.load_restore(backup_name, restore_id)
