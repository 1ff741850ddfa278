"""MilvusBackupFreshnessTrigger: waits in the triggerer until the backups are young enough."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import BaseTrigger, TriggerEvent
from airflow_provider_milvus_backup.triggers import imports

if TYPE_CHECKING:
    from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook

#: What is persisted: a contract with every later release.
_ARGUMENTS = (
    "milvus_conn_id",
    "max_age",
    "collections",
    "level",
    "name_pattern",
    "poll_interval",
    "deadline",
    "aws_conn_id",
    "backup_aws_conn_id",
    "backup_bucket",
    "backup_root_path",
    "config",
)


class MilvusBackupFreshnessTrigger(BaseTrigger):
    """Fires once, when every collection has a backup that is young enough, or the deadline is over. It only looks.

    The event is ``{"status": "success" | "timeout" | "error", "message", "deadline"}``.

    :param milvus_conn_id: the ``milvus`` connection
    :param max_age: how old the newest backup of a collection may be: a text as in the hook, or seconds
    :param collections, level, name_pattern: as in the hook
    :param poll_interval: longest pause between two looks, in seconds
    :param deadline: when to give up, in seconds since the epoch
    :param aws_conn_id, backup_aws_conn_id, backup_bucket, backup_root_path: as in the hook
    :param config: path of a backup.yaml, readable in the triggerer
    """

    def __init__(
        self,
        milvus_conn_id: str,
        max_age: str | float,
        collections: str | Sequence[str] | None = None,
        level: str | None = None,
        name_pattern: str = "*",
        poll_interval: float = 60.0,
        deadline: float | None = None,
        aws_conn_id: str | None = None,
        backup_aws_conn_id: str | None = None,
        backup_bucket: str | None = None,
        backup_root_path: str | None = None,
        config: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.milvus_conn_id = milvus_conn_id
        self.max_age = max_age
        self.collections = collections if collections is None or isinstance(collections, str) else list(collections)
        self.level = level
        self.name_pattern = name_pattern
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.aws_conn_id = aws_conn_id
        self.backup_aws_conn_id = backup_aws_conn_id
        self.backup_bucket = backup_bucket
        self.backup_root_path = backup_root_path
        self.config = config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments; connections go by id, so no secret is among them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in _ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the backups until there is something to say."""
        started = time.monotonic()
        event = await self._outcome()
        await asyncio.sleep(max(0.0, imports.EARLIEST - (time.monotonic() - started)))
        yield event

    async def _outcome(self) -> TriggerEvent:
        from asgiref.sync import sync_to_async

        hook: MilvusBackupHook | None = None
        try:
            # In threads of asgiref's, which can look connections up: it opens the clients of Milvus and of the storage.
            hook = await sync_to_async(self._hook, thread_sensitive=False)()
            return await self._watch(hook)
        except Exception as error:  # noqa: BLE001 (a missing connection, say; the event reaches the task's log, a traceback would not)
            return self._event("error", f"{type(error).__name__}: {error}")
        finally:
            if hook:
                hook.cancel()  # a look that is under way in its thread when the trigger is cancelled

    def _hook(self) -> MilvusBackupHook:
        from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook

        return MilvusBackupHook(
            self.milvus_conn_id, self.aws_conn_id, self.backup_aws_conn_id, self.backup_bucket, self.backup_root_path, self.config
        )

    async def _watch(self, hook: MilvusBackupHook) -> TriggerEvent:
        from asgiref.sync import sync_to_async

        from airflow_provider_milvus_backup.core.errors import MilvusBackupError

        max_age = self.max_age if isinstance(self.max_age, str) else timedelta(seconds=self.max_age)
        look = sync_to_async(hook.check_freshness, thread_sensitive=False)
        answered = time.monotonic()
        while True:
            try:
                found = await look(max_age, self.collections, self.level, self.name_pattern)
                answered, message = time.monotonic(), str(found["message"])
                if found["fresh"]:
                    return self._event("success", message)
            except MilvusBackupError as error:
                silent, message = time.monotonic() - answered, str(error)
                if not error.retryable or silent >= imports.BUDGET:
                    raise
                self.log.warning("could not look at the backups for %.0f s, giving up after %.0f s: %s", silent, imports.BUDGET, error)
            if self.deadline is not None and time.time() >= self.deadline:
                return self._event("timeout", message)
            pause = self.poll_interval if self.deadline is None else min(self.poll_interval, max(0.0, self.deadline - time.time()))
            await asyncio.sleep(pause * random.uniform(0.8, 1))  # noqa: S311 (jitter)

    def _event(self, status: str, message: str) -> TriggerEvent:
        return TriggerEvent({"status": status, "message": message, "deadline": self.deadline})  # type: ignore[no-untyped-call]
