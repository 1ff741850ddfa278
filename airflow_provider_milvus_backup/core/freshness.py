"""Whether backups are as young as was promised: a pure function of the catalog, the collections in Milvus and the hour.

Every collection in Milvus is judged by the newest backup that counts and holds it, and its age by the store's clock:

- **What counts.** Complete backups with data. Not one that a wrong clock dated into the future, which would look fresh for as long as that
  clock was wrong (two stores' clocks may differ by a minute); not one whose last verification found damage; not one without a known time.
  What cannot be read does not count either. A lease changes nothing: a backup that is being restored is still there.
- **Levels.** Without one, complete is enough. ``objects``, ``checksums`` and ``binlogs``: the whole backup was verified that deeply or
  deeper, and was found well; a sample is not the whole. ``drill``: the last drill restored it well.
- **Fresh** is what is not older than ``max_age``, **late** what is. **Missing** is a collection that no backup holds. One that was created
  less than ``max_age`` ago is **new** instead: nothing of it is older than was promised, so there is nothing to page anybody for.
- Collections that only backups have were dropped, and are not judged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import report
from .catalog import newest_first
from .catalog_entry import COMPLETE, CatalogEntry
from .errors import BackupError, ConfigError
from .names import parse_selection
from .plan import META_ONLY
from .retention_policy import EVER, Duration
from .verification import LEVELS as VERIFICATIONS

FRESH, LATE, MISSING, NEW = "fresh", "late", "missing", "new"
DRILL = "drill"
LEVELS = (*VERIFICATIONS, DRILL)
#: How far into the future a backup may be dated: stores answer from several machines.
SKEW = dt.timedelta(minutes=1)
#: Backups older than ``max_age`` whose whole meta is read, to say how late a collection is.
DEEP = 10
#: Collections and warnings that are named at most.
MAX_NAMED, MAX_LISTED = 10, 100

#: Returns the collections of a backup whose entry does not name them; raises BackupError when it cannot be relied on.
Contents = Callable[[CatalogEntry], Collection[str]]


@dataclass(frozen=True)
class FreshnessPolicy:
    """What was promised. Raises ConfigError for what is no time span, an unknown level, and patterns that fit nothing.

    :param max_age: how old the newest backup of a collection may be: ``26h``, ``2d``, ``1w`` or a timedelta
    :param collections: ``coll``, ``db.coll``, ``db.*``; a list, or a string with commas; by default everything in Milvus
    :param level: what a backup must have gone through to count: ``objects``, ``checksums``, ``binlogs`` or ``drill``; None = complete
    :param name_pattern: the backups that count, by name: a glob with ``*``, ``?`` and ``[…]``
    """

    max_age: dt.timedelta | str
    collections: str | Sequence[str] | None = None
    level: str | None = None
    name_pattern: str = "*"

    def __post_init__(self) -> None:
        if self.span == Duration():
            raise ConfigError(f"max_age {self.max_age!r} is no time at all, and no backup is as young as that; name a span such as `26h`")
        if self.level is not None and self.level not in LEVELS:
            raise ConfigError(f"level {self.level!r} is not known; use one of {', '.join(LEVELS)}, or none: complete is enough")
        if not isinstance(self.name_pattern, str) or not self.name_pattern.strip():
            raise ConfigError(f"name_pattern {self.name_pattern!r} fits no name; `*` fits all of them")
        _ = self.patterns

    @property
    def span(self) -> Duration:
        """The time span that ``max_age`` is."""
        return Duration.parse(self.max_age, "max_age")

    @property
    def patterns(self) -> list[str]:
        """The selection of collections; empty = everything."""
        return parse_selection(self.collections)

    def due(self, now: dt.datetime) -> dt.datetime:
        """Return the moment before which nothing is fresh; days and months are those of UTC."""
        return self.span.before(now, dt.timezone.utc)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One collection: its status, and the newest backup that counts and holds it."""

    name: str
    status: str
    backup: str = ""
    time: dt.datetime | None = None
    #: Seconds since the backup; of one that no backup holds, since it was created. None = unknown.
    age: float | None = None
    #: Seconds above what was promised.
    late: float | None = None
    #: Why a newer backup of it does not count, or how far was looked.
    why: str = ""

    def __str__(self) -> str:
        more = f" ({self.why})" if self.why else ""
        if self.backup:
            late = f", {report.duration(self.late)} late" if self.late else ""
            return f"{self.name}: {report.duration(self.age or 0.0)} old in {self.backup!r}{late}{more}"
        created = "" if self.age is None else f", and it was created {report.duration(self.age)} ago"
        return f"{self.name}: no backup that counts holds it{created}{more}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "status": self.status,
            "backup": self.backup or None,
            "time": self.time and self.time.isoformat(timespec="seconds"),
            "age_seconds": self.age,
            "late_seconds": self.late,
            "why": self.why,
        }


