"""MilvusBackupFreshnessSensor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_milvus_backup.core.errors import Cancelled
from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry, hook_of
from airflow_provider_milvus_backup.triggers.freshness import MilvusBackupFreshnessTrigger

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context
    from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook


class MilvusBackupFreshnessSensor(BaseSensorOperator):
    """Wait until every collection in Milvus has a backup that is not older than ``max_age``; the error says who is late, and by how much.

    With ``fail_when_late`` it does not wait, which makes a watchdog of it. Returns fresh, message, counts, and in ``collections`` the
    first hundred, the oldest first. Works in modes ``poke`` and ``reschedule`` and deferred.

    A collection without a backup fails it as well, once the collection is older than ``max_age`` itself. When Milvus is away nobody knows
    which collections there are, so it fails, too, unless ``collections`` names each: then the backups alone are judged, with a warning.

    :param max_age: how old the newest backup of a collection may be: ``26h``, ``2d``, ``1w`` or a timedelta
    :param collections: ``coll``, ``db.coll``, ``db.*``; a list, or a string with commas; by default everything
    :param level: count only backups that were verified at this level or a deeper one, as a whole and without damage: ``objects``,
        ``checksums``, ``binlogs``; or that the last ``drill`` has restored. By default complete is enough
    :param name_pattern: the backups that count, by name, with ``*``, ``?`` and ``[…]``
    :param fail_when_late: do not wait: fail at once, without a retry, when something is late; skip with ``soft_fail``
    :param deferrable: wait in the triggerer; by default ``[operators] default_deferrable``

    The connection arguments are those of the operators.
    """

    template_fields: Sequence[str] = ("max_age", "collections", "level", "name_pattern", *MilvusBaseOperator.template_fields)
    template_fields_renderers = {"config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#dcfce7"

    def __init__(
        self,
        *,
        max_age: str | timedelta,
        collections: str | Sequence[str] | None = None,
        level: str | None = None,
        name_pattern: str = "*",
        fail_when_late: bool = False,
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
        self.max_age = max_age
        self.collections = collections
        self.level = level
        self.name_pattern = name_pattern
        self.fail_when_late = fail_when_late
        self.milvus_conn_id = milvus_conn_id
        self.aws_conn_id = aws_conn_id
        self.backup_aws_conn_id = backup_aws_conn_id
        self.backup_bucket = backup_bucket
        self.backup_root_path = backup_root_path
        self.config = config
        self.deferrable = deferrable
        #: What the last look has found.
        self._found: dict[str, Any] = {}

    @cached_property
    def hook(self) -> MilvusBackupHook:
        """Return the hook for the rendered arguments."""
        return hook_of(self)

    def on_kill(self) -> None:
        """Stop looking."""
        self.hook.cancel()

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002
        """Look once."""
        found = self._look()
        return PokeReturnValue(is_done=bool(found["fresh"]), xcom_value=found)

    def execute(self, context: Context) -> Any:
        """Wait as the mode says, or in the triggerer; or do not wait at all."""
        if self.fail_when_late:
            found = self._look()
            if found["fresh"]:
                return found
            raise AirflowSkipException(found["message"]) if self.soft_fail else AirflowFailException(found["message"])
        # A dictionary may hold secrets, which must not be persisted for the triggerer.
        if self.deferrable and not isinstance(self.config, Mapping):
            return self._done_or_deferred(time.time() + self.timeout)
        if self.deferrable:
            self.log.warning("config is a dictionary, which is not handed to the triggerer, for it may hold secrets: waiting on the worker")
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            raise AirflowSensorTimeout(self._said(error)) from error
        except AirflowSkipException as error:
            raise AirflowSkipException(self._said(error)) from error

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Go on after the trigger has fired."""
        found = self._look()
        if found["fresh"]:
            return found
        if not isinstance(event, dict) or event.get("status") == "error" or event.get("deadline") is None:
            # Not the sensor's timeout, which no retry follows.
            raise RuntimeError(f"backups are late, and the trigger no longer watches them; it sent {event!r}. {found['message']}")
        deadline = float(event["deadline"])
        if event.get("status") == "timeout" or time.time() >= deadline:
            raise AirflowSkipException(found["message"]) if self.soft_fail else AirflowSensorTimeout(found["message"])
        return self._done_or_deferred(deadline)

    def _look(self) -> dict[str, Any]:
        with fail_without_retry():
            if self.hook.cancelled:  # Airflow 3 calls on_kill() and lets execute() go on
                raise Cancelled("stopped while waiting for backups that are young enough")
            self._found = self.hook.check_freshness(self.max_age, self.collections, self.level, self.name_pattern)
        return self._found

    def _said(self, error: Exception) -> str:
        """Return what is late, where Airflow's own message only says for how long was waited."""
        return f"{self._found['message']}. {error}" if self._found else str(error)

    def _done_or_deferred(self, deadline: float) -> dict[str, Any] | None:
        found = self._look()
        if found["fresh"]:
            return found
        place = self.hook.settings.backup_storage
        self.defer(
            trigger=MilvusBackupFreshnessTrigger(
                milvus_conn_id=self.milvus_conn_id,
                max_age=self.max_age.total_seconds() if isinstance(self.max_age, timedelta) else self.max_age,
                collections=self.collections,
                level=self.level,
                name_pattern=self.name_pattern,
                poll_interval=self.poke_interval,
                deadline=deadline,
                aws_conn_id=self.aws_conn_id,
                backup_aws_conn_id=self.backup_aws_conn_id,
                backup_bucket=place.bucket,
                backup_root_path=place.root_path,
                config=self.config if isinstance(self.config, str) else None,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - time.time()) + 60),
        )
        return None
