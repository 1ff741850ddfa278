"""Backup names, collection selection and rename rules: pure functions."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .errors import ConfigError

DEFAULT_DATABASE = "default"
MAX_BACKUP_NAME = 128
_BACKUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MILVUS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,254}")
MAX_COLLECTION_NAME = 255
_BUILDING = "__restore_"
_BUILDING_NAME = re.compile(rf"{_BUILDING}([0-9a-f]{{16}})(?:_[0-9]+|_old)?$")
_RESTORE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SUFFIX = re.compile(r"[A-Za-z0-9_]+")


class CollectionName(NamedTuple):
    """A collection and the database it lives in."""

    database: str
    collection: str

    def __str__(self) -> str:
        return f"{self.database}.{self.collection}"


def check_backup_name(name: str) -> str:
    """Return ``name`` if the official tool accepts it too (letters, digits, ``_``; at most 128), else raise ConfigError."""
    if not isinstance(name, str) or not _BACKUP_NAME.fullmatch(name) or len(name) > MAX_BACKUP_NAME:
        raise ConfigError(
            f"backup name {name!r} is not valid: it must start with a letter or underscore, contain only letters, "
            f"digits and underscores, and have at most {MAX_BACKUP_NAME} characters"
        )
    return name


def task_name(dag_id: str, run_id: str, task_id: str, map_index: int, date: str | None, *, whole_second: bool) -> str:
    """Return the backup name of one task instance: always the same for it, and never that of another.

    ``date`` is the run's date as ``20261122T020000``, None where the run has none. The readable form
    ``<dag>_<date>_<task>[_<map index>]`` stands alone only where nothing was lost in making it: the ids are plain, the date is
    exact (``whole_second``) and the run is a scheduled one. Otherwise twelve characters of a digest of the task instance's
    identity follow.
    """
    parts = [dag_id, *([date] if date else []), task_id, *([str(map_index)] if map_index >= 0 else [])]
    readable = re.sub(r"\W", "_", "_".join(parts), flags=re.ASCII)
    # An underscore inside an id could be a separator of another task's name: `a_b` + `c` against `a` + `b_c`.
    # The date is a separator that ids do not look like, so two parts around a date are unambiguous.
    plain = (
        date is not None
        and whole_second
        and run_id.startswith("scheduled__")
        and re.sub(r"\D", "", run_id)[:14] == re.sub(r"\D", "", date)
        and re.fullmatch(r"[A-Za-z_]\w*", dag_id, re.ASCII)
        and re.fullmatch(r"\w+", task_id, re.ASCII)
        and not re.search(r"\d{8}T\d{6}", dag_id + "_" + task_id)
        and not (map_index < 0 and re.search(r"_\d+$", task_id))
        and len(readable) <= MAX_BACKUP_NAME
    )
    if plain:
        return readable
    digest = hashlib.sha256("\0".join([dag_id, run_id, task_id, str(map_index)]).encode()).hexdigest()[:12]
    if not re.match(r"[A-Za-z_]", readable):
        readable = f"_{readable}"
    return f"{readable[: MAX_BACKUP_NAME - 13]}_{digest}"


def restore_id(task: Sequence[str], run: str) -> str:
    """Return the id of a task instance's restore: the same for every try of it; its first half is the same for every run of the task.

    :param task: dag id, task id, map index
    """
    first, second = ("\0".join(task), run)
    return hashlib.sha256(first.encode()).hexdigest()[:8] + hashlib.sha256(f"{first}\0{second}".encode()).hexdigest()[:8]


def check_restore_id(text: str) -> str:
    """Return ``text`` if it can be the id of a restore, else raise ConfigError."""
    if not _RESTORE_ID.fullmatch(text):
        raise ConfigError(f"restore_id {text!r} is not valid: letters, digits, `_` and `-`, at most 64")
    return text


def short_id(text: str) -> str:
    """Return the sixteen hexadecimal digits that stand for a restore's id in names of collections and staging directories."""
    return text if re.fullmatch(r"[0-9a-f]{16}", text) else hashlib.sha256(text.encode()).hexdigest()[:16]


def building_name(name: CollectionName, restore: str, generation: int = 0) -> CollectionName:
    """Return the name under which a restore builds a collection; it gets its own name when it is complete.

    :param restore: the restore's id
    :param generation: how often this restore has begun the collection anew
    """
    return _marked(name, short_id(restore) + (f"_{generation}" if generation else ""))


def replaced_name(name: CollectionName, restore: str) -> CollectionName:
    """Return the name under which a collection waits to be dropped, for the moment in which a restore replaces it."""
    return _marked(name, f"{short_id(restore)}_old")


def _marked(name: CollectionName, mark: str) -> CollectionName:
    ending = _BUILDING + mark
    return name._replace(collection=name.collection[: MAX_COLLECTION_NAME - len(ending)] + ending)


def restore_of(name: CollectionName) -> str:
    """Return the short id of the restore that builds this collection, or waits to drop it; empty for any other collection."""
    match = _BUILDING_NAME.search(name.collection)
    return match[1] if match else ""


def is_built_for(name: CollectionName, target: CollectionName) -> bool:
    """Return whether ``name`` is what some restore builds, or waits to drop, for this target."""
    begin, mark, _ = name.collection.rpartition(_BUILDING)
    return (
        bool(mark and restore_of(name))
        and name.database == target.database
        and begin == target.collection[: len(begin)]
        and (begin == target.collection or len(name.collection) == MAX_COLLECTION_NAME)
    )


