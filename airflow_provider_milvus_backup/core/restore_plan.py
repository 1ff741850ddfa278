"""What a restore will do: options, jobs, and whether the backup's data is all there. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields

from . import layout, meta
from .capabilities import NEWEST, Capabilities, Capability, first_release, parse_version
from .errors import BackupDamaged, ConfigError, UnsupportedFormat, UnsupportedServer
from .jsonreader import Node
from .names import CollectionName, parse_selection
from .report import counted

FAIL, REPLACE, APPEND = "fail", "replace", "append"
IF_EXISTS = (FAIL, REPLACE, APPEND)
AS_BACKED_UP, ALWAYS, NEVER = "as_backed_up", "always", "never"
LOAD = (AS_BACKED_UP, ALWAYS, NEVER)

#: Version 3 keeps data behind manifests, of which a list of binlogs says nothing.
NEWEST_STORAGE = 2


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore.

    :param collections: which ones, by their name in the backup: ``coll``, ``db.coll``, ``db.*``; nothing means all
    :param suffix: follows every collection's name
    :param rename: ``a`` → ``b``, ``db1.a`` → ``db2.b``, ``db1.*`` → ``db2.*``
    :param if_exists: what to do with a target that exists: ``fail``, ``replace`` (drop it first) or ``append``
    :param restore_indexes: create the indexes of the backup
    :param load: load the collections ``as_backed_up``, ``always`` or ``never``
    :param restore_aliases: point the aliases of the backup at the restored collections
    :param meta_only: create collections and indexes without data
    :param max_shards: shards of a restored collection at most
    :param cut_at_flush: leave out rows that were written after the flush of the backup; other writers' flushes may have brought some along
    :param restore_rbac: create users, roles, grants and privilege groups of the backup that are missing
    :param allow_downgrade: restore into an older line of Milvus than the backup was taken from
    """

    collections: str | Sequence[str] | None = None
    suffix: str | None = None
    rename: Mapping[str, str] | None = field(default=None)
    if_exists: str = FAIL
    restore_indexes: bool = True
    load: str = AS_BACKED_UP
    restore_aliases: bool = False
    meta_only: bool = False
    max_shards: int | None = None
    cut_at_flush: bool = False
    restore_rbac: bool = False
    allow_downgrade: bool = False

    def to_text(self) -> str:
        """Return the options as text; equal options give equal texts."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        rename = None if self.rename is None else dict(self.rename)
        return json.dumps({**given, "collections": parse_selection(self.collections), "rename": rename}, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> RestoreOptions:
        """Return the options that :meth:`to_text` wrote; raises BackupDamaged for anything else."""
        node = Node.parse(text.encode(), "the restore's options")
        try:
            options = cls(**node.value)
            options.check()
        except (TypeError, ConfigError) as error:
            raise BackupDamaged(f"the restore's options cannot be used: {error}") from None
        return options

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used or exclude each other."""
        for one in fields(self):
            if isinstance(one.default, bool) and not isinstance(value := getattr(self, one.name), bool):  # a text is true, whatever it says
                raise ConfigError(f"{one.name} {value!r} is neither True nor False; it is not a template")
        if self.if_exists not in IF_EXISTS:
            raise ConfigError(f"if_exists {self.if_exists!r} is not one of {', '.join(IF_EXISTS)}")
        if self.load not in LOAD:
            raise ConfigError(f"load {self.load!r} is not one of {', '.join(LOAD)}")
        if self.load == ALWAYS and not self.restore_indexes:
            raise ConfigError("load 'always' needs restore_indexes: Milvus loads no collection whose vectors have no index")
        if self.max_shards is not None and (type(self.max_shards) is not int or self.max_shards < 1):
            raise ConfigError(f"max_shards {self.max_shards!r} is not a number of shards; give 1 or more, or leave it out")


