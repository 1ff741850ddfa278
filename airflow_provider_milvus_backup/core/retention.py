"""Which backups stay: a pure function of the catalog, a policy and the hour.

A policy sees the backups whose names fit its ``name_pattern``; others are not in its answer at all, so that two policies
over one backup root never meet. What it sees is split by ``group_by``, and every group is judged alone:

- **What counts.** Complete backups with a known time that is not in the future and that nobody leases. A leased one may be on
  its way out, a time in the future would push every other backup out of ``keep_within``, as one made while a clock was wrong.
  A hold changes the fate of the backup it is on and of no other: held backups count like the rest (as in Barman and restic).
- **Rules.** A backup stays if any rule keeps it. ``keep_last``: fewer than so many are newer. ``keep_daily`` and its kind: it is
  the newest of its day, and fewer than so many newer days *have* a backup; days without one do not use up a place. The oldest
  backup stays too while a rule has places left, so that the history reaches as far back as it can (restic's counting, with ISO
  weeks). ``keep_within``: not older than the newest by more than that. Backups of the very same time stay or go together.
- **Never because of the clock.** Everything is measured from the newest backup that counts, never from ``now``: where backups
  stop, deletion stops. ``now`` only tells which times are in the future.
- **Floor.** The ``min_count`` newest that count stay whatever the rules say.
- **Unfinished attempts** neither count nor are kept by rules. One goes when a complete backup is newer by more than ``grace``:
  hence never the newest of its group, never the only one, and never one that is leased or held.
- **Damaged backups** are reported, never counted and never removed: what is damaged to this reader may be whole to another
  (a newer format, a permission that is missing today), so a person decides.
- Whatever is held, leased, of unknown time or dated in the future stays.

Times are compared in UTC; days, weeks, months and years are those of the policy's time zone.
"""

from __future__ import annotations

import calendar
import datetime as dt
import fnmatch
import re
import zoneinfo
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from . import report
from .errors import ConfigError
from .names import MAX_BACKUP_NAME

