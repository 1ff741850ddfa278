"""MilvusBackupHook: connections in, backups and restores out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup import connection_form, resolve
from airflow_provider_milvus_backup._compat import BaseHook, mask_secret
from airflow_provider_milvus_backup.get_provider_info import CONNECTION_TYPE, HOOK_NAME
from airflow_provider_milvus_backup.hooks.catalog import BackupCatalog
from airflow_provider_milvus_backup.hooks.check import BackupCheck
from airflow_provider_milvus_backup.hooks.drilling import RestoreDrill
from airflow_provider_milvus_backup.hooks.freshness import BackupFreshness
from airflow_provider_milvus_backup.hooks.proving import BackupProving

if TYPE_CHECKING:
    import os

    from airflow_provider_milvus_backup.core.backup import BackupRun
    from airflow_provider_milvus_backup.core.backup_yaml import BackupYaml
    from airflow_provider_milvus_backup.core.lease import Owner
    from airflow_provider_milvus_backup.core.plan import BackupPlan
    from airflow_provider_milvus_backup.core.report import Reporter
    from airflow_provider_milvus_backup.core.restore import RestoreRun
    from airflow_provider_milvus_backup.core.restore_state import RestoreState
    from airflow_provider_milvus_backup.core.server import MilvusServer
    from airflow_provider_milvus_backup.core.settings import Settings
    from airflow_provider_milvus_backup.core.state_store import Mirror

    Config = str | os.PathLike[str] | Mapping[str, Any]


class MilvusBackupHook(BackupCatalog, BackupCheck, BackupFreshness, BackupProving, RestoreDrill, BaseHook):
    """Backs up and restores Milvus collections, in the format of ``milvus-backup``.

    Nothing is connected before the first method is called. Every method raises an error of
    :mod:`airflow_provider_milvus_backup.core.errors`.

    :param milvus_conn_id: the ``milvus`` connection
    :param aws_conn_id: the ``aws`` connection of the storage that Milvus itself uses; by default the one that the ``milvus``
        connection names, else ``aws_default``
    :param backup_aws_conn_id: the ``aws`` connection of the backup storage; by default the same
    :param backup_bucket: where backups are kept; by default Milvus's own bucket
    :param backup_root_path: the path below which backups are kept; by default ``backup``
    :param config: a backup.yaml of ``milvus-backup``, as a path or as its content; it fills in what connections and arguments leave open
    """

    conn_name_attr = "milvus_conn_id"
    default_conn_name = "milvus_default"
    conn_type = CONNECTION_TYPE
    hook_name = HOOK_NAME

    def __init__(
        self,
        milvus_conn_id: str = default_conn_name,
        aws_conn_id: str | None = None,
        backup_aws_conn_id: str | None = None,
        backup_bucket: str | None = None,
        backup_root_path: str | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__()
        self.milvus_conn_id = milvus_conn_id
        self.aws_conn_id = aws_conn_id
        self.backup_aws_conn_id = backup_aws_conn_id
        self.backup_bucket = backup_bucket
        self.backup_root_path = backup_root_path
        self.config = config
        #: For whom the hook works; operators set it, so that a further try of the same task instance is known as such.
        self.owner: Owner | None = None
        #: A further place for the state of restores; operators set Airflow's state store where there is one.
        self.mirror: Mirror | None = None
        #: Whether a restore that is killed is undone.
        self.cancel_on_kill = True
        self._stop = threading.Event()
        #: Milvus has answered this hook, so it is worth waiting for when it is away.
        self._answered = False

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the connection form shows the standard fields, for Airflow before 3.2."""
        return connection_form.get_ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's own fields, for Airflow before 3.2."""
        return connection_form.get_connection_form_widgets()

    # ---- both ends ---------------------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Settings:
        """Return both ends, resolved from arguments, connections and backup.yaml, in this order of precedence."""
        from airflow_provider_milvus_backup.core import layout
        from airflow_provider_milvus_backup.core.settings import DEFAULT_CONCURRENCY, Settings

        config = self._backup_yaml
        connection = self._connection
        extra: Mapping[str, Any] = connection.extra_dejson if connection else {}
        label = f"connection {self.milvus_conn_id!r}"
        named = self.aws_conn_id or extra.get("aws_conn_id") or None
        bucket = str(extra.get("bucket_name") or config.storage.bucket or resolve.DEFAULT_BUCKET)
        root = extra.get("root_path") or config.storage.root_path
        milvus_storage = resolve.s3_location(bucket, resolve.DEFAULT_ROOT_PATH if root is None else str(root), named, config.storage, label)
        backup_root = config.backup_storage.root_path if self.backup_root_path is None else self.backup_root_path
        backup_bucket = self.backup_bucket or config.backup_storage.bucket or bucket
        backup_root = resolve.DEFAULT_BACKUP_ROOT_PATH if backup_root is None else backup_root
        own_access = replace(config.backup_storage, bucket=None, root_path=None) != replace(config.storage, bucket=None, root_path=None)
        if self.backup_aws_conn_id in (None, named) and not own_access:
            # The same access, so the same session: an assumed role is assumed once.
            backup_storage = replace(milvus_storage, bucket=backup_bucket, root_path=layout.clean_root(backup_root))
        else:
            backup_storage = resolve.s3_location(
                backup_bucket,
                backup_root,
                self.backup_aws_conn_id or named,
                config.backup_storage,
                label,
            )
        return Settings(
            resolve.milvus_address(self.milvus_conn_id, connection, extra, config),
            milvus_storage,
            backup_storage,
            concurrency=config.concurrency or DEFAULT_CONCURRENCY,
            multipart_threshold=(config.multipart_threshold_mib or 256) * 1024**2,
            streaming=bool(config.streaming),
        )

    @cached_property
    def _connection(self) -> Any:
        from airflow_provider_milvus_backup._compat import AirflowNotFoundException

        try:
            return self.get_connection(self.milvus_conn_id)
        except AirflowNotFoundException:
            if self._backup_yaml.milvus_host:
                return None
            raise

    @cached_property
    def _backup_yaml(self) -> BackupYaml:
        from airflow_provider_milvus_backup.core import backup_yaml
        from airflow_provider_milvus_backup.core.errors import ConfigError

        if self.config is None:
            return backup_yaml.BackupYaml()
        if isinstance(self.config, str) and ("\n" in self.config or "{" in self.config):
            # Not shown, for it may hold secrets.
            raise ConfigError("config is a text that is no path; give the path of a backup.yaml, or its content as a dictionary")
        config = backup_yaml.read(self.config)
        for storage in (config.storage, config.backup_storage):
            for secret in (config.milvus_password, storage.secret_key, storage.session_token):
                if secret:
                    mask_secret(secret)
        if config.ignored:
            self.log.info("backup.yaml: these keys have no meaning here and are ignored: %s", ", ".join(config.ignored))
        return config

    def get_conn(self) -> MilvusServer:
        """Return the Milvus server; it is connected by its first request."""
        from airflow_provider_milvus_backup.core.server import MilvusServer

        return MilvusServer(self.settings.milvus)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether Milvus answers and accepts the credentials, and a sentence about it."""
        try:
            with contextlib.closing(self.get_conn()) as server:
                databases = ", ".join(server.databases()[:10])
                return True, f"Milvus {server.version} at {server.address.host}:{server.address.port}, databases: {databases}"
        except Exception as error:  # noqa: BLE001 (Airflow shows the sentence, whatever went wrong)
            return False, str(error)

    def list_collections(self, collections: str | Sequence[str] | None = None) -> list[str]:
        """Return the selected collections as ``db.coll``, everything when none are named; for mapping a task over them."""
        from airflow_provider_milvus_backup.core.names import CollectionName, parse_selection, select

        server = self.get_conn()
        try:
            available = [CollectionName(database, name) for database in server.databases() for name in server.collections(database)]
        finally:
            server.close()
        return [str(name) for name in select(available, parse_selection(collections), self.settings.milvus.database)]

    def cancel(self) -> None:
        """Ask whatever this hook is doing to stop; it raises Cancelled soon."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._stop.is_set()

    # ---- backup ------------------------------------------------------------------------------------------------------------

    def backup(
        self,
        backup_name: str,
        collections: str | Sequence[str] | None = None,
        strategy: str = "flush",
        if_exists: str = "fail",
        *,
        include_rbac: bool = False,
        gc_pause: str | None = None,
        format: str = "binlog",  # noqa: A002 (as the meta and milvus-backup call it)
        object_lock_days: int | None = None,
        object_lock_mode: str = "GOVERNANCE",
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Back up the selected collections, everything when none are named, and return the summary.

        :param collections: ``coll``, ``db.coll``, ``db.*``; a list, or a string with commas
        :param strategy: ``flush`` (each collection as of its own flush), ``flush_all`` (all collections as of one moment; Milvus 2.6.11 and
            later), ``skip_flush`` (what is already flushed) or ``meta_only`` (no data)
        :param if_exists: a finished backup has the name: ``fail``; ``skip``: return its summary; ``replace``: make it anew and remove the
            old one after the commit. ``resume`` goes on with an unfinished attempt of somebody else
        :param include_rbac: users, roles, grants and privilege groups of the cluster, too (Milvus 2.4.9 and later)
        :param gc_pause: pause Milvus's garbage collection meanwhile: ``auto`` (try, and warn), ``require`` or ``off``; by default as
            backup.yaml says, else ``auto``
        :param format: ``binlog``, or ``snapshot``: Milvus writes the backup itself (3.0.1 and later)
        :param object_lock_days: lock the complete backup by S3 Object Lock for so many days from its commit; the bucket must have that
        :param object_lock_mode: ``GOVERNANCE`` can be lifted by who has the permission to bypass it, ``COMPLIANCE`` by nobody
        :param timeout: seconds the backup may take
        """
        from airflow_provider_milvus_backup.core import locking

        with self._backup_run(timeout, gc_pause) as run:
            wanted = locking.planned(run.destination, object_lock_days, object_lock_mode, if_exists)
            summary = run.backup(backup_name, collections, strategy, if_exists, include_rbac=include_rbac, format=format).to_dict()
            return {**summary, **locking.lock_planned(run.destination, backup_name, wanted, run.owner, run.reporter)}

    def plan_backup(
        self,
        backup_name: str,
        collections: str | Sequence[str] | None = None,
        strategy: str = "flush",
        if_exists: str = "fail",
        *,
        include_rbac: bool = False,
        format: str = "binlog",  # noqa: A002
    ) -> BackupPlan:
        """Flush and list; the first of the three phases of :meth:`backup`."""
        with self._backup_run(gc_pause="off") as run, run.writing(backup_name), run.reporter.phase("Plan"):
            return run.plan(backup_name, collections, strategy, if_exists, include_rbac=include_rbac, format=format)

    def copy_backup(self, plan: BackupPlan, *, gc_pause: str | None = None) -> None:
        """Copy what is not there yet; the second phase."""
        with self._backup_run(gc_pause=gc_pause) as run, run.writing(plan.backup.name), run.reporter.phase("Copy"):
            run.copy(plan)

    def commit_backup(self, plan: BackupPlan) -> dict[str, Any]:
        """Compare with the plan and write the meta files; the last phase. Returns the summary."""
        with self._backup_run() as run, run.writing(plan.backup.name), run.reporter.phase("Commit"):
            return run.commit(plan).to_dict()

    # ---- restore -----------------------------------------------------------------------------------------------------------

    def restore(
        self, backup_name: str, restore_id: str | None = None, *, timeout: float | None = None, poll_interval: float = 5.0, **options: Any
    ) -> dict[str, Any]:
        """Restore, wait for Milvus to import, and return the summary.

        :param restore_id: says which restore this is, so that calling again goes on with it; without one an error undoes everything
        :param timeout: seconds the restore may take
        :param poll_interval: longest pause between two looks at the import jobs, in seconds
        :param options: as in :class:`~airflow_provider_milvus_backup.core.restore_plan.RestoreOptions`
        """
        from airflow_provider_milvus_backup.core.imports import check_poll_interval

        check_poll_interval(poll_interval)
        with self._restore_run(timeout, resumable=restore_id is not None) as run:
            state = self._start(run, backup_name, restore_id, options)
            run.wait(state, poll_interval)
            return run.finish(state)

    def start_restore(
        self, backup_name: str, restore_id: str | None = None, *, timeout: float | None = None, **options: Any
    ) -> RestoreState:
        """Create the collections and submit the import jobs; :meth:`poll_restore` and :meth:`finish_restore` do the rest."""
        with self._restore_run(timeout) as run:
            return self._start(run, backup_name, restore_id, options)

    def load_restore(self, backup_name: str, restore_id: str) -> RestoreState:
        """Return the state of a restore that was started earlier, maybe by another task."""
        with self._restore_run() as run:
            return run.states.load(backup_name, restore_id)

    def poll_restore(self, state: RestoreState) -> bool:
        """Look once at every import job that has not ended; returns whether all are done. Raises ImportFailed."""
        with self._restore_run() as run:
            return run.poll(state)

    def wait_restore(self, state: RestoreState, timeout: float | None, poll_interval: float) -> None:
        """Wait until every import job has ended. Raises ImportFailed and WaitTimeout."""
        with self._restore_run(timeout) as run:
            run.wait(state, poll_interval)

    def finish_restore(self, state: RestoreState, timeout: float | None = None) -> dict[str, Any]:
        """Check rows, load, clean up; returns the summary, the same one when it is called again."""
        with self._restore_run(timeout) as run:
            return run.finish(state)

    def cancel_restore(self, backup_name: str, restore_id: str, token: str, why: str, grace: float) -> bool:
        """Undo a restore, unless it is finished or a process other than the one with this token has gone on with it.

        :param grace: seconds to wait for running imports to end
        """
        with self._restore_run() as run:
            state = run.states.find(backup_name, restore_id)
            if state is None or state.token != token or state.summary:
                return False
            run.cancel(state, why, grace)
            return True

    @staticmethod
    def _start(run: RestoreRun, backup_name: str, restore_id: str | None, options: dict[str, Any]) -> RestoreState:
        import uuid

        from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions

        return run.start(backup_name, restore_id or uuid.uuid4().hex[:16], RestoreOptions(**options))

    # ---- the engine --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _backup_run(self, timeout: float | None = None, gc_pause: str | None = None) -> Iterator[BackupRun]:
        from airflow_provider_milvus_backup.core.backup import BackupRun
        from airflow_provider_milvus_backup.core.gc_pause import GC_AUTO, GC_OFF
        from airflow_provider_milvus_backup.core.patience import Patience

        default = GC_OFF if self._backup_yaml.pause_gc is False else GC_AUTO
        run = BackupRun.open(self.settings, self._reporter(), Patience(self._stop, timeout), self.owner, gc_pause or default)
        run.server.answered = self._answered
        try:
            yield run
        finally:
            self._answered = run.server.answered
            run.server.close()

    @contextlib.contextmanager
    def _restore_run(self, timeout: float | None = None, *, resumable: bool = True) -> Iterator[RestoreRun]:
        from airflow_provider_milvus_backup.core.patience import Patience
        from airflow_provider_milvus_backup.core.restore import RestoreRun

        run = RestoreRun.open(
            self.settings,
            self._reporter(),
            Patience(self._stop, timeout),
            self.owner,
            mirror=self.mirror,
            resumable=resumable,
            cancel_on_kill=self.cancel_on_kill,
        )
        run.ends.server.answered = self._answered
        try:
            yield run
        finally:
            self._answered = run.ends.server.answered
            run.close()

    def _reporter(self) -> Reporter:
        from airflow_provider_milvus_backup.hooks.reporter import TaskReporter

        return TaskReporter(self.log)
