"""MilvusImportTrigger: waits for import jobs in the triggerer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import BaseTrigger, TriggerEvent, get_connection_async, get_extra_async

if TYPE_CHECKING:
    from airflow_provider_milvus_backup.core.imports import JobStatus

#: Looks that may fail one after the other before the trigger gives up; with the pauses between them a good five minutes.
MAX_FAILURES = 20
#: Seconds a trigger runs at least. Airflow 3 may notice five seconds late that a task has deferred; when the trigger has fired by
#: then, the scheduler takes the resumed task for one that ended without a word and fails it (apache/airflow issues 71580, 72716).
EARLIEST = 8.0
#: Jobs asked for at the same time by one trigger.
_CONCURRENT = 32


class MilvusImportTrigger(BaseTrigger):
    """Fires once, when all import jobs have ended, one has failed, or the deadline is over. It only looks and never changes anything.

    The event is ``{"status": "success" | "failed" | "timeout" | "error", "message", "backup_name", "restore_id"}``.

    :param milvus_conn_id: the ``milvus`` connection
    :param job_ids: the import jobs to wait for
    :param backup_name: handed on with the event
    :param restore_id: handed on with the event
    :param poll_interval: longest pause between two looks, in seconds
    :param deadline: when to give up, in seconds since the epoch
    :param config: path of a backup.yaml, readable in the triggerer
    """

    def __init__(
        self,
        milvus_conn_id: str,
        job_ids: Sequence[int],
        backup_name: str = "",
        restore_id: str = "",
        poll_interval: float = 5.0,
        deadline: float | None = None,
        config: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.milvus_conn_id = milvus_conn_id
        self.job_ids = list(job_ids)
        self.backup_name = backup_name
        self.restore_id = restore_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.config = config

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments; connections go by id, so no secret is among them."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "milvus_conn_id": self.milvus_conn_id,
                "job_ids": self.job_ids,
                "backup_name": self.backup_name,
                "restore_id": self.restore_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "config": self.config,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the jobs until there is something to say."""
        started = time.monotonic()
        event = await self._outcome()
        await asyncio.sleep(max(0.0, EARLIEST - (time.monotonic() - started)))
        yield event

    async def _outcome(self) -> TriggerEvent:
        from airflow_provider_milvus_backup.core.errors import AuthError, ConfigError, MilvusBackupError

        close: Callable[[], Awaitable[None]] | None = None
        try:
            ask, close = await self._connect()
            return await self._watch(ask)
        except (AuthError, ConfigError) as error:
            return self._event("error", str(error))
        except MilvusBackupError as error:
            return self._event("error", f"gave up looking at the import jobs, which may still be running: {error}")
        except Exception as error:  # noqa: BLE001 (a missing connection, say; the event reaches the task's log, a traceback would not)
            return self._event("error", f"{type(error).__name__}: {error}")
        finally:
            if close:
                await close()

    async def _connect(self) -> tuple[Callable[[int], Awaitable[JobStatus]], Callable[[], Awaitable[None]]]:
        from airflow_provider_milvus_backup import resolve
        from airflow_provider_milvus_backup._compat import AirflowNotFoundException
        from airflow_provider_milvus_backup.core import backup_yaml, imports

        config = await asyncio.to_thread(backup_yaml.read, self.config) if self.config else backup_yaml.BackupYaml()
        connection: Any = None
        extra: dict[str, Any] = {}
        try:
            connection = await get_connection_async(self.milvus_conn_id)
            extra = await get_extra_async(connection)
        except AirflowNotFoundException:
            if not config.milvus_host:
                raise
        address = await asyncio.to_thread(resolve.milvus_address, self.milvus_conn_id, connection, extra, config)
        return await imports.open_async(address)

    async def _watch(self, ask: Callable[[int], Awaitable[JobStatus]]) -> TriggerEvent:
        from airflow_provider_milvus_backup.core import imports
        from airflow_provider_milvus_backup.core.errors import ServerError

        pending, pause, failures = list(self.job_ids), imports.FIRST_POLL, 0
        gate = asyncio.Semaphore(_CONCURRENT)

        async def look(job_id: int) -> JobStatus:
            async with gate:
                return await ask(job_id)

        while True:
            try:
                statuses = await asyncio.gather(*(look(job_id) for job_id in pending))
                failures = 0
            except ServerError as error:
                failures += 1
                if not error.retryable or failures >= MAX_FAILURES:
                    raise
                self.log.warning("could not look at the import jobs (%s of %s): %s", failures, MAX_FAILURES, error)
                statuses = []
            for status in statuses:
                if status.state in (imports.JobState.FAILED, imports.JobState.UNKNOWN):
                    return self._event("failed", f"import job {status.job_id}: {status.reason or status.state.value}")
                if status.state is imports.JobState.COMPLETED:
                    pending.remove(status.job_id)
                    self.log.info(
                        "import job %s: %s rows, %s of %s jobs to go", status.job_id, f"{status.rows:,}", len(pending), len(self.job_ids)
                    )
            if not pending:
                return self._event("success", f"{len(self.job_ids)} import jobs completed")
            if self.deadline is not None and time.time() >= self.deadline:
                return self._event("timeout", f"{len(pending)} import jobs are still running: {pending[:10]}")
            await asyncio.sleep(pause * random.uniform(0.8, 1))  # noqa: S311 (jitter)
            pause = imports.next_poll(pause, self.poll_interval)

    def _event(self, status: str, message: str) -> TriggerEvent:
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {"status": status, "message": message, "backup_name": self.backup_name, "restore_id": self.restore_id}
        )