COMPLETE, UNFINISHED = "complete", "unfinished"
_EVER = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
# Milvus was published in 2019. An earlier time is a zero that somebody recorded, or a clock that had been reset.
_MILVUS_BEGAN = dt.datetime(2019, 1, 1, tzinfo=dt.timezone.utc)
_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})y)?(?:(\d{1,6})m)?(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?")
# The two forms of core/names.task_name: the date stands before the task, or there is none and a digest stands at the end.
_TASK_NAME = re.compile(r"(.*)_\d{8}T\d{6}_(.+?)(?:_[0-9a-f]{12})?")
_DATE = r"(?:19|20)\d\d_?(?:0[1-9]|1[0-2])_?(?:0[1-9]|[12]\d|3[01])(?:[T_]?\d\d_?\d\d(?:_?\d\d(?:_?\d+)?)?)?"
# Twelve decimal digits alone are more likely an account than a digest.
_DATED_NAME = re.compile(rf"(.*?)(?:_?(?<!\d){_DATE}|_(?=\d*[a-f])[0-9a-f]{{12}})")
#: rule, the argument that counts it, and what two backups share that are of the same hour, day, ... (of a time in the policy's zone)
_BUCKETS: tuple[tuple[str, Callable[[dt.datetime], object]], ...] = (
    # The hour that a clock set back repeats is another hour.
    ("hourly", lambda local: (local.date(), local.hour, local.utcoffset())),
    ("daily", lambda local: local.date()),
    ("weekly", lambda local: local.isocalendar()[:2]),
    ("monthly", lambda local: (local.year, local.month)),
    ("yearly", lambda local: local.year),
)


class Entry(Protocol):
    """What retention has to know of a backup."""

    @property
    def name(self) -> str:
        """The backup name."""

    @property
    def time(self) -> dt.datetime | None:
        """When it was committed, or begun where it is not complete; as recorded, with a time zone. None where unknown."""

    @property
    def state(self) -> str:
        """``complete``, ``unfinished`` or anything else: damaged."""

    @property
    def held(self) -> bool:
        """Whether a hold is on it."""

    @property
    def leased(self) -> bool:
        """Whether some run is writing, reading or deleting it now."""

    @property
    def size(self) -> int | None:
        """Bytes; None where unknown."""


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Decision(Generic[E]):
    """What happens to a backup, and why: every rule that keeps it, or why none does."""

    backup: E
    keep: bool
    reasons: list[str]


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
            return _EVER


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
    :param group_by: what is judged alone: empty = all together; ``prefix`` = by the name without its date and digest, so one
        group per task with default names; else a regular expression whose one group is searched in the name. A name that
        it does not find stays.
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
        counts = {f"keep_{rule}": self.count(rule) for rule in ("last", *(rule for rule, _ in _BUCKETS))}
        _check_count("min_count", self.min_count)
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


def plan(catalog: Iterable[E], policy: RetentionPolicy, now: dt.datetime) -> list[Decision[E]]:
    """Return what stays and what goes, newest first; backups that the policy is not about are not in it.

    The order of the catalog does not matter. Raises ConfigError if ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise ConfigError(f"now {now.isoformat()} has no time zone; use an aware time such as datetime.now(timezone.utc)")
    now = now.astimezone(dt.timezone.utc)
    groups: dict[str | None, list[E]] = {}
    for entry in catalog:
        if policy.covers(entry.name):
            groups.setdefault(policy.group(entry.name), []).append(entry)
    decisions = [Decision(entry, True, ["group_by finds no group in its name"]) for entry in groups.pop(None, [])]
    for entries in groups.values():
        decisions += _judge(entries, policy, now)
    # Sorting is stable: names decide between equal times, and unknown times are the oldest.
    decisions.sort(key=lambda decision: decision.backup.name)
    decisions.sort(key=lambda decision: _time(decision.backup) or _EVER, reverse=True)
    return decisions


def table(decisions: Sequence[Decision[E]]) -> list[str]:
    """Return the lines that a dry run and a real run print alike: name, time in UTC, size, keep or remove, and why."""
    sizes = ["?" if item.backup.size is None else report.size(item.backup.size) for item in decisions]
    width = max(map(len, sizes), default=0)
    rows = [
        (item.backup.name, _shown(item.backup), size.rjust(width), "keep" if item.keep else "remove", "; ".join(item.reasons))
        for item, size in zip(decisions, sizes, strict=True)
    ]
    return report.table(("backup", "time (UTC)", "size", "", "why"), rows, names=5)


def _judge(entries: list[E], policy: RetentionPolicy, now: dt.datetime) -> list[Decision[E]]:
    counted = [time for entry in entries if entry.state == COMPLETE and not entry.leased and (time := _time(entry)) and time <= now]
    counted.sort(reverse=True)
    kept = _kept(counted, policy) if counted else {}
    newest = counted[0] if counted else None
    decisions = []
    for entry in entries:
        reasons, gone = _protected(entry, now), "no rule keeps it"
        time = _time(entry)
        if entry.state == COMPLETE and time:
            reasons += kept.get(time, [])
        elif entry.state == UNFINISHED and time and time <= now:
            reasons += _unfinished(time, newest, policy)
            gone = f"unfinished, and older than the newest complete backup by more than {policy.grace}"
        decisions.append(Decision(entry, bool(reasons), reasons or [gone]))
    return decisions


def _kept(times: list[dt.datetime], policy: RetentionPolicy) -> dict[dt.datetime, list[str]]:
    """Return the times of backups that stay, with the rules that keep them.

    :param times: of all that count, newest first; at least one
    """
    kept: dict[dt.datetime, list[str]] = {}
    zone = policy.zone
    for time, place in _places(times, policy.count("last")).items():
        kept.setdefault(time, []).append(f"last {place}/{policy.keep_last}")
    for rule, bucket in _BUCKETS:
        count = policy.count(rule)
        newest: dict[object, dt.datetime] = {}
        for time in times if count else ():
            newest.setdefault(bucket(time.astimezone(zone)), time)
        for place, time in enumerate(list(newest.values())[:count], 1):
            kept.setdefault(time, []).append(f"{rule} {place}/{count}")
        if len(newest) < count and times[-1] not in newest.values():
            kept.setdefault(times[-1], []).append(f"{rule} {len(newest) + 1}/{count}, the oldest")
    if policy.keep_within is not None:
        begin = Duration.parse(policy.keep_within, "keep_within").before(times[0], zone)
        for time in {time for time in times if time >= begin}:
            kept.setdefault(time, []).append(f"within {policy.keep_within} of the newest")
    for time, place in _places(times, policy.min_count).items():
        kept.setdefault(time, [f"min_count {place}/{policy.min_count}"])
    return kept


def _places(times: list[dt.datetime], count: int) -> dict[dt.datetime, int]:
    """Return the ``count`` newest times with their places; equal times share one, and whoever else has them stays as well."""
    places: dict[dt.datetime, int] = {}
    for place, time in enumerate(times[:count], 1):
        places.setdefault(time, place)
    return places


def _protected(entry: Entry, now: dt.datetime) -> list[str]:
    time = _time(entry)
    causes = {
        "on hold": entry.held,
        "in use": entry.leased,
        "its time is unknown": time is None,
        "its time is in the future": time is not None and time > now,
        f"{entry.state}: never removed by a policy": entry.state not in {COMPLETE, UNFINISHED},
    }
    return [cause for cause, applies in causes.items() if applies]


def _unfinished(time: dt.datetime, newest: dt.datetime | None, policy: RetentionPolicy) -> list[str]:
    if newest is None or time >= newest:
        return ["unfinished, and no newer backup is complete"]
    if time >= Duration.parse(policy.grace, "grace").before(newest, policy.zone):
        return [f"unfinished, not older than the newest complete backup by more than {policy.grace}"]
    return []


def _time(entry: Entry) -> dt.datetime | None:
    """Return the backup's time in UTC, None where there is none to rely on."""
    # Two times of one zone compare by their wall clocks, and without a zone there is nothing to compare.
    if entry.time is None or entry.time.tzinfo is None:
        return None
    try:
        time = entry.time.astimezone(dt.timezone.utc)
    except OverflowError:
        return None
    return time if time >= _MILVUS_BEGAN else None


def _shown(entry: Entry) -> str:
    time = _time(entry)
    return time.strftime("%Y-%m-%d %H:%M:%S") if time else "unknown"


def _check_count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{name} {value!r} is not a count; use a whole number that is not negative")
    return value
