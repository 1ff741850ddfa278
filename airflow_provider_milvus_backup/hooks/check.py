"""What the hook says before anything is backed up or restored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading

    from airflow_provider_milvus_backup.core.report import Reporter
    from airflow_provider_milvus_backup.core.settings import Settings


class BackupCheck:
    """The method of :class:`.milvus_backup.MilvusBackupHook` that looks at both ends."""

    if TYPE_CHECKING:
        _stop: threading.Event

        @property
        def settings(self) -> Settings:
            """Both ends."""

        def _reporter(self) -> Reporter: ...

    def check(
        self,
        collections: str | Sequence[str] | None = None,
        *,
        include_restore: bool = True,
        include_rbac: bool = False,
        skip: str | Iterable[str] | None = (),
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Look at Milvus, its bucket and the backup storage, and return one line about each thing a backup or restore needs.

        ``status`` is the worst of all: ``PASS``, ``WARN`` or ``FAIL``. ``checks`` has ``{name, status, message, remedy, seconds}`` each, in
        the order of ``docs/check.md``; ``SKIP`` is what could not be checked, and why. ``capabilities`` says what this Milvus can do.
        ``retryable``: all that failed may pass by itself. A FAIL is no error here. Milvus's data is never touched; probes are written
        below ``<backup root>/airflow-check-probes`` and, in Milvus's bucket, below ``restore-temp-…``, and removed.

        :param collections: what would be backed up: ``coll``, ``db.coll``, ``db.*``; a list, or a string with commas; by default all
        :param include_restore: also what only a restore needs: its privileges, and writing into Milvus's bucket
        :param include_rbac: also what ``include_rbac`` and ``restore_rbac`` need
        :param skip: names of checks to leave out; a list, or a string with commas
        :param timeout: seconds all of it may take; what is late fails
        """
        from airflow_provider_milvus_backup.core import preflight
        from airflow_provider_milvus_backup.core.patience import Patience

        # No phase of a log: Airflow would fold the lines away, and they are all that there is to read.
        return preflight.check(
            self.settings,
            self._reporter(),
            Patience(self._stop, timeout),
            collections,
            include_restore=include_restore,
            include_rbac=include_rbac,
            skip=skip,
        )
