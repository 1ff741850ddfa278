"""MilvusImportTrigger: waits for import jobs in the triggerer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import BaseTrigger, TriggerEvent, get_connection_async, get_extra_async

if TYPE_CHECKING:
    from airflow_provider_milvus_backup.core.imports import JobStatus
    from airflow_provider_milvus_backup.core.polling import Ask, Close

#: Seconds for which looks may fail before the trigger gives up: Milvus may be restarting.
BUDGET = 300.0
#: Seconds that undoing a restore may take when its task is marked or cleared; Airflow waits for thirty.
ON_KILL_SECONDS = 28.0
#: Seconds a trigger runs at least. Airflow 3 may notice five seconds late that a task has deferred; when the trigger has fired by
#: then, the scheduler takes the resumed task for one that ended without a word and fails it (apache/airflow issues 71580, 72716).
EARLIEST = 8.0
#: Jobs asked for at the same time by one trigger.
_CONCURRENT = 32


#: What is persisted: a contract with every later release.
_ARGUMENTS = (
    "milvus_conn_id",
    "job_ids",
    "backup_name",
    "restore_id",
    "poll_interval",
    "deadline",
    "config",
    "token",
    "cancel_on_kill",
    "aws_conn_id",
    "backup_aws_conn_id",
    "backup_bucket",
    "backup_root_path",
    "rest",
    "databases",
)


class MilvusImportTrigger(BaseTrigger):
    """Fires once, when all import jobs have ended, one has failed, or the deadline is over.

    It only looks, but for one case: when a user marks or clears the waiting task (Airflow 3.3 and later), it undoes the restore, unless a
    new try has gone on with it by then.

    The event is ``{"status": "success" | "failed" | "timeout" | "error", "message", "backup_name", "restore_id", "deadline"}``.

    :param milvus_conn_id: the ``milvus`` connection
    :param job_ids: the import jobs to wait for
    :param backup_name: handed on with the event
    :param restore_id: handed on with the event
    :param poll_interval: longest pause between two looks, in seconds
    :param deadline: when to give up, in seconds since the epoch
    :param config: path of a backup.yaml, readable in the triggerer
    :param token: the process that submitted the jobs; a restore that another one has gone on with is not undone
    :param cancel_on_kill: undo the restore when a user marks or clears the task
    :param rest: ask over REST, as whoever submitted the jobs did
    :param databases: the database of each job, for Milvus checks privileges there; by default that of the connection
    :param aws_conn_id, backup_aws_conn_id, backup_bucket, backup_root_path: as in the hook; needed to undo
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
        token: str = "",
        cancel_on_kill: bool = False,
        aws_conn_id: str | None = None,
        backup_aws_conn_id: str | None = None,
        backup_bucket: str | None = None,
        backup_root_path: str | None = None,
        rest: bool = False,
        databases: Sequence[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.milvus_conn_id = milvus_conn_id
        self.job_ids = list(job_ids)
        self.backup_name = backup_name
        self.restore_id = restore_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.config = config
        self.token = token
        self.cancel_on_kill = cancel_on_kill
        self.aws_conn_id = aws_conn_id
        self.backup_aws_conn_id = backup_aws_conn_id
        self.backup_bucket = backup_bucket
        self.backup_root_path = backup_root_path
        self.rest = rest
        self.databases = list(databases)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments; connections go by id, so no secret is among them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in _ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the jobs until there is something to say."""
        started = time.monotonic()
        event = await self._outcome()
        await asyncio.sleep(max(0.0, EARLIEST - (time.monotonic() - started)))
        yield event

    async def _outcome(self) -> TriggerEvent:
        from airflow_provider_milvus_backup.core.errors import AuthError, ConfigError, MilvusBackupError

        close: Close | None = None
        try:
            ask, close, database = await self._connect()
            return await self._watch(ask, database)
        except (AuthError, ConfigError) as error:
            return self._event("error", str(error))
        except MilvusBackupError as error:
            return self._event("error", f"gave up looking at the import jobs, which may still be running: {error}")
        except Exception as error:  # noqa: BLE001 (a missing connection, say; the event reaches the task's log, a traceback would not)
            return self._event("error", f"{type(error).__name__}: {error}")
        finally:
            if close:
                await close()

    async def _connect(self) -> tuple[Ask, Close, str]:
        from airflow_provider_milvus_backup import resolve
        from airflow_provider_milvus_backup._compat import AirflowNotFoundException
        from airflow_provider_milvus_backup.core import backup_yaml, polling

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
        return *await polling.open_async(address, rest=self.rest), address.database

    async def _watch(self, ask: Ask, database: str) -> TriggerEvent:
        from airflow_provider_milvus_backup.core import imports
        from airflow_provider_milvus_backup.core.errors import ServerError

        pending, pause, answered = list(self.job_ids), imports.FIRST_POLL, time.monotonic()
        gate = asyncio.Semaphore(_CONCURRENT)
        databases = dict(zip(self.job_ids, self.databases, strict=False))

        async def look(job_id: int) -> JobStatus:
            async with gate:
                return await ask(job_id, databases.get(job_id, database))

        while True:
            try:
                statuses = await asyncio.gather(*(look(job_id) for job_id in pending))
                answered = time.monotonic()
            except ServerError as error:
                silent = time.monotonic() - answered
                if not error.retryable or silent >= BUDGET:
                    raise
                self.log.warning("could not look at the import jobs for %.0f s, giving up after %.0f s: %s", silent, BUDGET, error)
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
            {
                "status": status,
                "message": message,
                "backup_name": self.backup_name,
                "restore_id": self.restore_id,
                "deadline": self.deadline,
            }
        )

    async def on_kill(self) -> None:
        """Undo the restore, for a user has marked or cleared the task (Airflow 3.3 and later).

        After a clear this may come when the new try is at work; that one has put a token of its own into the restore's state by then.
        """
        if not (self.cancel_on_kill and self.token):
            return
        from asgiref.sync import sync_to_async

        undoing = asyncio.ensure_future(sync_to_async(self._undo, thread_sensitive=False)())
        until = time.monotonic() + ON_KILL_SECONDS
        while not undoing.done() and (left := until - time.monotonic()) > 0:
            # Airflow cancels this coroutine again in every one of its loops.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([undoing], timeout=left)
        if not undoing.done():
            self.log.warning("restore %s is not undone after %.0f s; the next restore drops what is left", self.restore_id, ON_KILL_SECONDS)
        elif (error := undoing.exception()) is not None:
            self.log.warning("restore %s could not be undone: %s", self.restore_id, error)
        elif undoing.result():
            self.log.info("restore %s was undone, for its task was marked or cleared", self.restore_id)
        else:
            self.log.info("restore %s is finished, or a new try has gone on with it; nothing is undone", self.restore_id)

    def _undo(self) -> bool:
        from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook

        hook = MilvusBackupHook(
            self.milvus_conn_id, self.aws_conn_id, self.backup_aws_conn_id, self.backup_bucket, self.backup_root_path, self.config
        )
        grace = ON_KILL_SECONDS - 8
        return hook.cancel_restore(self.backup_name, self.restore_id, self.token, "its task was marked or cleared", grace)
