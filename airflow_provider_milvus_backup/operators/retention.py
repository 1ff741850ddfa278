"""MilvusBackupRetentionOperator."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_milvus_backup.operators.base import MilvusBaseOperator, fail_without_retry

if TYPE_CHECKING:
    from airflow_provider_milvus_backup._compat import Context


class MilvusBackupRetentionOperator(MilvusBaseOperator):
    """Delete the backups that a policy does not keep; a backup stays if any rule keeps it.

    Rules look back from the newest complete backup, never from today, so nothing is deleted when backups stop. Backups that are on hold, in
    use or damaged stay; those without data are judged apart. Returns kept (a count), removed (names), table (200 lines at most) and
    dry_run. What cannot be deleted does not stop the others, and fails the task at the end. Milvus is not asked.

    :param keep_last: the newest so many
    :param keep_hourly: the newest of each of the last so many hours that have a backup
    :param keep_daily: the same by days
    :param keep_weekly: the same by ISO weeks
    :param keep_monthly: the same by months
    :param keep_yearly: the same by years
    :param keep_within: all that are not older than the newest by more than that: ``14d``, ``2w``, ``1y6m3d4h`` (``m`` is months) or a
        timedelta
    :param min_count: so many of the newest complete backups stay in any case
    :param allow_empty: permit ``min_count=0``
    :param name_pattern: the backups this policy is about, by name, with ``*``, ``?`` and ``[…]``; it does not see others
    :param group_by: what is judged alone: ``prefix``: the name without date and digest, so one group per task with default names; a
        regular expression with one group; empty: all together, which is refused where their names say that they are of several tasks
    :param timezone: where days, weeks, months and years begin, as ``Europe/Berlin``
    :param grace: how much newer than an unfinished attempt a complete backup must be before the attempt is removed
    :param dry_run: print the same table and delete nothing
    """

    template_fields: Sequence[str] = (
        "keep_within",
        "name_pattern",
        "group_by",
        "timezone",
        "grace",
        *MilvusBaseOperator.template_fields,
    )
    template_fields_renderers = {"config": "yaml"}  # noqa: RUF012 (as in every Airflow operator)
    ui_color = "#fef3c7"

    def __init__(
        self,
        *,
        keep_last: int | None = None,
        keep_hourly: int | None = None,
        keep_daily: int | None = None,
        keep_weekly: int | None = None,
        keep_monthly: int | None = None,
        keep_yearly: int | None = None,
        keep_within: str | timedelta | None = None,
        min_count: int = 1,
        allow_empty: bool = False,
        name_pattern: str = "*",
        group_by: str = "",
        timezone: str = "UTC",
        grace: str | timedelta = "24h",
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.keep_last = keep_last
        self.keep_hourly = keep_hourly
        self.keep_daily = keep_daily
        self.keep_weekly = keep_weekly
        self.keep_monthly = keep_monthly
        self.keep_yearly = keep_yearly
        self.keep_within = keep_within
        self.min_count = min_count
        self.allow_empty = allow_empty
        self.name_pattern = name_pattern
        self.group_by = group_by
        self.timezone = timezone
        self.grace = grace
        self.shows_only = dry_run  # every operator has a method dry_run

    def execute(self, context: Context) -> dict[str, Any]:
        """Print the table, delete what no rule keeps, and return both."""
        with fail_without_retry():
            self.take_up(context)
            return self.hook.apply_retention(
                keep_last=self.keep_last,
                keep_hourly=self.keep_hourly,
                keep_daily=self.keep_daily,
                keep_weekly=self.keep_weekly,
                keep_monthly=self.keep_monthly,
                keep_yearly=self.keep_yearly,
                keep_within=self.keep_within,
                min_count=self.min_count,
                allow_empty=self.allow_empty,
                name_pattern=self.name_pattern,
                group_by=self.group_by,
                timezone=self.timezone,
                grace=self.grace,
                dry_run=self.shows_only,
            )
