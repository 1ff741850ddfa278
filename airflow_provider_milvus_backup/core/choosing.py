"""Which backup is meant by ``latest``, ``random:30d`` or a name: pure functions over what the catalog shows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timezone

from .catalog_entry import COMPLETE, CatalogEntry
from .errors import BackupDamaged, BackupInUse, BackupNotFound, ConfigError
from .names import check_backup_name
from .report import counted, listed
from .retention_policy import Duration

LATEST, RANDOM = "latest", "random"


def check_choice(which: str) -> str:
    """Return ``which`` if it is ``latest``, ``random:<time span>`` or can be the name of a backup, else raise ConfigError.

    Backups whose own names are ``latest`` or ``random`` cannot be named.
    """
    kind, colon, _ = which.partition(":") if isinstance(which, str) else ("", "", "")
    if kind != RANDOM:
        return check_backup_name(which)
    if not colon or _span(which) == Duration():
        raise ConfigError(f"backup_name {which!r} does not say of which time; write `random:30d` for any one of the last 30 days")
    return which


def choose(entries: Sequence[CatalogEntry], which: str, now: datetime, rng: random.Random) -> CatalogEntry:
    """Return the backup that ``which`` means, a complete one.

    :param entries: the backups of the catalog, in any order
    :param which: ``latest``: the newest complete one; ``random:30d``: any complete one of the last 30 days, all equally likely, where
        the span is written as in ``keep_within``; else the name of one
    :param now: the store's clock, from which a span looks back; its days and months are those of UTC
    :param rng: chooses; the same seed and the same backups give the same one
    :raises ConfigError: ``which`` is none of these
    :raises BackupNotFound: there is none; the message says what there is
    :raises BackupDamaged: the named one is not complete; the message says why
    """
    check_choice(which)
    complete = sorted((entry for entry in entries if entry.state == COMPLETE), key=_order)
    if which == LATEST:
        if complete:
            return complete[-1]
        raise BackupNotFound(f"no backup is complete, so none is the latest; {_what_there_is(entries)}")
    if which.startswith(f"{RANDOM}:"):
        since = _span(which).before(now, timezone.utc)
        inside = [entry for entry in complete if entry.time and entry.time >= since]
        if inside:
            return rng.choice(inside)
        raise BackupNotFound(f"{which!r}: no backup is complete and of {_text(since)} or later; {_what_there_is(entries)}")
    for entry in entries:
        if entry.name == which:
            if entry.state == COMPLETE:
                return entry
            raise BackupDamaged(f"backup {which!r} is {entry.state}, so it cannot be relied on: {entry.reason or 'no reason is known'}")
    raise BackupNotFound(f"there is no backup {which!r}; {_what_there_is(entries)}")


def gone(error: BackupNotFound, name: str) -> BackupInUse:
    """Return the error for a backup that was chosen and is gone, as when retention has removed it: a retry chooses another."""
    return BackupInUse(f"backup {name!r} was chosen, and deleted before anything could be done with it; try again ({error})")


def _order(entry: CatalogEntry) -> tuple[datetime, str]:
    return entry.time or datetime.min.replace(tzinfo=timezone.utc), entry.name


def _span(which: str) -> Duration:
    return Duration.parse(which.partition(":")[2], "the time span of backup_name")


def _what_there_is(entries: Sequence[CatalogEntry]) -> str:
    """Return ``there are 2 backups: b (complete, 2027-01-31T00:00:00+00:00), …``, the newest first."""
    if not entries:
        return "there are no backups at all"
    newest_first = sorted(entries, key=_order, reverse=True)
    shown = [f"{entry.name} ({', '.join((entry.state, *([_text(entry.time)] if entry.time else [])))})" for entry in newest_first]
    return f"there {'is' if len(shown) == 1 else 'are'} {counted(len(shown), 'backup')}: {listed(shown)}"


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
