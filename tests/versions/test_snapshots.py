"""Backups in snapshot format, as a whole: made by one Milvus that can, restored into another, refused by those that cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core.errors import BackupDamaged, ConfigError, ServerError, UnsupportedServer
from airflow_provider_milvus_backup.core.imports import JobState, JobStatus
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.meta import SNAPSHOT
from airflow_provider_milvus_backup.core.polling import open_async
from airflow_provider_milvus_backup.core.reader import read_backup
from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from airflow_provider_milvus_backup.core.store import ObjectStore
from tests.contract import shapes
from tests.contract.refusals import unexpected

from .restoring import BACK, NAME, RESTORE_ID, deletes, restoring
from .worlds import World

OTHER = ("default", "other")
Milvus = Callable[..., World]


def store(world: World) -> ObjectStore:
    return ObjectStore(world.settings.backup_storage)


def left(world: World) -> list[str]:
    return [snapshot.name for name in (NAME, OTHER) for snapshot in world.model.snapshots_of(name)]


def two(world: World) -> None:
    """Two collections: one with L0 segments, one with an index."""
    deletes(world)
    world.model.create_collection(OTHER, shapes.schema("other"), shards=1)
    world.model.create_index(OTHER, "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    world.model.insert(OTHER, [shapes.row(number) for number in range(3)])


def test_a_backup_goes_from_one_cluster_into_another_with_deletes_indexes_and_names(milvus: Milvus) -> None:
    one, two_ = milvus("3.0.1"), milvus("3.0.1")
    two(one)
    summary = one.backup(format=SNAPSHOT)
    assert left(one) == []
    assert one.full_meta()["format"] == SNAPSHOT
    assert sorted(key for key in one.keys("backup/nightly/meta")) == ["backup_meta.json", "collection_meta.json", "full_meta.json"]
    assert one.keys("backup/nightly/binlogs") == []
    assert summary["bytes"] == sum(collection.size for collection in read_backup(store(one), "nightly").collections) > 0
    restored = one.restore_into(two_, rename={"docs": BACK[1]})
    assert two_.model.rows(BACK) == one.model.rows(NAME)
    assert two_.model.rows(OTHER) == one.model.rows(OTHER)
    assert [index.name for index in two_.model.indexes(OTHER)] == ["v_index"]
    assert {collection.name for collection in two_.model.database("default").collections.values()} == {"docs_back", "other"}
    assert restored["rows"] == sum(collection["rows"] for collection in restored["collections"]) > 0


def test_a_restore_into_the_same_cluster_replaces_what_is_there(milvus: Milvus) -> None:
    world = milvus("3.0.1")
    rows = deletes(world)
    world.backup(format=SNAPSHOT)
    world.model.insert(NAME, [shapes.row(999)])
    world.restore(if_exists="replace")
    assert world.model.rows(NAME) == rows


@pytest.mark.parametrize("version", ["2.4.24", "2.6.20", "3.0.0"])
def test_a_milvus_that_cannot_is_told_apart_before_anything_is_written_or_made(milvus: Milvus, version: str) -> None:
    one, other = milvus("3.0.1"), milvus(version)
    deletes(one)
    one.backup(format=SNAPSHOT)
    deletes(other)
    with pytest.raises(UnsupportedServer, match=rf"format 'snapshot' needs .*3\.0\.1 or newer.*version v{version}.*'binlog'"):
        other.backup(format=SNAPSHOT)
    assert other.keys("backup") == []
    for options in ({}, {"allow_downgrade": True}):
        with pytest.raises(UnsupportedServer, match=rf"snapshot format .*3\.0\.1 or newer.*version v{version}"):
            one.restore_into(other, suffix="_back", **options)
    assert {collection.name for collection in other.model.database("default").collections.values()} == {"docs"}


def test_without_the_format_a_milvus_that_can_makes_binlogs(milvus: Milvus) -> None:
    world = milvus("3.0.1")
    deletes(world)
    world.backup()
    assert "format" not in world.full_meta()
    assert world.keys("backup/nightly/bundle") == []
    assert world.server.requests["CreateSnapshot"] == 0


@pytest.mark.parametrize(
    ("given", "text"),
    [({"format": "tar"}, "format 'tar' is not one of binlog, snapshot"), ({"format": SNAPSHOT, "strategy": "meta_only"}, "meta_only")],
)
def test_a_format_that_cannot_be_is_refused(milvus: Milvus, given: dict[str, str], text: str) -> None:
    world = milvus("3.0.1")
    deletes(world)
    with pytest.raises(ConfigError, match=text):
        world.backup(**given)
    assert world.keys("backup") == []


def test_a_further_try_exports_only_what_the_first_has_not(milvus: Milvus) -> None:
    world, owner = milvus("3.0.1"), Owner("a task", 0, 1)
    two(world)

    export, calls = world.model.export_snapshot, []

    def once(name: tuple[str, str], *args: str) -> object:
        calls.append(name[1])
        if len(calls) == 2:
            raise unexpected("the disk is full")
        return export(name, *args)

    world.model.export_snapshot = once  # type: ignore[method-assign]
    with pytest.raises(ServerError, match="the disk is full"):
        world.backup(format=SNAPSHOT, owner=owner)
    assert left(world) == []
    assert world.keys("backup/nightly/meta") == []
    stray = f"{world.root}/backup/nightly/bundle/exports/half/files/insert_log/1"
    world.model.bucket.put(stray, b"half")
    world.backup(format=SNAPSHOT, owner=replace(owner, attempt=2))
    assert calls == ["docs", "other", "other"]
    assert stray not in world.model.bucket.list(stray)
    world.restore(suffix="_back")
    assert world.model.rows(("default", "other_back")) == world.model.rows(OTHER)


@pytest.mark.parametrize(("first", "second"), [(SNAPSHOT, "binlog"), ("binlog", SNAPSHOT), (SNAPSHOT, SNAPSHOT)])
def test_a_backup_that_is_replaced_leaves_nothing_of_either_format(milvus: Milvus, first: str, second: str) -> None:
    world = milvus("3.0.1")
    deletes(world)
    world.backup(format=first)
    world.model.insert(NAME, [shapes.row(500)])
    world.backup(format=second, if_exists="replace")
    kept = read_backup(store(world), "nightly")
    assert kept.format == (SNAPSHOT if second == SNAPSHOT else "")
    assert bool(world.keys("backup/nightly/binlogs")) is (second == "binlog")
    assert bool(world.keys("backup/nightly/bundle")) is (second == SNAPSHOT)
    assert sum(1 for key in world.keys("backup/nightly/bundle") if "/metadata/" in key) <= 1
    world.restore(suffix="_back")
    assert 500 in world.model.rows(BACK)["_default"]


def test_a_bundle_with_missing_files_is_not_restored(milvus: Milvus) -> None:
    world = milvus("3.0.1")
    deletes(world)
    world.backup(format=SNAPSHOT)
    for key in [key for key in world.keys("backup/nightly/bundle") if "/insert_log/" in key]:
        world.model.bucket.delete(f"{world.root}/backup/nightly/bundle/{key}")
    with pytest.raises(BackupDamaged, match=r"snapshot of default\.docs .* is incomplete"):
        world.restore(suffix="_back")
    assert world.server.requests["RestoreExternalSnapshot"] == 0


def test_a_trigger_sees_how_far_a_snapshot_is_and_tells_it_from_an_import(milvus: Milvus) -> None:
    world = milvus("3.0.1")
    deletes(world)
    world.backup(format=SNAPSHOT)
    world.model.snapshot_seconds = 3600.0
    with restoring(world) as run:
        state = run.start("nightly", RESTORE_ID, RestoreOptions(suffix="_back"))
        assert not state.rest
        [number] = state.pending()
        statuses = asyncio.run(watch(world, number))
        assert [statuses[0].state, statuses[-1].state] == [JobState.RUNNING, JobState.COMPLETED]
        assert asyncio.run(watch(world, 4711))[-1].state is JobState.UNKNOWN
        assert run.poll(state)
        run.finish(state)
    assert world.model.rows(BACK) == world.model.rows(NAME)


async def watch(world: World, number: int) -> list[JobStatus]:
    """Ask until the job is over, as a trigger does; none is before it was asked for."""
    ask, close = await open_async(world.settings.milvus)
    seen = [await ask(number, "default")]
    world.model.snapshot_seconds = 0.0
    while seen[-1].state is JobState.RUNNING:
        await asyncio.sleep(0.02)
        seen.append(await ask(number, "default"))
    await close()
    return seen
