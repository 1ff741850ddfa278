"""What the hook says about the age of backups."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from datetime import timedelta

    from airflow_provider_milvus_backup.core.report import Reporter
    from airflow_provider_milvus_backup.core.server import MilvusServer
    from airflow_provider_milvus_backup.core.settings import Settings
    from airflow_provider_milvus_backup.core.store import ObjectStore
    from airflow_provider_milvus_backup.core.watching import Remembered


class BackupFreshness:
    """The methods of :class:`.milvus_backup.MilvusBackupHook` that compare backups with what was promised."""

    if TYPE_CHECKING:
        _stop: threading.Event

        @property
        def settings(self) -> Settings:
            """Both ends."""

        def get_conn(self) -> MilvusServer:
            """Return the Milvus server."""

        def _reporter(self) -> Reporter: ...
        def _backup_store(self) -> ObjectStore: ...

    def check_freshness(
        self,
        max_age: str | timedelta,
        collections: str | Sequence[str] | None = None,
        level: str | None = None,
        name_pattern: str = "*",
    ) -> dict[str, Any]:
        """Return whether every collection has a backup that is young enough, and which have not.

        ``fresh`` is the answer, ``message`` says who is late and by how much, ``collections`` has the first hundred, the worst first. Their
        ``status`` is ``fresh``, ``late``, ``missing`` (no backup holds it) or ``new`` (none does, but it is younger than ``max_age``
        itself). Ages are by the store's clock, in seconds. Late backups are no error; what cannot be looked at is.

        :param max_age: ``26h``, ``2d``, ``1w`` or a timedelta
        :param collections: ``coll``, ``db.coll``, ``db.*``; a list, or a string with commas; by default all in Milvus. When Milvus is away,
            the backups of those that are named are judged all the same, with a warning
        :param level: count only backups that were verified at this level or a deeper one, as a whole and without damage: ``objects``,
            ``checksums``, ``binlogs``; or that the last ``drill`` has restored. By default complete is enough
        :param name_pattern: the backups that count, by name, with ``*``, ``?`` and ``[…]``
        """
        from airflow_provider_milvus_backup.core.freshness import FreshnessPolicy
        from airflow_provider_milvus_backup.core.patience import Patience
        from airflow_provider_milvus_backup.core.watching import Watch

        policy = FreshnessPolicy(max_age, collections, level, name_pattern)
        with contextlib.closing(self.get_conn()) as server:
            server.patience = Patience(self._stop)
            watch = Watch(self._backup_store(), server, policy, self.settings.milvus.database, self._reporter(), self._remembered)
            return watch.look().to_dict()

    @cached_property
    def _remembered(self) -> Remembered:
        return {}
