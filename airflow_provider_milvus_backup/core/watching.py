"""Looking whether backups are as young as was promised: what :mod:`.freshness` judges, read from the store and from Milvus.

One look costs what the catalog costs and a listing of Milvus's collections. Whole metas are read of backups of the official tool alone,
from the newest on, until every collection has its backup; what a backup holds never changes, so each is read once. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timezone

from .catalog import describe, read_catalog
from .catalog_entry import COMPLETE, OFFICIAL, CatalogEntry
from .errors import BackupDamaged, BackupError, ServerError, ServerUnreachable
from .freshness import FreshnessPolicy, FreshnessReport, judge
from .names import CollectionName, restore_of, select
from .raw_schema import is_external
from .report import Reporter, counted
from .server import MilvusServer
from .store import ObjectStore

#: What backups hold, by their names and ids.
Remembered = dict[tuple[str, str], Collection[str]]


class Watch:
    """One promise about the backups of one Milvus.

    :param database: of collections that are named without one
    :param remembered: what earlier looks have read; this one adds to it
    """

    def __init__(
        self,
        store: ObjectStore,
        server: MilvusServer,
        policy: FreshnessPolicy,
        database: str,
        reporter: Reporter,
        remembered: Remembered | None = None,
    ) -> None:
        self.store, self.server, self.policy, self.database, self.reporter = store, server, policy, database, reporter
        self.remembered: Remembered = {} if remembered is None else remembered
        self._warnings: list[str] = []
        #: Those that could not be relied on in this look.
        self._broken: dict[tuple[str, str], BackupError] = {}

    def look(self) -> FreshnessReport:
        """Look once, and tell the log what is late.

        :raises ConfigError: a selected collection does not exist
        :raises ServerError: Milvus does not say which collections there are, and they are not all named either
        :raises StorageError: the backups cannot be listed
        """
        self._warnings.clear()
        self._broken.clear()
        live, away = self._live()
        catalog = read_catalog(self.store, self.policy.name_pattern)
        found = judge(self.policy, catalog.entries, map(str, live), catalog.now, self._contents)
        missing = set(found.missing)
        if missing and not away:
            born, gone = self._born(name for name in live if str(name) in missing)
            there = [str(name) for name in live if name not in gone]
            found = judge(self.policy, catalog.entries, there, catalog.now, self._contents, born)
        found.warnings[:0] = self._warnings
        self._tell(found)
        return found

    def _live(self) -> tuple[list[CollectionName], bool]:
        """Return the selected collections, and whether Milvus is away, so that they are only what the selection names."""
        patterns = self.policy.patterns
        try:
            available = [CollectionName(d, c) for d in self.server.databases() for c in self.server.collections(d)]
        except ServerError as error:
            away = isinstance(error, ServerUnreachable) or error.passing
            if not (away and patterns) or any(pattern.endswith("*") for pattern in patterns):
                raise
            self._warnings.append(f"the backups alone are judged, for Milvus does not say whether the collections are there: {error}")
            parts = ((pattern.rpartition(".")[0] or self.database, pattern.rpartition(".")[2]) for pattern in patterns)
            return list(dict.fromkeys(CollectionName(*part) for part in parts)), True
        chosen = select(available, patterns, self.database)
        # As for a backup: these are not anybody's collections yet.
        return [name for name in chosen if not restore_of(name) or {str(name), name.collection} & set(patterns)], False

    def _born(self, names: Iterable[CollectionName]) -> tuple[dict[str, datetime], set[CollectionName]]:
        """Return when collections were created, and those that a backup cannot hold: external ones, and those dropped meanwhile."""
        born, gone = dict[str, datetime](), set[CollectionName]()
        for name in names:
            self.store.patience.check("the ages of collections without a backup were looked at")
            try:
                described = self.server.describe(name)
            except ServerError as error:
                if not self.server.not_found(error):
                    raise
                gone.add(name)
                continue
            if is_external(described):
                gone.add(name)
            elif described.created_timestamp:
                # Milvus's timestamps are milliseconds, shifted by the bits of a counter.
                born[str(name)] = datetime.fromtimestamp((described.created_timestamp >> 18) / 1000, timezone.utc)
        return born, gone

    def _contents(self, entry: CatalogEntry) -> Collection[str]:
        key = entry.name, entry.backup_id
        if key in self._broken:
            raise self._broken[key]
        if key not in self.remembered:
            try:
                self.remembered[key] = self._read(entry)
            except BackupError as error:
                self._broken[key] = error
                raise
        return self.remembered[key]

    def _read(self, entry: CatalogEntry) -> Collection[str]:
        found = describe(self.store, entry.name)
        if found["state"] != COMPLETE or found["collection_names"] is None or found["backup_id"] != entry.backup_id:
            raise BackupDamaged(found["reason"] or "it was replaced while it was looked at")
        if entry.tool == OFFICIAL and not found["objects"]:
            raise BackupDamaged("it holds no data; milvus-backup does not record whether it was made without (meta_only)")
        return frozenset(found["collection_names"])

    def _tell(self, found: FreshnessReport) -> None:
        for warning in found.warnings:
            self.reporter.warn(warning)
        for line in found.table():
            self.reporter.line(line)
        (self.reporter.line if found.fresh else self.reporter.warn)(found.message)
        self.reporter.line(f"looked at {counted(len(found.collections), 'collection')} as of {found.now.isoformat(timespec='seconds')}")
