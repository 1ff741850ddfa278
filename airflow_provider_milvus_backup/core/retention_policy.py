"""What a retention policy says: its rules, its groups and its spans of time, checked. :mod:`.retention` says what follows from it."""

from __future__ import annotations

import calendar
import datetime as dt
import fnmatch
import re
import zoneinfo
from dataclasses import dataclass
from typing import NamedTuple

from . import report
from .errors import ConfigError
from .names import MAX_BACKUP_NAME

#: Rules that keep so many, ``keep_<rule>`` each.
RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
#: Before every backup.
EVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})y)?(?:(\d{1,6})m)?(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?")
# The two forms of core/names.task_name: the date stands before the task, or there is none and a digest stands at the end.
_TASK_NAME = re.compile(r"(.*)_\d{8}T\d{6}_(.+?)(?:_[0-9a-f]{12})?")
_DATE = r"(?:19|20)\d\d_?(?:0[1-9]|1[0-2])_?(?:0[1-9]|[12]\d|3[01])(?:[T_]?\d\d_?\d\d(?:_?\d\d(?:_?\d+)?)?)?"
# Twelve decimal digits alone are more likely an account than a digest.
_DATED_NAME = re.compile(rf"(.*?)(?:_?(?<!\d){_DATE}|_(?=\d*[a-f])[0-9a-f]{{12}})")


class Duration(NamedTuple):
    """A time span of calendar months, calendar days and exact hours."""

    months: int = 0
    days: int = 0
    exact: dt.timedelta = dt.timedelta()

    @classmethod
    def parse(cls, value: dt.timedelta | str, argument: str) -> Duration:
        """Return what a text like ``14d``, ``2w`` or ``1y6m3d4h`` (``m`` is months) or a timedelta means, else raise ConfigError.

        :param argument: the name that an error message gives the value
        """
        if isinstance(value, dt.timedelta):
            if value < dt.timedelta():
                raise ConfigError(f"{argument} {value} is negative; it is a time span back from the newest backup")
            return cls(exact=value)
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if not match:
            raise ConfigError(
                f"{argument} {value!r} is not a time span; write years, months, weeks, days and hours in this order, as in `14d`, `2w` "
                "or `1y6m3d4h` (`m` is months), or give a timedelta"
            )
        years, months, weeks, days, hours = (int(number or 0) for number in match.groups())
        return cls(12 * years + months, 7 * weeks + days, dt.timedelta(hours=hours))

    def before(self, moment: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
        """Return the moment, in UTC, that lies this span before ``moment``; the calendar is that of ``zone``.

        Months and days keep the time of day, so that a day over a change of the clock has 23 or 25 hours; the 31st becomes
        the last day of a shorter month. A span that reaches beyond the calendar ends where the calendar begins.
        """
        try:
            if self.months or self.days:
                local = moment.astimezone(zone)
                year, month = divmod(local.year * 12 + local.month - 1 - self.months, 12)
                day = min(local.day, calendar.monthrange(year, month + 1)[1])
                moment = local.replace(year=year, month=month + 1, day=day) - dt.timedelta(days=self.days)
            return moment.astimezone(dt.timezone.utc) - self.exact
        except (OverflowError, ValueError):
            return EVER


@dataclass(frozen=True)
class RetentionPolicy:
    """Which backups stay; the module says how the parts work together.

    Raises ConfigError for a policy without a rule, for negative counts, unknown time zones and spans that are none, for a
    ``keep_last`` below ``min_count``, and for a floor of 0 without ``allow_empty``.

    :param keep_last: the newest so many; None or 0 in this and the next five: no such rule
    :param keep_hourly: the newest of each of the last so many hours that have a backup
    :param keep_daily: the same by days
    :param keep_weekly: the same by ISO weeks
    :param keep_monthly: the same by months
    :param keep_yearly: the same by years
    :param keep_within: all that are not older than the newest by more than that: ``14d``, ``2w``, ``1y6m3d4h`` or a timedelta
    :param min_count: floor: so many of the newest complete backups stay in any case
    :param allow_empty: permit ``min_count=0``, and with it a policy whose rules are all 0: it removes everything it may remove
    :param name_pattern: the backups this policy is about, by name: a glob with ``*``, ``?`` and ``[...]``, case sensitive
    :param group_by: what is judged alone: empty = all together, refused where they are of several tasks by their names; ``prefix`` = by
        the name without its date and digest, so one group per task with default names; else a regular expression whose one group is
        searched in the name. A name that it does not find stays.
    :param timezone: IANA name; where days, weeks, months and years begin
    :param grace: how much newer than an unfinished attempt a complete backup must be before the attempt goes
    """

    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_within: dt.timedelta | str | None = None
    min_count: int = 1
    allow_empty: bool = False
    name_pattern: str = "*"
    group_by: str = ""
    timezone: str = "UTC"
    grace: dt.timedelta | str = "24h"

    def __post_init__(self) -> None:
        counts = {f"keep_{rule}": self.count(rule) for rule in RULES}
        _check_count("min_count", self.min_count)
        if not isinstance(self.allow_empty, bool):
            raise ConfigError(f"allow_empty {self.allow_empty!r} is neither True nor False; it is not a template")
        self._check_rules(counts)
        if not isinstance(self.name_pattern, str) or not self.name_pattern:
            raise ConfigError(f"name_pattern {self.name_pattern!r} fits no name; `*` fits all of them")
        self._check_group()
        _ = self.zone
        Duration.parse(self.grace, "grace")

    def _check_rules(self, counts: dict[str, int]) -> None:
        given = [name for name in counts if getattr(self, name) is not None]
        if not given and self.keep_within is None:
            raise ConfigError(f"the retention policy keeps nothing: give it at least one of {', '.join(counts)} or keep_within")
        if self.keep_within is not None and Duration.parse(self.keep_within, "keep_within") == Duration():
            raise ConfigError(f"keep_within {self.keep_within!r} is no time at all; leave it out, or name a span such as `14d`")
        if self.allow_empty and self.min_count:
            raise ConfigError(f"allow_empty contradicts min_count={self.min_count}, which always keeps some; give one of them up")
        if not self.min_count and not self.allow_empty:
            raise ConfigError("min_count=0 would let the last backup go; use 1 or more, or set allow_empty=True if that is what you want")
        if not any(counts.values()) and self.keep_within is None and not self.allow_empty:
            zeros = ", ".join(f"{name}=0" for name in given)
            raise ConfigError(f"the retention policy keeps nothing ({zeros}): make one of them positive, or set keep_within")
        if 0 < counts["keep_last"] < self.min_count:
            raise ConfigError(
                f"keep_last={self.keep_last} contradicts min_count={self.min_count}, which keeps more; raise the one or lower the other"
            )

    def _check_group(self) -> None:
        if self.group_by in ("", "prefix"):
            return
        try:
            groups = re.compile(self.group_by).groups
        except (re.error, TypeError) as error:
            raise ConfigError(f"group_by {self.group_by!r} is neither empty, `prefix` nor a regular expression: {error}") from None
        if groups != 1:
            raise ConfigError(
                f"group_by {self.group_by!r} has {report.counted(groups, 'group')}; put what the names of one kind share into exactly one "
                "pair of parentheses, or use `prefix`"
            )

    def count(self, rule: str) -> int:
        """Return how many the rule (``last``, ``daily``, ...) keeps; 0 where it is not set. Raises ConfigError for what is no count."""
        value = getattr(self, f"keep_{rule}")
        return 0 if value is None else _check_count(f"keep_{rule}", value)

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone. Raises ConfigError if this machine does not know it."""
        try:
            return zoneinfo.ZoneInfo(self.timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, AttributeError, OSError):
            raise ConfigError(
                f"timezone {self.timezone!r} is not known here; use an IANA name such as `UTC` or `Europe/Berlin` "
                "(the Python package tzdata brings them all)"
            ) from None

    def covers(self, name: str) -> bool:
        """Return whether this policy is about the backup of that name."""
        return fnmatch.fnmatchcase(name, self.name_pattern)

    def group(self, name: str) -> str | None:
        """Return the group a backup belongs to by its name; None if ``group_by`` does not find one."""
        if not self.group_by:
            return ""
        if self.group_by == "prefix":
            return prefix(name)
        match = re.search(self.group_by, name)
        return match[1] if match else None


def task_of(name: str) -> str:
    """Return what :func:`prefix` does where core/names.task_name has made the name with a date in it, else nothing."""
    return prefix(name) if len(name) < MAX_BACKUP_NAME and _TASK_NAME.fullmatch(name) else ""


def prefix(name: str) -> str:
    """Return what the names of one task's backups share: the name without its date and digest.

    ``<dag>_<date>_<task>`` becomes ``<dag>_*_<task>``, since ``a_b`` + ``c`` and ``a`` + ``b_c`` are two tasks. Of names that
    core/names.task_name did not make, a date (and time) at the end goes: ``shop_20261122``, ``shop_2026_11_22_02_00_00``.
    A name that may have been cut to its greatest length stands alone. Ids that became equal on their way into a name (``a.b``
    and ``a-b``) cannot be told apart; ``name_pattern`` or a regular expression can keep clear of them.
    """
    if len(name) >= MAX_BACKUP_NAME:
        return name
    if match := _TASK_NAME.fullmatch(name):
        return f"{match[1]}_*_{match[2]}"
    match = _DATED_NAME.fullmatch(name)
    return match[1] if match else name


def _check_count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{name} {value!r} is not a count; use a whole number that is not negative")
    return value