def parse_selection(selection: str | Sequence[str] | None) -> list[str]:
    """Return the selection as a list of patterns; a string is split at commas. Nothing means everything.

    Raises ConfigError for anything that is not ``coll``, ``db.coll`` or ``db.*``.
    """
    if selection is None:
        return []
    if not isinstance(selection, (str, list, tuple, set)) or not all(isinstance(pattern, str) for pattern in selection):
        raise ConfigError(f"collections {selection!r} is neither a list of names nor a text with commas")
    patterns = selection.split(",") if isinstance(selection, str) else list(selection)
    cleaned = [pattern.strip() for pattern in patterns]
    if not isinstance(selection, str) and any(not pattern for pattern in cleaned):
        raise ConfigError("collections contains an empty name; use `coll`, `db.coll` or `db.*`")
    cleaned = [pattern for pattern in cleaned if pattern]
    for pattern in cleaned:
        _split(pattern, "collections")
    return cleaned


def select(available: Iterable[CollectionName], patterns: Sequence[str], default_database: str = DEFAULT_DATABASE) -> list[CollectionName]:
    """Return what the patterns pick from ``available``, in its order; no patterns pick everything.

    Raises ConfigError that names a pattern which picks nothing, with the nearest names that exist.
    """
    everything = list(available)
    if not patterns:
        return everything
    picked: set[CollectionName] = set()
    for pattern in patterns:
        database, collection = _split(pattern, "collections")
        database = database or default_database
        if collection == "*":
            if not any(name.database == database for name in everything):
                raise ConfigError(f"collections: {pattern!r} matches nothing: {_no_database(database, everything)}")
            picked.update(name for name in everything if name.database == database)
        else:
            name = CollectionName(database, collection)
            if name not in everything:
                raise ConfigError(f"collections: {name} does not exist{_nearest(str(name), map(str, everything))}")
            picked.add(name)
    return [name for name in everything if name in picked]


def targets(
    sources: Sequence[CollectionName],
    suffix: str | None = None,
    rename: Mapping[str, str] | None = None,
    default_database: str = DEFAULT_DATABASE,
) -> dict[CollectionName, CollectionName]:
    """Return the name each source is restored under.

    ``rename`` maps ``a`` to ``b``, ``db1.a`` to ``db2.b`` or ``db1.*`` to ``db2.*``; an exact rule wins over a ``*`` rule.
    Raises ConfigError for suffix together with rename, rules of unlike shape, rules that apply to nothing, names that Milvus
    would refuse, and two sources with one target.
    """
    if rename and not isinstance(rename, Mapping):
        raise ConfigError(f"rename {rename!r} is not a mapping of old to new names")
    if suffix and rename:
        raise ConfigError(f"suffix {suffix!r} and rename {dict(rename)!r} exclude each other; write the suffix into the rename rules")
    if suffix and not (isinstance(suffix, str) and _SUFFIX.fullmatch(suffix)):
        raise ConfigError(f"suffix {suffix!r} is not valid: only letters, digits and underscores can follow a collection name")
    exact, databases = _rules(sources, rename or {}, default_database)
    result: dict[CollectionName, CollectionName] = {}
    owners: dict[CollectionName, CollectionName] = {}
    for source in sources:
        renamed = exact.get(source) or CollectionName(databases.get(source.database, source.database), source.collection)
        target = renamed._replace(collection=renamed.collection + (suffix or ""))
        for part in target:
            if not _MILVUS_NAME.fullmatch(part):
                raise ConfigError(f"{source} cannot be restored as {target}: {part!r} is not a name that Milvus accepts")
        if target in owners:
            raise ConfigError(f"{owners[target]} and {source} would both be restored as {target}; rename one of them elsewhere")
        result[source], owners[target] = target, source
    return result


def _rules(
    sources: Sequence[CollectionName], rename: Mapping[str, str], default_database: str
) -> tuple[dict[CollectionName, CollectionName], dict[str, str]]:
    exact: dict[CollectionName, CollectionName] = {}
    databases: dict[str, str] = {}
    for old, new in rename.items():
        if not (isinstance(old, str) and isinstance(new, str)):
            raise ConfigError(f"rename: {old!r} -> {new!r} is not a pair of names")
        (old_db, old_coll), (new_db, new_coll) = _split(old, "rename"), _split(new, "rename")
        if (old_coll == "*") != (new_coll == "*"):
            raise ConfigError(
                f"rename: {old!r} -> {new!r} mixes a database with a collection; use `db1.*` -> `db2.*` or `db1.a` -> `db2.b`"
            )
        source = CollectionName(old_db or default_database, old_coll)
        if source not in sources and not (old_coll == "*" and any(s.database == source.database for s in sources)):
            raise ConfigError(f"rename: {old!r} matches no collection of this restore{_nearest(str(source), map(str, sources))}")
        if source in exact or (old_coll == "*" and source.database in databases):
            raise ConfigError(f"rename: {source} is there twice; keep one rule for it")
        if old_coll == "*":
            databases[source.database] = new_db
        else:
            exact[source] = CollectionName(new_db or source.database, new_coll)
    return exact, databases


def _split(pattern: str, argument: str) -> tuple[str, str]:
    database, dot, collection = pattern.rpartition(".")
    if not (collection == "*" and dot) and not _MILVUS_NAME.fullmatch(collection):
        raise ConfigError(f"{argument}: {pattern!r} is not `coll`, `db.coll` or `db.*`")
    if dot and not _MILVUS_NAME.fullmatch(database):
        raise ConfigError(f"{argument}: {pattern!r} is not `coll`, `db.coll` or `db.*`")
    return database, collection


def _no_database(database: str, everything: Iterable[CollectionName]) -> str:
    existing = sorted({name.database for name in everything})
    return f"database {database!r} holds no collection{_nearest(database, existing)}"


def _nearest(name: str, existing: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(existing), n=3, cutoff=0.5)
    return f"; did you mean {', '.join(close)}?" if close else ""
