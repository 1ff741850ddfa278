"""A backup that is replaced, wherever the run dies: what a restore, a verification and the catalog find is one whole backup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core import layout, meta, raw_schema
from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog import describe, read_catalog
from airflow_provider_milvus_backup.core.catalog_entry import ATTEMPT, COMPLETE, DAMAGED, FACTS, SCHEMAS
from airflow_provider_milvus_backup.core.committing import write_meta
from airflow_provider_milvus_backup.core.errors import BackupInUse, MilvusBackupError
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.plan import FLUSH, BackupPlan
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.store import ObjectStore
from benchmarks.collection import BACKUPS
from tests.unit.verified_backups import ID, NAME, VerifiedStore, backup_of, contents, serving, verified

NEW = "the-new-id"
DIRECTORY = f"{BACKUPS}/{NAME}/"
ATTEMPTED = Attempt(NEW, Owner("dag/run/backup/-1"), ID)


def new_backup() -> meta.Backup:
    """Return a backup of the same objects whose meta says something else."""
    backup = backup_of(contents())
    one, *others = backup.collections[1].partitions[0].segments
    partition = replace(backup.collections[1].partitions[0], segments=[replace(one, rows=one.rows + 1), *others])
    second = replace(backup.collections[1], partitions=[partition], aliases=["new"])
    return replace(backup, backup_id=NEW, collections=[backup.collections[0], second])


@contextmanager
def replacing(*, manifest: bool = True) -> Iterator[tuple[ObjectStore, VerifiedStore]]:
    """Serve a backup and all that a replacement of it has written before it writes its meta."""
    with serving(manifest=manifest) as (store, served):
        served.put(f"{DIRECTORY}{ATTEMPT}", ATTEMPTED.to_json())
        served.put(f"{DIRECTORY}{SCHEMAS}", raw_schema.to_file(NEW, {}))
        served.put(f"{DIRECTORY}{FACTS}", json.dumps({"version": 1, "backup_id": NEW, "manifest": True}).encode())
        yield store, served


def commit(store: ObjectStore) -> None:
    plan = BackupPlan(new_backup(), FLUSH, "files", BACKUPS, ID)
    write_meta(store, plan, None, list(store.objects(f"{DIRECTORY}binlogs")))


@pytest.mark.parametrize("manifest", [True, False])
def test_dead_after_any_request_it_is_the_old_backup_or_the_new_one(manifest: bool) -> None:
    seen = set()
    for life in range(100):
        with replacing(manifest=manifest) as (store, served):
            served.life = life
            try:
                commit(store)
                committed = True
            except MilvusBackupError:
                committed = False
            served.life = 10**9
            found, (entry,) = read_backup(store, NAME), read_catalog(store).entries
            assert [collection.aliases for collection in found.collections] == [[], ["new"] if found.backup_id == NEW else []]
            told = describe(store, NAME)
            assert (entry.state, told["state"]) == (COMPLETE, COMPLETE)
            seen.add((entry.backup_id, found.backup_id))
            if (entry.backup_id, found.backup_id) == (ID, NEW):
                assert "replaced by dag/run/backup/-1, try 1 but for the commit mark" in told["reason"]
                with pytest.raises(BackupInUse, match="was replaced by dag/run/backup/-1, try 1 but for the commit mark"):
                    verified(store)
            else:
                assert told["reason"] == ""
                assert verified(store).ok, life
            commit(store)
            assert read_catalog(store).entries[0].backup_id == read_backup(store, NAME).backup_id == NEW
            assert verified(store).ok
        if committed:
            break
    assert seen == {(ID, ID), (ID, NEW), (NEW, NEW)}
    assert 8 < life < 50


def test_the_whole_meta_and_the_mark_are_written_last_and_together() -> None:
    """Whatever takes its time, as the manifest of a large backup does, comes before."""
    with replacing() as (store, _):
        order = []
        write, swap = store.write, store.swap

        def writing(key: str, content: bytes) -> None:
            order.append(key.removeprefix(DIRECTORY))
            write(key, content)

        def swapping(key: str, content: bytes, etag: str) -> str:
            order.append(key.removeprefix(DIRECTORY))
            return swap(key, content, etag)

        store.write, store.swap = writing, swapping  # type: ignore[method-assign]
        commit(store)
    levels = [f"meta/{file}" for file in layout.META_FILES[1:4]]
    assert order == [*levels, "provider/manifest.json", f"meta/{layout.FULL_META}", f"meta/{layout.COMMIT_MARK}"]


@pytest.mark.parametrize("attempt", [None, b"{", Attempt(NEW, ATTEMPTED.owner).to_json(), Attempt("third", ATTEMPTED.owner, ID).to_json()])
def test_a_whole_meta_of_another_backup_is_damage_where_no_replacement_explains_it(attempt: bytes | None) -> None:
    with replacing() as (store, served):
        other = json.loads(store.read(f"{DIRECTORY}meta/{layout.FULL_META}"))
        served.put(f"{DIRECTORY}meta/{layout.FULL_META}", json.dumps({**other, "id": NEW}).encode())
        store.delete([f"{DIRECTORY}{ATTEMPT}"])
        if attempt is not None:
            served.put(f"{DIRECTORY}{ATTEMPT}", attempt)
        assert describe(store, NAME)["state"] == DAMAGED
        assert "another id" in describe(store, NAME)["reason"]
        assert not verified(store).ok
