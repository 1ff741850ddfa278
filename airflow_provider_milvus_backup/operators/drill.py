"""MilvusRestoreDrillOperator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry, seconds, task_identity

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context


class MilvusRestoreDrillOperator(MilvusBaseOperator):
    """Prove that a backup restores: restore it into collections that are dropped again, look at what came of it, measure the time.

    Compares schema, indexes and rows with the backup, runs the given checks, and fails when anything is not as it should be or the recovery
    took longer than ``max_seconds``. What it restored is gone at the end, whatever happened; originals, their aliases, users and roles are
    never touched. The result is written into the backup, and ``list_backups`` shows it as ``drilled``. Returns backup_name, seconds,
    phases, rows, collections and the number of checks.

    To drill on another cluster than the one that is backed up, let ``milvus_conn_id`` be that cluster's, and name the place of the backups
    with ``backup_bucket`` and ``backup_aws_conn_id``. There is no deferrable mode: the time in the queues of triggerer and scheduler would
    be measured too, and nobody would drop what was restored when a trigger times out.

    :param backup_name: ``latest``, ``random:30d`` (any complete one of the last 30 days), or the name of a backup
    :param name_pattern: of which backups ``latest`` and ``random`` choose, by name, with ``*``, ``?`` and ``[…]``
    :param collections: which collections of it, by their name in the backup; nothing means all
    :param sample: only so many of these, at random; those that checks are about are always among them
    :param seed: the same seed chooses the same backup and sample; by default every try of a run chooses the same, and every run anew
    :param suffix: follows the name of what is restored
    :param database: restore into this database; one that is missing is created, and dropped again
    :param checks: what must be found: ``{"collection": "db.coll", "expression": "year > 2000", "count": 123}``, or ``min_count`` and
        ``max_count``; ``{"collection": "coll", "search": {"field": "vector", "vector": [...], "limit": 10, "expect_ids": [7]}}``, or
        ``min_hits``, and maybe ``filter`` and ``params``
    :param load: load the collections ``always`` (where their vectors have indexes), ``as_backed_up`` or ``never``; the rows of those that
        are loaded are counted, and those that checks are about are always loaded
    :param max_shards: shards of a restored collection at most, where the Milvus of the drill allows for fewer
    :param allow_downgrade: restore into an older line of Milvus than the backup was taken from
    :param max_seconds: the longest recovery time, in seconds (or a timedelta), that is good enough
    :param poll_interval: longest pause between two looks at the import jobs, in seconds
    :param timeout: seconds (or a timedelta) after which the drill is given up
    """

    template_fields: Sequence[str] = (
        "backup_name",
        "name_pattern",
        "collections",
        "seed",
        "suffix",
        "database",
        "checks",
        "load",
        *MilvusBaseOperator.template_fields,
    )
    template_fields_renderers = {"collections": "json", "checks": "json", "config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#e0e7ff"

    def __init__(
        self,
        *,
        backup_name: str = "latest",
        name_pattern: str | None = None,
        collections: str | Sequence[str] | None = None,
        sample: int | None = None,
        seed: str | int | None = None,
        suffix: str = "_drill",
        database: str | None = None,
        checks: Sequence[Mapping[str, Any]] | None = None,
        load: str = "always",
        max_shards: int | None = None,
        allow_downgrade: bool = False,
        max_seconds: float | timedelta | None = None,
        poll_interval: float = 5.0,
        timeout: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backup_name = backup_name
        self.name_pattern = name_pattern
        self.collections = collections
        self.sample = sample
        self.seed = seed
        self.suffix = suffix
        self.database = database
        self.checks = checks
        self.load = load
        self.max_shards = max_shards
        self.allow_downgrade = allow_downgrade
        self.max_seconds = max_seconds
        self.poll_interval = poll_interval
        self.timeout = timeout

    def execute(self, context: Context) -> dict[str, Any]:
        """Drill; a retry begins anew, and takes away what the try before it has left."""
        from airflow_provider_milvus_backup.core.names import restore_id

        dag_id, run_id, task_id, map_index = task_identity(context)
        with fail_without_retry():
            self.take_up(context)
            return self.hook.drill(
                self.backup_name,
                self.collections,
                name_pattern=self.name_pattern,
                sample=self.sample,
                seed=self.seed,
                suffix=self.suffix,
                database=self.database,
                checks=self.checks,
                load=self.load,
                max_shards=self.max_shards,
                allow_downgrade=self.allow_downgrade,
                max_seconds=seconds(self.max_seconds, "max_seconds"),
                drill_id=restore_id(("drill", dag_id, task_id, str(map_index)), run_id),
                timeout=seconds(self.timeout, "timeout"),
                poll_interval=self.poll_interval,
            )
