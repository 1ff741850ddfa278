"""What the hook does to prove that a backup restores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading

    from airflow_provider_milvus_backup.core.lease import Owner
    from airflow_provider_milvus_backup.core.report import Reporter
    from airflow_provider_milvus_backup.core.settings import Settings


class RestoreDrill:
    """The methods of :class:`.milvus_backup.MilvusBackupHook` that restore in order to look, and throw away."""

    if TYPE_CHECKING:
        _stop: threading.Event

        @property
        def settings(self) -> Settings:
            """Both ends."""

        def _reporter(self) -> Reporter: ...
        def _worker(self) -> Owner: ...

    def drill(
        self,
        backup_name: str = "latest",
        collections: str | Sequence[str] | None = None,
        *,
        name_pattern: str | None = None,
        sample: int | None = None,
        seed: str | int | None = None,
        suffix: str = "_drill",
        database: str | None = None,
        checks: Sequence[Mapping[str, Any]] | None = None,
        load: str = "always",
        max_shards: int | None = None,
        allow_downgrade: bool = False,
        max_seconds: float | None = None,
        drill_id: str | None = None,
        timeout: float | None = None,
        poll_interval: float = 5.0,
    ) -> dict[str, Any]:
        """Restore a backup into collections that are dropped again, and return what was found and how long it took.

        ``seconds`` is the recovery time: ``phases`` says what it was spent on. ``rows``, ``collections`` and ``checks`` (a count) say what
        was looked at. The result is also written into the backup. What was restored is gone at the end, whatever happened. Raises
        DrillFailed when a check fails or the recovery took too long, and what :meth:`restore` raises when the backup does not restore.

        :param backup_name: ``latest``, ``random:30d`` (any complete one of the last 30 days), or a name
        :param collections: which collections of it, by their name in the backup; nothing means all
        :param name_pattern: of which backups ``latest`` and ``random`` choose, by name, with ``*``, ``?`` and ``[…]``
        :param sample: only so many of the collections, at random; those that checks are about are always among them
        :param seed: the same seed chooses the same; by default it is the task instance, or chance
        :param suffix: follows the name of what is restored; nothing that somebody else has made under such a name is touched
        :param database: restore into this database; one that is missing is created, and dropped again
        :param checks: what must be found, as dictionaries; see :mod:`~airflow_provider_milvus_backup.core.drill_checks`
        :param load: load the collections ``always``, ``as_backed_up`` or ``never``; only the rows of loaded ones are counted
        :param max_shards: shards of a restored collection at most
        :param allow_downgrade: restore into an older line of Milvus than the backup was taken from
        :param max_seconds: the longest recovery time that is good enough
        :param drill_id: says which drill this is, so that calling again takes away what a call that died has left
        :param timeout: seconds after which the drill is given up
        :param poll_interval: longest pause between two looks at the import jobs, in seconds
        """
        from airflow_provider_milvus_backup.core.drill_plan import DrillOptions
        from airflow_provider_milvus_backup.core.drilling import drill
        from airflow_provider_milvus_backup.core.patience import Patience

        owner = self._worker()
        options = DrillOptions(
            backup_name=backup_name,
            name_pattern=name_pattern,
            collections=collections,
            sample=sample,
            seed=(owner.identity or None) if seed is None else seed,
            suffix=suffix,
            database=database,
            checks=() if checks is None else checks,
            load=load,
            max_shards=max_shards,
            allow_downgrade=allow_downgrade,
            max_seconds=max_seconds,
        )
        return drill(self.settings, options, owner, self._reporter(), Patience(self._stop, timeout), drill_id, poll_interval)
