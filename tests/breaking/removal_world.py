"""Small backups in a real S3, each with every object that its meta names, and what must be true of them wherever a deletion stops."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any

from airflow_provider_milvus_backup.core import layout
from airflow_provider_milvus_backup.core.catalog import read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import COMPLETE, FACTS, HOLD, MARK
from airflow_provider_milvus_backup.core.errors import BackupNotFound
from airflow_provider_milvus_backup.core.lease import Holding, Lease, Owner
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.report import Reporter
from airflow_provider_milvus_backup.core.restore_plan import expected_objects
from airflow_provider_milvus_backup.core.store import ObjectStore
from demo import servers
from tests.integration.clusters import VAULT, Lines, Listing, listing, location
from tests.official_backups import head_files, synthetic

READER = "0123456789abcdef"


@dataclass
class Vault:
    """One backup root of its own."""

    s3: servers.S3Server
    root: str

    @cached_property
    def store(self) -> ObjectStore:
        """The provider's view of it."""
        return ObjectStore(location(self.s3, VAULT, self.root))

    def directory(self, name: str) -> str:
        return f"{self.root}/{name}/"

    def there(self, name: str = "") -> Listing:
        """Return (size, ETag) of everything in a backup, or in the whole root."""
        return listing(self.s3, VAULT, self.directory(name) if name else f"{self.root}/")

    # ---- what is made ------------------------------------------------------------------------------------------------------------

    def make(self, name: str, *, days: float = 0, ours: bool = True) -> None:
        """Make a complete backup that is so many days old; one of the official tool is as old as its files."""
        made = synthetic(segments=2, l0=False, root=self.root, name=name)
        meta = {**made.full_meta, "id": f"id-of-{name}", "name": name}
        files = {key: bytes(size) for key, size in made.objects.items()}
        if ours:
            created = (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()
            facts = {"version": 1, "backup_id": meta["id"], "created": created, "collections": ["default.demo"], "strategy": "flush"}
            files[f"{self.directory(name)}{FACTS}"] = json.dumps({**facts, "rows": 5, "objects": len(made.objects)}).encode()
            files |= {f"{self.directory(name)}provider/{file}.json": b"{}" for file in ("attempt", "plan", "schemas", "summary")}
        metas = head_files(meta, self.root, name)
        for key, content in {**files, **{key: metas[key] for key in sorted(metas, key=lambda key: key.endswith(MARK))}}.items():
            self.store.write(key, content)

    def hold(self, name: str) -> None:
        content = {"version": 1, "reason": "audit", "owner": "ann", "until": None, "since": None}
        self.store.write(f"{self.directory(name)}{HOLD}", json.dumps(content).encode())

    def read(self, name: str) -> Lease:
        """Let a restore begin to read a backup; its lease is waiting for whoever goes on with it."""
        reader = Owner("dag/other/restore/-1")
        lease = Lease(self.store, layout.lease_key(self.root, name, READER), reader, f"restore backup {name!r}", Reporter(Lines()))
        lease.take()
        lease.hand_over(24 * 3600)
        return lease

    def stray(self, *keys: str) -> None:
        for key in keys:
            self.store.write(f"{self.root}/{key}", b"nobody's")

    # ---- what is true --------------------------------------------------------------------------------------------------------------

    def listed(self) -> list[str]:
        """Return the names of the backups that there are, all of which can be restored: every object that the meta names is there."""
        entries = read_catalog(self.store).entries
        assert {entry.state for entry in entries} <= {COMPLETE}, entries
        for entry in entries:
            self.check_whole(entry.name)
        return sorted(entry.name for entry in entries)

    def check_whole(self, name: str) -> None:
        backup, there = read_backup(self.store, name), self.there(name)
        binlogs = layout.binlogs_dir(self.root, name)
        expected = {key: size for collection in backup.collections for key, size in expected_objects(collection, binlogs)}
        assert len(expected) > 0
        assert {key: size for key, (size, _) in there.items() if key.startswith(binlogs)} == expected

    def check_unlisted(self, name: str) -> None:
        """Nobody takes what is left for a backup."""
        try:
            read_backup(self.store, name)
        except BackupNotFound:
            return
        raise AssertionError(f"{name} can still be read")

    def leases(self) -> dict[str, Holding]:
        """Return who holds which lease of a writer or deleter."""
        return {key: Holding.from_json(self.store.read(key)) for key in self.there() if key.endswith("/provider/lease.json")}

    def let_a_minute_pass(self) -> None:
        """Let those leases run out."""
        for key, held in self.leases().items():
            self.store.write(key, replace(held, seconds=0.0).to_json())

    def but(self, before: Listing, *gone: str, kept: Any = ()) -> Listing:
        """Return what there was, without some backups; ``kept`` are keys in them that are nobody's."""
        prefixes = tuple(self.directory(name) for name in gone)
        kept = {f"{self.root}/{key}" for key in kept}
        return {key: item for key, item in before.items() if key in kept or not (prefixes and key.startswith(prefixes))}
