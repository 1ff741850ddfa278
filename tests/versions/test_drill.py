"""A drill finds nothing wrong with what is restored rightly, on every version, whatever the collection has; and finds what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import drilling, finishing, undoing
from airflow_provider_milvus_backup.core.drill_plan import DrillOptions
from airflow_provider_milvus_backup.core.drilling import drill
from airflow_provider_milvus_backup.core.errors import (
    BackupInUse,
    BackupNotFound,
    ConfigError,
    DrillFailed,
    ImportFailed,
    UnsupportedServer,
    WaitTimeout,
)
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.patience import Patience
from airflow_provider_milvus_backup.core.plan import META_ONLY
from airflow_provider_milvus_backup.core.report import Reporter
from tests.contract import shapes
from tests.contract.jobs import Fate
from tests.contract.profiles import PROFILES

from .restoring import DESCRIBE, NAME, deletes, segments
from .test_fidelity_schema import fill
from .worlds import World


def drilled(target: World, source: World | None = None, *, patience: Patience | None = None, **options: Any) -> dict[str, Any]:
    settings = replace(target.settings, backup_storage=(source or target).settings.backup_storage)
    patience = patience or Patience(timeout=250)
    return drill(settings, DrillOptions(**options), Owner("d/r/t/-1"), Reporter(target.log), patience, poll_interval=0.05)


def left(world: World) -> tuple[set[str], list[str]]:
    """Return all collections, and what restores have left in the bucket."""
    names = {f"{name}.{collection}" for name, database in world.model.databases.items() for collection in database.collections}
    return names, [key for key in world.model.bucket.list("") if key.startswith("restore-temp-")]


@pytest.mark.parametrize("version", PROFILES)
def test_a_collection_with_everything_is_found_to_be_the_same(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    world.backup()
    before = left(world)
    found = drilled(world)
    assert (found["ok"], found["checks"], found["collections"]) == (True, 3, [{"name": "default.docs", "rows": found["rows"]}])
    assert left(world) == before


@pytest.mark.parametrize("version", PROFILES)
def test_deleted_rows_are_not_missed(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    deletes(world)
    world.model.create_index(("default", "docs"), "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    world.backup()
    assert drilled(world, database="elsewhere")["checks"] == 3
    assert "elsewhere" not in world.model.databases


@pytest.mark.parametrize(("version", "newer"), [("2.4.5", "3.0.1"), ("2.4.24", "2.6.20"), ("2.5.10", "3.0.0")])
def test_a_newer_milvus_may_add_what_it_likes(milvus: Callable[..., World], version: str, newer: str) -> None:
    source, target = milvus(version), milvus(newer)
    fill(source)
    source.backup()
    assert drilled(target, source)["ok"] is True
    assert left(target) == (set(), [])


def test_an_older_milvus_is_drilled_on_only_where_it_was_asked_for(milvus: Callable[..., World]) -> None:
    source, target = milvus("2.5.10"), milvus("2.4.24")
    segments(source, 2, indexes=True)
    source.backup()
    with pytest.raises(UnsupportedServer, match=r"taken from Milvus v2\.5\.10, and this is the older Milvus v2\.4\.24"):
        drilled(target, source)
    assert drilled(target, source, allow_downgrade=True)["rows"] == 4
    assert left(target) == (set(), [])


def test_a_milvus_that_allows_for_fewer_shards_is_drilled_on_with_as_many_as_it_may(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    deletes(world)
    assert world.model.collection(NAME).shards == 2
    world.backup()
    assert drilled(world, max_shards=1)["ok"] is True
    assert [body.shards_num for body in world.server.recorder.of("CreateCollection")] == [1]


@pytest.mark.parametrize(
    ("properties", "found"),
    [({"ttl_field": "expires"}, True), ({"collection.ttl.seconds": "60"}, True), ({"collection.ttl.seconds": "-1"}, False)],
)
def test_rows_that_expire_are_not_missed_and_others_are(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, properties: dict[str, str], *, found: bool
) -> None:
    world = milvus("2.6.20")
    world.model.create_collection(NAME, shapes.schema("docs"), shards=1, properties=properties)
    world.model.insert(NAME, [shapes.row(number) for number in range(3)])
    world.model.flush(NAME)
    world.model.create_index(NAME, "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    world.backup()
    load = finishing.load

    def expire(ends: Any, targets: Any) -> None:
        load(ends, targets)
        for target in targets:
            world.model.delete(tuple(target.building), [1])

    monkeypatch.setattr(finishing, "load", expire)
    if found:
        assert drilled(world)["ok"] is True
    else:
        with pytest.raises(DrillFailed, match="rows: expected 3, found 2"):
            drilled(world)


def test_the_latest_backup_is_one_with_data_and_any_can_be_named(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    segments(world, 1, indexes=True)
    world.backup("empty", strategy=META_ONLY)
    for which in ("latest", "random:1d"):
        with pytest.raises(BackupNotFound, match=r"\(without those that hold no data, made with meta_only\)"):
            drilled(world, backup_name=which)
    world.backup("whole")
    world.backup("empty_again", strategy=META_ONLY)
    assert drilled(world)["backup_name"] == "whole"
    found = drilled(world, backup_name="empty_again")
    assert (found["backup_name"], found["rows"]) == ("empty_again", 0)


@pytest.mark.parametrize(("which", "error"), [("latest", BackupInUse), ("nightly", BackupNotFound)])
def test_a_backup_that_is_deleted_after_it_was_chosen_is_worth_a_retry_unless_it_was_named(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, which: str, error: type[Exception]
) -> None:
    world = milvus("2.5.10")
    segments(world, 1, indexes=True)
    world.backup()
    before, choose = left(world), drilling.choose

    def late(*arguments: Any) -> Any:
        found = choose(*arguments)
        world.model.bucket.delete(f"{world.root}/backup/nightly/meta/backup_meta.json")
        return found

    monkeypatch.setattr(drilling, "choose", late)
    with pytest.raises(error, match="'nightly'"):
        drilled(world, backup_name=which)
    assert left(world) == before


@pytest.mark.parametrize("poll_interval", [0, -1, "5", None])
def test_a_pause_that_is_none_is_refused_before_anything_is_restored(milvus: Callable[..., World], poll_interval: Any) -> None:
    world = milvus("2.5.10")
    with pytest.raises(ConfigError, match=r"poll_interval .* is not a number of seconds above 0"):
        drill(world.settings, DrillOptions(), Owner(), Reporter(world.log), Patience(), poll_interval=poll_interval)
    assert not world.server.recorder.requests


def test_a_snapshot_is_drilled_as_well(milvus: Callable[..., World]) -> None:
    world = milvus("3.0.1")
    deletes(world)
    world.model.create_index(("default", "docs"), "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    world.backup(format="snapshot")
    before = left(world)
    assert drilled(world)["checks"] == 3
    assert left(world) == before


def test_an_import_that_fails_is_a_finding_and_what_it_made_is_dropped(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    segments(world, 2)
    world.backup()
    before = left(world)
    world.model.fates.append(Fate(fail="the file is damaged"))
    with pytest.raises(ImportFailed, match="the file is damaged"):
        drilled(world)
    assert left(world) == before
    written = json.loads(world.read("backup/nightly/provider/drill.json"))
    assert (written["ok"], written["collections"]) == (False, [])
    assert written["error"].startswith("ImportFailed: import job")


def test_what_imports_keep_from_being_dropped_is_dropped_by_the_next_drill(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = milvus("2.5.10")
    segments(world, 1)
    world.backup()
    before = left(world)
    monkeypatch.setattr(undoing, "GRACE", 0.1)
    world.model.fates.append(Fate(hang="Importing"))
    patience = Patience()
    world.at(DESCRIBE, lambda: setattr(patience, "deadline", 0.0))
    with pytest.raises(WaitTimeout, match="What was created is dropped again"):
        drilled(world, database="elsewhere", patience=patience)
    assert "elsewhere" in world.model.databases
    assert world.said("The next drill of this task sees to it")
    assert "drill.json" not in " ".join(world.keys("backup/nightly/provider"))
    for job in world.model.jobs.values():
        job.fate = Fate(fail="aborted")
    drilled(world, database="elsewhere", load="never")
    assert left(world) == before
    assert "elsewhere" not in world.model.databases


def test_every_difference_is_told(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world = milvus("2.6.20")
    fill(world)
    world.backup()
    load = finishing.load

    def spoil(ends: Any, targets: Any) -> None:
        load(ends, targets)
        (target,) = targets
        there = world.model.collection(tuple(target.building))
        fields = {one.name: one for one in there.schema.fields}
        fields["pk"].description = "another"
        fields["n"].default_value.long_data = 1
        fields["v"].type_params[0].value = "3"
        fields["small"].name = "tiny2"
        there.schema.functions[0].params[0].value = "1.3"
        there.schema.struct_array_fields[0].fields[0].type_params[0].value = "6"
        there.consistency_level = 3
        there.indexes = [index for index in there.indexes if index.name != "v_idx"]

    monkeypatch.setattr(finishing, "load", spoil)
    with pytest.raises(DrillFailed) as raised:
        drilled(world)
    said = str(raised.value)
    for told in (
        "default.docs: schema: expected that of the backup, found field 'small' is missing; field 'tiny2' is not in the backup",
        "field 'v': type_params 'dim' is '3' instead of '2'; and 3 more",
        "default.docs: indexes: expected that of the backup, found index 'v_idx' of field 'v' is missing",
    ):
        assert told in said
