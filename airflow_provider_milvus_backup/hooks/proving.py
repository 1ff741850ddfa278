"""What the hook does to prove that backups are good: verify. Milvus is never asked."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_milvus_backup.core.lease import Owner
    from airflow_provider_milvus_backup.core.report import Reporter
    from airflow_provider_milvus_backup.core.store import ObjectStore


class BackupProving:
    """The methods of :class:`.milvus_backup.MilvusBackupHook` that read a backup to judge it."""

    if TYPE_CHECKING:

        def _worker(self) -> Owner: ...

        def _backup_store(self) -> ObjectStore: ...

        def _reporter(self) -> Reporter: ...

    def verify_backup(
        self,
        backup_name: str = "latest",
        level: str = "objects",
        sample: str | None = None,
        max_bytes_per_second: float | str | None = None,
    ) -> dict[str, Any]:
        """Verify a complete backup of either tool, write the result beside it, and return it.

        The result is ``{name, uri, level, sample, ok, compared_with, time, objects, bytes, read_objects, read_bytes, unproven, segments,
        seconds, damaged}``. Raises BackupDamaged, after the result was written, when something is wrong: the message names damaged segments
        and what still restores.

        :param backup_name: a name; ``latest``: the newest complete backup; ``random:30d``: any one of the last 30 days
        :param level: ``objects``: everything is there and of its size; ``checksums``: the content is read and compared, too; ``binlogs``:
            and Milvus can read it
        :param sample: read a part only, at the last two levels: ``3/30`` is the third of thirty parts, ``5%`` another part every time
        :param max_bytes_per_second: how fast to read at most: a number, or ``50MiB``
        """
        from airflow_provider_milvus_backup.core.choosing import gone
        from airflow_provider_milvus_backup.core.errors import BackupNotFound
        from airflow_provider_milvus_backup.core.verifying import check_arguments, verify

        check_arguments(level, sample, max_bytes_per_second)
        store = self._backup_store()
        chosen = self._chosen(store, backup_name)
        try:
            found = verify(
                store,
                chosen,
                self._worker(),
                self._reporter(),
                level=level,
                sample=sample,
                max_bytes_per_second=max_bytes_per_second,
            )
        except BackupNotFound as error:
            raise error if chosen == backup_name else gone(error, chosen) from None
        found.check()
        return found.to_dict()

    @staticmethod
    def _chosen(store: ObjectStore, which: str) -> str:
        """Return the name of the backup that is meant; one that is named is not looked for among the others."""
        from airflow_provider_milvus_backup.core.catalog import read_catalog
        from airflow_provider_milvus_backup.core.choosing import LATEST, check_choice, choose
        from airflow_provider_milvus_backup.core.errors import BackupNotFound

        if check_choice(which) != LATEST and ":" not in which:
            return which
        catalog = read_catalog(store)
        try:
            return choose(catalog.entries, which, catalog.now, random.SystemRandom()).name
        except BackupNotFound as error:
            raise BackupNotFound(f"{error}, in {store.location}") from None
