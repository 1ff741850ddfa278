"""What the operators share: connections, templates, names per task instance, and errors that a retry cannot help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup._compat import AirflowFailException, BaseOperator
from airflow_provider_milvus_backup.core.errors import Cancelled, ConfigError, MilvusBackupError
from airflow_provider_milvus_backup.hooks.milvus_backup import MilvusBackupHook

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context
    from airflow_provider_milvus_backup.core.lease import Owner


class MilvusBaseOperator(BaseOperator):
    """An operator that works on one Milvus and one backup storage.

    :param milvus_conn_id: the ``milvus`` connection
    :param aws_conn_id: the ``aws`` connection of Milvus's own storage; by default the one that the ``milvus`` connection names,
        else ``aws_default``
    :param backup_aws_conn_id: the ``aws`` connection of the backup storage; by default the same
    :param backup_bucket: where backups are kept; by default Milvus's own bucket
    :param backup_root_path: the path below which backups are kept; by default ``backup``
    :param config: a backup.yaml of ``milvus-backup`` (path, or content as a dictionary) for what is left open
    """

    template_fields: Sequence[str] = (
        "milvus_conn_id",
        "aws_conn_id",
        "backup_aws_conn_id",
        "backup_bucket",
        "backup_root_path",
        "config",
    )

    def __init__(
        self,
        *,
        milvus_conn_id: str = "milvus_default",
        aws_conn_id: str | None = None,
        backup_aws_conn_id: str | None = None,
        backup_bucket: str | None = None,
        backup_root_path: str | None = None,
        config: str | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.milvus_conn_id = milvus_conn_id
        self.aws_conn_id = aws_conn_id
        self.backup_aws_conn_id = backup_aws_conn_id
        self.backup_bucket = backup_bucket
        self.backup_root_path = backup_root_path
        self.config = config

    @cached_property
    def hook(self) -> MilvusBackupHook:
        """Return the hook for the rendered arguments."""
        return hook_of(self)

    def take_up(self, context: Context) -> None:
        """Tell the hook for which try of which task instance it works."""
        self.hook.owner = owner_of(context)
        self.hook.mirror = mirror_of(context)

    def on_kill(self) -> None:
        """Ask the engine to stop; ``execute`` then raises, so that a killed task never ends as a success."""
        self.hook.cancel()


def hook_of(task: Any) -> MilvusBackupHook:
    """Return the hook for a task that has the arguments of :class:`MilvusBaseOperator`."""
    return MilvusBackupHook(
        milvus_conn_id=task.milvus_conn_id,
        aws_conn_id=task.aws_conn_id,
        backup_aws_conn_id=task.backup_aws_conn_id,
        backup_bucket=task.backup_bucket,
        backup_root_path=task.backup_root_path,
        config=task.config,
    )


@contextlib.contextmanager
def fail_without_retry() -> Iterator[None]:
    """Turn errors that the same call would meet again into AirflowFailException, so that no retry is wasted on them."""
    try:
        yield
    except MilvusBackupError as error:
        if error.retryable or isinstance(error, Cancelled):
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def task_identity(context: Context) -> tuple[str, str, str, int]:
    """Return (dag id, run id, task id, map index) of the task instance."""
    ti: Any = context["ti"]
    return ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index


def owner_of(context: Context) -> Owner:
    """Return who works: the same identity in every try of a task instance, another round after it was cleared.

    Airflow counts the tries of a cleared task on and raises ``max_tries`` to leave room for the task's own retries again.
    """
    from airflow_provider_milvus_backup.core.lease import Owner

    ti: Any = context["ti"]
    allowed, retries = getattr(ti, "max_tries", None), getattr(context.get("task"), "retries", None)
    cleared = max(0, allowed - retries) if isinstance(allowed, int) and isinstance(retries, int) else 0
    identity = "/".join(map(str, task_identity(context)))
    return Owner(identity, cleared, ti.try_number)


class TaskStateStore:
    """Airflow's store for what a task instance keeps from try to try (Airflow 3.3 and later)."""

    KEY = "milvus_restore"

    def __init__(self, store: Any) -> None:
        self.store = store

    def get(self) -> str | None:
        """Return what was set last."""
        kept = self.store.get(self.KEY, default=None)
        return kept if isinstance(kept, str) else None

    def set(self, content: str) -> None:
        """Keep the content."""
        self.store.set(self.KEY, content)


def mirror_of(context: Context) -> TaskStateStore | None:
    """Return Airflow's state store, None where there is none."""
    store = context.get("task_state_store")
    return None if store is None else TaskStateStore(store)


def seconds(timeout: float | timedelta | None, what: str) -> float | None:
    """Return a timeout in seconds; raises ConfigError unless it is more than none."""
    if timeout is None:
        return None
    try:
        value = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    except (TypeError, ValueError):
        value = 0.0
    if not 0 < value < float("inf"):
        raise ConfigError(f"{what} {timeout!r} is not a number of seconds above 0, nor a timedelta")
    return value


def default_backup_name(context: Context) -> str:
    """Return the backup name of the task instance: readable, and the same in every try."""
    from airflow_provider_milvus_backup.core.names import task_name

    dag_id, run_id, task_id, map_index = task_identity(context)
    run: Any = context.get("dag_run")
    date = context.get("logical_date") or getattr(run, "run_after", None)
    if date is None:
        return task_name(dag_id, run_id, task_id, map_index, None, whole_second=False)
    text = date.astimezone(timezone.utc).strftime("%Y%m%dT%H%M%S")
    return task_name(dag_id, run_id, task_id, map_index, text, whole_second=date.microsecond == 0)