def check_server(
    backup: meta.Backup, collections: Sequence[meta.Collection], capabilities: Capabilities, *, allow_downgrade: bool = False
) -> None:
    """Raise UnsupportedServer, or UnsupportedFormat, for what this Milvus could not restore rightly.

    A backup goes into a Milvus of the same line (2.5, say) or a newer one: what an older one makes of the files is not known to anybody.

    :param allow_downgrade: try all the same, as far as this package knows nothing that speaks against it
    """
    taken, here = parse_version(backup.server_version) if backup.server_version else None, capabilities.release
    if taken and taken != NEWEST and taken[:2] > here[:2] and not allow_downgrade:
        raise UnsupportedServer(
            f"backup {backup.name!r} was taken from Milvus {backup.server_version}, and this is the older Milvus {capabilities.version}. "
            "Restore into the same line or a newer one, or say allow_downgrade=True if you know that it works for this data"
        )
    for collection in collections:
        for segment in collection.segments():
            if segment.storage_version > NEWEST_STORAGE:
                raise UnsupportedFormat(
                    f"backup {backup.name!r} holds segments of {collection.name} in storage version {segment.storage_version}; only "
                    f"versions up to {NEWEST_STORAGE} are kept in binlogs that can be imported"
                )
            if segment.storage_version > 1 and not capabilities.has(Capability.STORAGE_V2):
                raise UnsupportedServer(
                    f"backup {backup.name!r} of Milvus {backup.server_version} holds {collection.name} in storage version "
                    f"{segment.storage_version}, which Milvus {capabilities.version} cannot read. Restore into Milvus "
                    f"{first_release(Capability.STORAGE_V2)} or newer"
                )


def expected_objects(collection: meta.Collection, binlogs: str) -> Iterator[tuple[str, int]]:
    """Iterate over (key, size) of all objects of a collection below the ``binlogs/`` prefix."""
    for s in collection.segments():
        for kind, logs in ((layout.INSERT, s.inserts), (layout.DELTA, s.deltas)):
            base = layout.segment_dir(binlogs, kind, collection.collection_id, s.partition_id, s.group_id, s.segment_id)
            for field_logs in logs:
                for log in field_logs.logs:
                    yield (f"{base}{field_logs.field_id}/{log.log_id}" if kind == layout.INSERT else f"{base}{log.log_id}"), log.size


def check_objects(collection: meta.Collection, binlogs: str, there: Mapping[str, int]) -> set[str]:
    """Compare what is there with the meta; return the keys that the meta does not name.

    :param there: size by key of all objects of this collection
    :raises BackupDamaged: objects are missing or have another size
    """
    strays = set(there)
    wrong = []
    for key, size in expected_objects(collection, binlogs):
        strays.discard(key)
        if there.get(key) != size:
            wrong.append(f"{key} ({'missing' if key not in there else f'{there[key]:,} bytes instead of {size:,}'})")
    if wrong:
        more = f" and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
        raise BackupDamaged(
            f"{collection.name} cannot be restored: {counted(len(wrong), 'object')} of this backup {'is' if len(wrong) == 1 else 'are'} "
            "missing or of another size. A verification says what of it still restores; restore that, or an older backup. "
            f"Found: {', '.join(wrong[:3])}{more}"
        )
    return strays


def partitions_to_load(collection: meta.Collection, load: str) -> list[str] | None:
    """Return which partitions to load at the end: None for the whole collection, an empty list for nothing."""
    if load == ALWAYS:
        return None
    if load == NEVER or collection.load_state not in ("Loaded", "Loading"):
        return []
    loaded = [partition.name for partition in collection.partitions if partition.load_state in ("Loaded", "Loading")]
    # Some versions of the official tool record the state of the collection alone.
    return None if not loaded or len(loaded) == len(collection.partitions) else loaded


def alias_targets(collections: Sequence[tuple[meta.Collection, CollectionName]]) -> dict[tuple[str, str], CollectionName]:
    """Return ``{(database, alias): target}``; raises ConfigError when one alias would point at two collections."""
    aliases: dict[tuple[str, str], CollectionName] = {}
    for collection, target in collections:
        for alias in collection.aliases:
            key = (target.database, alias)
            if key in aliases:
                raise ConfigError(
                    f"alias {alias!r} would point at both {aliases[key]} and {target}; restore them separately or without aliases"
                )
            aliases[key] = target
    return aliases
