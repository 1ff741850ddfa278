"""Which backups stay: a pure function of the catalog, a policy and the hour.

A policy sees the backups whose names fit its ``name_pattern``; others are not in its answer at all, so that two policies
over one backup root never meet. What it sees is split by ``group_by``, and every group is judged alone:

- **What counts.** Complete backups that nobody leases and in which the last verification, if any, found no damage, with a known
  time that is not in the future. A leased one may be about to be deleted; one that a wrong clock dated into the future would
  push all others out of ``keep_within``. Backups without data (of schemas alone, or of a Milvus that had lost everything) are
  judged apart from those with data, so that they push none of them out. A hold changes the fate of the backup it is on and of no
  other: held backups take the places they would take without it (as in Barman and restic).
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
  (a newer format, a permission that is missing today), and of one that a verification found damaged the rest may be all there
  is; so a person decides.
- Whatever is held, locked by the store, leased, of unknown time or dated in the future stays. A lock takes a place as a hold does.

Times are compared in UTC; days, weeks, months and years are those of the policy's time zone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from . import report
from .catalog_entry import COMPLETE, UNFINISHED
from .errors import ConfigError
from .retention_policy import EVER, Duration, RetentionPolicy, task_of

# Milvus was published in 2019. An earlier time is a zero that somebody recorded, or a clock that had been reset.
_MILVUS_BEGAN = dt.datetime(2019, 1, 1, tzinfo=dt.timezone.utc)
#: Rules, and what the local times of two backups of the same hour, day, ... have in common.
_BUCKETS: tuple[tuple[str, Callable[[dt.datetime], object]], ...] = (
    # The hour that a clock set back repeats is another hour.
    ("hourly", lambda local: (local.date(), local.hour, local.utcoffset())),
    ("daily", lambda local: local.date()),
    ("weekly", lambda local: local.isocalendar()[:2]),
    ("monthly", lambda local: (local.year, local.month)),
    ("yearly", lambda local: local.year),
)


class Entry(Protocol):
    """What retention has to know of a backup; the entries of the catalog have it."""

    @property
    def name(self) -> str:
        """The backup name."""

    @property
    def time(self) -> dt.datetime | None:
        """When it was made, or the last sign of life of an unfinished one; with a time zone. None where unknown."""

    @property
    def state(self) -> str:
        """``complete``, ``unfinished`` or anything else: damaged."""

    @property
    def found_damaged(self) -> bool:
        """Whether the last verification found damage."""

    @property
    def without_data(self) -> bool:
        """Whether it is complete and holds no rows."""

    @property
    def held(self) -> bool:
        """Whether a hold is on it."""

    @property
    def lock(self) -> str:
        """What the store keeps it by, as in ``locked until 2027-01-31 00:00 (GOVERNANCE)``; empty where it does not, as far as is known."""

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


def plan(catalog: Iterable[E], policy: RetentionPolicy, now: dt.datetime) -> list[Decision[E]]:
    """Return what stays and what goes, newest first; backups that the policy is not about are not in it.

    The order of the catalog does not matter. Raises ConfigError if ``now`` has no time zone.
    """
    if now.tzinfo is None:
        raise ConfigError(f"now {now.isoformat()} has no time zone; use an aware time such as datetime.now(timezone.utc)")
    groups: dict[tuple[str, bool], list[E]] = {}
    decisions: list[Decision[E]] = []
    for entry in catalog:
        if not policy.covers(entry.name):
            continue
        if (group := policy.group(entry.name)) is None:
            decisions.append(Decision(entry, True, ["group_by finds no group in its name"]))
        else:
            groups.setdefault((group, entry.without_data), []).append(entry)
    for (_, apart), entries in groups.items():
        judged = _judge(entries, policy, now)
        decisions += [replace(one, reasons=[*one.reasons, "without data, so judged apart"]) for one in judged] if apart else judged
    # Sorting is stable: names decide between equal times, and unknown times are the oldest.
    decisions.sort(key=lambda decision: decision.backup.name)
    decisions.sort(key=lambda decision: _time(decision.backup) or EVER, reverse=True)
    return decisions


def check_kinds(catalog: Iterable[Entry], policy: RetentionPolicy) -> None:
    """Raise ConfigError where a policy without groups would weigh complete backups of several tasks, or of mapped ones, against each other.

    They hold different collections, so the newest of one task is no reason for those of another to go. Only names that this package has
    made tell of which task they are.
    """
    if policy.group_by:
        return
    kinds = sorted({kind for entry in catalog if policy.covers(entry.name) and entry.state == COMPLETE and (kind := task_of(entry.name))})
    if len(kinds) > 1:
        some = ", ".join(repr(kind) for kind in kinds[:3]) + (", …" if len(kinds) > 3 else "")
        raise ConfigError(
            f"name_pattern {policy.name_pattern!r} fits backups of {len(kinds):,} tasks ({some}), and without group_by the newest of one "
            "would push out those of another. Nothing was deleted: set group_by='prefix' to judge each task alone, or a narrower "
            "name_pattern; group_by='()' judges them all together"
        )


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
    whole = [entry for entry in entries if entry.state == COMPLETE and not entry.leased and not entry.found_damaged]
    counted = [time for entry in whole if (time := _time(entry)) and time <= now]
    counted.sort(reverse=True)
    kept = _kept(counted, policy) if counted else {}
    newest = counted[0] if counted else None
    decisions = []
    for entry in entries:
        reasons, gone = _protected(entry, now), "no rule keeps it"
        time = _time(entry)
        if entry.state == COMPLETE and time and not entry.found_damaged:
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
        entry.lock: bool(entry.lock),
        "in use": entry.leased,
        "its time is unknown": time is None,
        "its time is in the future": time is not None and time > now,
        f"{entry.state}: never removed by a policy": entry.state not in {COMPLETE, UNFINISHED},
        "damaged, as its last verification says: never removed by a policy": entry.found_damaged,
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
