"""What the hook does with backups that are there: list, hold, delete, retention. Milvus is never asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from datetime import datetime

    from airflow_provider_milvus_backup.core.lease import Owner
    from airflow_provider_milvus_backup.core.report import Reporter
    from airflow_provider_milvus_backup.core.settings import Settings
    from airflow_provider_milvus_backup.core.store import ObjectStore


class BackupCatalog:
    """The methods of :class:`.milvus_backup.MilvusBackupHook` that need the backup storage alone."""

    if TYPE_CHECKING:
        owner: Owner | None
        _stop: threading.Event

        @property
        def settings(self) -> Settings:
            """Both ends."""

        def _reporter(self) -> Reporter: ...

    def list_backups(self, name_pattern: str | None = None, *, unfinished: bool = False) -> list[dict[str, Any]]:
        """Return the backups of the backup root, newest first, whichever tool wrote them; Milvus is not asked.

        Every one has the keys of :class:`~airflow_provider_milvus_backup.core.catalog_entry.CatalogEntry`. Look at ``state`` first:
        ``complete``; ``damaged`` and ``unreadable`` say why in ``reason``. ``locked`` is what the store keeps one by, as far as it tells.

        :param name_pattern: of the names, with ``*``, ``?`` and ``[…]``; all without one
        :param unfinished: also those that were not finished, or not deleted completely
        """
        from airflow_provider_milvus_backup.core.catalog import read_catalog
        from airflow_provider_milvus_backup.core.object_lock import bucket_lock, with_locks

        store = self._backup_store()
        catalog = read_catalog(store, name_pattern, unfinished=unfinished)
        return [entry.to_dict() for entry in with_locks(store, catalog.entries, catalog.now, bucket_lock(store))]

    def get_backup(self, backup_name: str) -> dict[str, Any]:
        """Return one backup as :meth:`list_backups` does and, from its whole meta, its ``collections``, ``databases`` and ``rbac`` counts.

        One that is not ``complete`` has the keys of the list alone. Raises BackupNotFound when nothing is there.
        """
        from airflow_provider_milvus_backup.core.catalog import describe

        return describe(self._backup_store(), backup_name)

    def delete_backup(self, backup_name: str) -> dict[str, Any]:
        """Delete a backup of either tool, complete or not, and return ``{name, uri, state, objects, bytes, seconds}``.

        ``state`` is what the backup was; ``missing`` when it is not there, which is a success. Raises ConfigError for one that is on hold
        or is no backup, BackupInUse while it is written or restored, StorageDenied where the store keeps objects of it.
        """
        from airflow_provider_milvus_backup.core.deleting import delete

        return delete(self._backup_store(), backup_name, self._worker(), self._reporter()).to_dict()

    def hold_backup(self, backup_name: str, reason: str, owner: str, until: datetime | str | None = None) -> dict[str, Any]:
        """Keep a backup from being deleted, by hand or by retention, and return ``{reason, owner, until, since}``.

        :param reason: why; whoever wants to delete the backup reads it
        :param owner: who can be asked to release it
        :param until: when the hold ends by itself, with its time zone; by default it lasts until :meth:`release_backup`
        """
        from airflow_provider_milvus_backup.core.holds import hold

        return hold(self._backup_store(), backup_name, reason, owner, until, self._worker(), self._reporter())

    def release_backup(self, backup_name: str) -> dict[str, Any] | None:
        """End the hold of a backup; returns what it was, None when there was none."""
        from airflow_provider_milvus_backup.core.holds import release

        return release(self._backup_store(), backup_name, self._worker(), self._reporter())

    def lock_backup(self, backup_name: str, days: int, mode: str = "GOVERNANCE") -> dict[str, Any]:
        """Lock a complete backup of either tool by S3 Object Lock for so many days from its commit, and return ``{mode, until}``.

        For backups that were made without ``object_lock_days``, as in three phases. One that is locked as long or longer stays as it is.

        :param days: a bucket that locks every object for longer by default wins
        :param mode: ``GOVERNANCE`` can be lifted by who has the permission to bypass it, ``COMPLIANCE`` by nobody
        """
        from airflow_provider_milvus_backup.core.locking import lock, retention

        store = self._backup_store()
        return lock(store, backup_name, retention(store, days, mode), self._worker(), self._reporter())

    def apply_retention(self, *, dry_run: bool = False, **policy: Any) -> dict[str, Any]:
        """Delete the backups that a policy does not keep; returns ``{kept, removed, table, dry_run}``, of the table 200 lines at most.

        Those that cannot be deleted do not stop the others, and are named in the error at the end.

        :param dry_run: print the same table and delete nothing
        :param policy: as in :class:`~airflow_provider_milvus_backup.core.retention_policy.RetentionPolicy`: ``keep_last``,
            ``keep_hourly`` to ``keep_yearly``, ``keep_within``, ``min_count``, ``allow_empty``, ``name_pattern``, ``group_by``,
            ``timezone``, ``grace``
        """
        from airflow_provider_milvus_backup.core.deleting import apply_policy
        from airflow_provider_milvus_backup.core.retention_policy import RetentionPolicy

        return apply_policy(self._backup_store(), RetentionPolicy(**policy), self._worker(), self._reporter(), dry_run=dry_run)

    def _worker(self) -> Owner:
        from airflow_provider_milvus_backup.core.lease import Owner

        return self.owner or Owner()

    def _backup_store(self) -> ObjectStore:
        from airflow_provider_milvus_backup.core.patience import Patience
        from airflow_provider_milvus_backup.core.store import ObjectStore

        return ObjectStore(self.settings.backup_storage, Patience(self._stop))
