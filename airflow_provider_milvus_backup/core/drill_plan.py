"""What a drill will do: its options, which collections it takes, what it loads and what it checks. Pure functions over plain data."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import meta
from .choosing import LATEST, RANDOM, check_choice
from .drill_checks import CountCheck, SearchCheck, checked_names, parse_checks
from .errors import ConfigError
from .likeness import without_index
from .names import CollectionName, parse_selection, select, targets
from .patience import is_seconds
from .restore_plan import ALWAYS, NEVER, RestoreOptions, partitions_to_load


@dataclass(frozen=True, slots=True)
class DrillOptions:
    """How to drill.

    :param backup_name: ``latest``, ``random:30d`` (any one of that time span), or the name of a backup
    :param name_pattern: of which backups ``latest`` and ``random`` choose, by name, with ``*``, ``?`` and ``[…]``; all without one
    :param collections: which ones, by their name in the backup: ``coll``, ``db.coll``, ``db.*``; nothing means all
    :param sample: only so many of these, at random; those that checks are about are always among them
    :param seed: the same seed chooses the same backup and sample of the same ones; None is chance
    :param suffix: follows the name of every collection in the name under which it is restored
    :param database: restore into this database instead of those of the backup; it is created, and dropped again, where it is missing
    :param checks: what must be found, see :mod:`.drill_checks`
    :param load: load the collections ``always`` (those whose vectors have indexes), ``as_backed_up`` or ``never``; those that checks are
        about are always loaded
    :param max_shards: shards of a restored collection at most, where the other Milvus allows for fewer
    :param allow_downgrade: restore into an older line of Milvus than the backup was taken from
    :param max_seconds: the recovery time objective; a longer recovery fails
    """

    backup_name: str = LATEST
    name_pattern: str | None = None
    collections: str | Sequence[str] | None = None
    sample: int | None = None
    seed: str | int | None = None
    suffix: str = "_drill"
    database: str | None = None
    checks: Sequence[Mapping[str, Any]] = ()
    load: str = ALWAYS
    max_shards: int | None = None
    allow_downgrade: bool = False
    max_seconds: float | None = None

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used, as far as no backup is needed to tell."""
        check_choice(self.backup_name)
        if self.name_pattern is not None and not isinstance(self.name_pattern, str):
            raise ConfigError(f"name_pattern {self.name_pattern!r} is not a text; write one as in 'nightly_*', or leave it out")
        if self.name_pattern is not None and not self.chooses:
            raise ConfigError(
                f"name_pattern {self.name_pattern!r} says among which backups `latest` and `random` choose, and backup_name "
                f"{self.backup_name!r} is a name; leave one of them out"
            )
        parse_selection(self.collections)
        if self.seed is not None and not isinstance(self.seed, (str, int)):
            raise ConfigError(f"seed {self.seed!r} is neither a text nor a number; leave it out for chance")
        if self.sample is not None and (type(self.sample) is not int or self.sample < 1):
            raise ConfigError(f"sample {self.sample!r} is not a number of collections; give 1 or more, or leave it out for all")
        if not isinstance(self.suffix, str) or not self.suffix:
            raise ConfigError(f"suffix {self.suffix!r}: a drill needs one, to keep what it restores apart from the originals")
        name = CollectionName("default", "a")
        targets([name], self.suffix)
        if self.database is not None and not self.database:
            raise ConfigError("database '' is not the name of a database; leave it out to restore into those of the backup")
        if self.database is not None:
            targets([name], None, {"default.*": f"{self.database}.*"})
        RestoreOptions(load=self.load, max_shards=self.max_shards, allow_downgrade=self.allow_downgrade).check()
        if self.max_seconds is not None and not is_seconds(self.max_seconds):
            raise ConfigError(f"max_seconds {self.max_seconds!r} is not a number of seconds above 0")

    @property
    def chooses(self) -> bool:
        """Whether ``backup_name`` leaves open which backup it is."""
        return self.backup_name == LATEST or self.backup_name.startswith(f"{RANDOM}:")

    def rng(self) -> random.Random:
        """Return what chooses at random."""
        return random.Random(self.seed)  # noqa: S311 (a sample is no secret)


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """What a drill does with one backup.

    :param restore: how it restores; what is loaded, it decides by itself
    :param collections: what it restores, by name in the backup
    :param checks: what the user wants to be found
    :param load: by name in the backup, the partitions to load: None for the whole collection, an empty list for nothing
    :param unloaded: why collections that were to be loaded cannot be, in sentences
    """

    restore: RestoreOptions
    collections: dict[CollectionName, meta.Collection]
    checks: list[CountCheck | SearchCheck]
    load: dict[CollectionName, list[str] | None]
    unloaded: list[str]


def plan(options: DrillOptions, backup: meta.Backup, database: str, rng: random.Random) -> DrillPlan:
    """Return what to do with a backup.

    :param database: of names without one
    :raises ConfigError: collections or checks that do not fit the backup
    """
    by_name = {collection.name: collection for collection in backup.collections}
    chosen = select(by_name, parse_selection(options.collections), database)
    asked = checked_names(options.checks, chosen, database)
    if options.sample is not None:
        chosen = sample(chosen, options.sample, asked, rng)
    collections = {name: by_name[name] for name in chosen}
    checks = parse_checks(options.checks, collections, database)
    load, unloaded = _to_load(collections, options.load, asked)
    names: dict[str, Any] = {"suffix": options.suffix}
    if options.database is not None:
        names = {"rename": {str(name): f"{options.database}.{name.collection}{options.suffix}" for name in chosen}}
    return DrillPlan(
        RestoreOptions(
            collections=[str(name) for name in chosen],
            load=NEVER,
            max_shards=options.max_shards,
            allow_downgrade=options.allow_downgrade,
            **names,
        ),
        collections,
        checks,
        load,
        unloaded,
    )


def sample(names: Sequence[CollectionName], count: int, always: Sequence[CollectionName], rng: random.Random) -> list[CollectionName]:
    """Return ``count`` of the names, in their order: those of ``always``, and others at random; all when there are fewer."""
    others = [name for name in names if name not in always]
    drawn = rng.sample(others, max(0, min(len(others), count - len(always))))
    return [name for name in names if name in always or name in drawn]


def _to_load(
    collections: Mapping[CollectionName, meta.Collection], load: str, asked: Sequence[CollectionName]
) -> tuple[dict[CollectionName, list[str] | None], list[str]]:
    """Return what to load of each collection, and why some cannot be loaded."""
    found: dict[CollectionName, list[str] | None] = {}
    unloaded = []
    for name, collection in collections.items():
        missing = without_index(collection)
        if missing and name in asked:
            raise ConfigError(
                f"checks: {name} cannot be loaded, because field {missing[0]!r} has no index in the backup; leave its checks out, or "
                "create the index and back up again"
            )
        if missing and load == ALWAYS:
            unloaded.append(f"{name} is not loaded, so its rows are not counted: field {missing[0]!r} has no index in the backup")
        found[name] = [] if missing else None if name in asked else partitions_to_load(collection, load)
    return found, unloaded