@dataclass(frozen=True)
class FreshnessReport:
    """What :func:`judge` found, the worst first."""

    policy: FreshnessPolicy
    now: dt.datetime
    collections: list[Judgement]
    warnings: list[str] = field(default_factory=list)

    @property
    def fresh(self) -> bool:
        """Whether nothing is late and nothing is missing."""
        return not self.wanting

    @property
    def wanting(self) -> list[Judgement]:
        """What is late or missing."""
        return [one for one in self.collections if one.status in (LATE, MISSING)]

    @property
    def missing(self) -> list[str]:
        """The names of the collections that no backup holds."""
        return [one.name for one in self.collections if one.status == MISSING]

    @property
    def message(self) -> str:
        """A sentence that says who is late and by how much."""
        span = self.policy.max_age
        promised = f"backup of the last {span if isinstance(span, str) else report.duration(span.total_seconds())}{self._proven}"
        if wanting := self.wanting:
            named = "; ".join(map(str, wanting[:MAX_NAMED])) + (f"; and {len(wanting) - MAX_NAMED:,} more" if wanting[MAX_NAMED:] else "")
            return f"{len(wanting):,} of {report.counted(len(self.collections), 'collection')} without a {promised}: {named}"
        if not self.collections:
            return "there is no collection to judge"
        new = sum(one.status == NEW for one in self.collections)
        told = f"; {new:,} without one, created since" if new else ""
        oldest = next((f"; the oldest: {one}" for one in self.collections if one.status == FRESH), "")
        held = len(self.collections) - new
        return f"{held:,} of {report.counted(len(self.collections), 'collection')} with a {promised}{told}{oldest}"

    @property
    def _proven(self) -> str:
        level = self.policy.level
        return "" if level is None else ", restored by a drill" if level == DRILL else f", verified at level {level!r}"

    def table(self) -> list[str]:
        """Return the lines of a table of what is late, missing or new."""
        shown = [one for one in self.collections if one.status != FRESH][:MAX_LISTED]
        rows = [
            (
                one.name,
                one.status,
                one.backup or "-",
                one.time.strftime("%Y-%m-%d %H:%M:%S") if one.time else "-",
                "-" if one.age is None else report.duration(one.age),
                "-" if one.late is None else report.duration(one.late),
                one.why,
            )
            for one in shown
        ]
        return report.table(("collection", "", "newest backup", "time (UTC)", "age", "late by", "why"), rows, names=4) if rows else []

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON, small enough for XCom: the first hundred collections, the worst first."""
        counts = {status: sum(one.status == status for one in self.collections) for status in (FRESH, LATE, MISSING, NEW)}
        return {
            "fresh": self.fresh,
            "message": self.message,
            "time": self.now.isoformat(timespec="seconds"),
            "max_age": str(self.policy.max_age),
            "level": self.policy.level,
            "collection_count": len(self.collections),
            **{f"{status}_count": count for status, count in counts.items()},
            "collections": [one.to_dict() for one in self.collections[:MAX_LISTED]],
            "warnings": self.warnings,
        }


def judge(
    policy: FreshnessPolicy,
    entries: Iterable[CatalogEntry],
    live: Iterable[str],
    now: dt.datetime,
    contents: Contents,
    born: Mapping[str, dt.datetime] | None = None,
) -> FreshnessReport:
    """Return how fresh every collection is.

    :param entries: the backups, in any order
    :param live: the collections that are there, as ``db.coll``
    :param now: the store's clock
    :param contents: tells the collections of a backup that does not name them; asked from the newest backup on, until every collection
        has its own, and for no more than :data:`DEEP` backups that are too old anyway
    :param born: when collections were created, where that is known
    """
    due, unsettled = policy.due(now), dict.fromkeys(live)
    judged, why, warnings = list[Judgement](), dict[str, str](), list[str]()
    deep, skipped = 0, False
    for entry in newest_first(list(entries)):
        if not unsettled:
            break
        old = entry.time is not None and entry.time < due
        if refused := _refused(entry, policy.level, now):
            for name in unsettled.keys() & set(entry.collections or ()):
                why.setdefault(name, f"{entry.name!r} does not count: {refused}")
            # Of those that name no collection it is not known whether they would be missed.
            if not entry.collections and not old:
                warnings.append(f"backup {entry.name!r} does not count: {refused}")
            continue
        if entry.collections is None and old and deep == DEEP:
            skipped = True
            continue
        try:
            deep += entry.collections is None and old
            held = set(contents(entry) if entry.collections is None else entry.collections)
        except BackupError as error:
            warnings.append(f"backup {entry.name!r} does not count: {error}")
            continue
        counting = held & _drilled(entry, held) if policy.level == DRILL else held
        for name in unsettled.keys() & (held - counting):
            why.setdefault(name, f"{entry.name!r} does not count: its last drill left the collection out")
        for name in [name for name in unsettled if name in counting]:
            del unsettled[name]
            judged.append(_held(name, entry, due, now, why.get(name, "")))
    unseen = f"the collections of backups older than the {DEEP} newest late ones were not looked at" if skipped else ""
    for name in unsettled:
        judged.append(_unheld(name, (born or {}).get(name), due, now, why.get(name, unseen)))
    order = {MISSING: 0, LATE: 1, NEW: 2, FRESH: 3}
    judged.sort(key=lambda one: (order[one.status], -(one.late or 0.0), -(one.age or 0.0), one.name))
    return FreshnessReport(policy, now, judged, warnings[:MAX_NAMED])


def _refused(entry: CatalogEntry, level: str | None, now: dt.datetime) -> str:
    """Return why a backup does not count, empty when it does."""
    if entry.state != COMPLETE:
        return f"it is {entry.state}" + (f": {entry.reason}" if entry.reason else "")
    if entry.time is None:
        return "its time is unknown"
    if entry.time > now + SKEW:
        return f"it is dated {entry.time.isoformat(timespec='seconds')}, in the future"
    if entry.strategy == META_ONLY:
        return f"it holds no data ({META_ONLY})"
    verified: Mapping[str, Any] = entry.verified or {}
    if verified and not verified.get("ok"):
        return f"damage was found at level {verified.get('level')!r} on {verified.get('time')}"
    if level is None:
        return ""
    if level == DRILL:
        drilled: Mapping[str, Any] = entry.drilled or {}
        return "" if drilled.get("ok") else "its last drill failed" if drilled else "no drill has restored it"
    if not verified:
        return "it was not verified"
    if verified.get("sample"):
        return f"only a sample of it was verified ({verified['sample']})"
    done = verified.get("level")
    if done not in VERIFICATIONS or VERIFICATIONS.index(done) < VERIFICATIONS.index(level):
        return f"it was verified at level {done!r} only"
    return ""


def _drilled(entry: CatalogEntry, held: set[str]) -> set[str]:
    """Return the collections that the last drill has restored."""
    found = (entry.drilled or {}).get("collections")
    return held if found is None else set(found)


def _held(name: str, entry: CatalogEntry, due: dt.datetime, now: dt.datetime, why: str) -> Judgement:
    time = entry.time or EVER
    age, late = max(0.0, (now - time).total_seconds()), (due - time).total_seconds()
    if late > 0:
        return Judgement(name, LATE, entry.name, time, age, late, why)
    return Judgement(name, FRESH, entry.name, time, age, why=why)


def _unheld(name: str, born: dt.datetime | None, due: dt.datetime, now: dt.datetime, why: str) -> Judgement:
    if born is None:
        return Judgement(name, MISSING, why=why)
    age, late = max(0.0, (now - born).total_seconds()), (due - born).total_seconds()
    return Judgement(name, MISSING, age=age, late=late, why=why) if late > 0 else Judgement(name, NEW, age=age, why=why)
