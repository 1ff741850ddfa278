"""What the formats and servers have in store for whoever does not look, as far as no other test keeps it: one test each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core import survey
from airflow_provider_milvus_backup.core.errors import BackupError, RowsMissing, SchemaMismatch, SourceChanged
from tests.contract import shapes
from tests.contract.jobs import Fate
from tests.contract.profiles import PROFILES

from .restoring import BACK, NAME, creates
from .worlds import World

OTHER, OTHER_BUCKET = ("default", "other"), "another-bucket"
KEY, VECTOR = shapes.field("id", shapes.INT64, key=True), shapes.field("v", shapes.FLOAT_VECTOR, dim="2")


def filled(world: World, count: int = 3) -> None:
    """Make a collection with one flushed segment."""
    world.model.create_collection(NAME, shapes.schema("docs"))
    world.model.insert(NAME, [shapes.row(number) for number in range(count)])
    world.model.flush(NAME)


def by_key(world: World, name: tuple[str, str], partitions: int) -> None:
    """Make a collection whose rows choose their partition by a key."""
    keyed = shapes.field("tenant", shapes.VARCHAR, max_length="20", is_partition_key=True)
    world.model.create_collection(name, shapes.schema(name[1], KEY, keyed, VECTOR), partitions=partitions)


# ---- while segments are looked at --------------------------------------------------------------------------------------------------


def test_segments_of_a_partition_that_was_just_created_are_looked_at_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    filled(world)

    def create() -> None:
        world.model.create_partition(NAME, "late")
        world.model.insert(NAME, [shapes.row(50)], "late")
        world.model.flush(NAME)

    world.at("GetPersistentSegmentInfo", create)
    world.backup()
    assert world.said("that Milvus no longer lists; a partition was just dropped or created; looking again")
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == world.model.rows(NAME)


@pytest.mark.parametrize("moment", ["Flush", "GetPersistentSegmentInfo"])
def test_a_column_of_a_field_that_was_just_added_is_not_lost(milvus: Callable[..., World], moment: str) -> None:
    world = milvus("2.6.20")
    filled(world)

    def add() -> None:
        world.model.add_field(NAME, shapes.field("late", shapes.INT64, nullable=True).SerializeToString())
        world.model.insert(NAME, [shapes.row(50, late=7)])
        world.model.flush(NAME)

    world.at(moment, add)
    with pytest.raises(SourceChanged, match=r"the schema of default\.docs was changed while it was backed up; .*back up again"):
        world.backup()
    world.backup(if_exists="resume")
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == world.model.rows(NAME)
    assert world.model.rows(BACK)["_default"][50]["late"] == 7


def test_a_collection_that_was_dropped_and_created_again_is_not_backed_up_half(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    filled(world)

    def anew() -> None:
        world.model.drop_collection(NAME)
        filled(world, 5)

    world.at("GetPersistentSegmentInfo", anew)
    with pytest.raises(BackupError, match=r"default\.docs was dropped and created again while it was backed up"):
        world.backup()
    assert not [key for key in world.keys("backup/nightly") if key.startswith("meta/")]


def test_imports_into_other_collections_are_nobodys_business(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "LISTINGS", 1)
    world = milvus("2.6.20")
    filled(world)
    source = world.model.collection(NAME)
    world.model.create_collection(OTHER, shapes.schema("other"))
    world.model.fates.append(Fate(hang="Importing"))
    prefix = world.model.key("insert_log", source.id, source.partitions[0].id) + "/"
    options = {"backup": "true", "storage_version": "2"}
    world.model.import_job(OTHER, [[prefix]], options, "_default")
    assert world.backup(collections="docs")["rows"] == 3


# ---- restoring ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [2, 16])
def test_rows_are_not_appended_where_a_key_chooses_among_another_number_of_partitions(
    milvus: Callable[..., World], partitions: int
) -> None:
    world = milvus("2.6.20")
    by_key(world, NAME, 4)
    by_key(world, OTHER, partitions)
    world.model.insert(NAME, [shapes.row(number, tenant=f"t{number % 7}") for number in range(40)])
    world.backup(collections="docs")
    with pytest.raises(
        SchemaMismatch, match=rf"other spreads rows over {partitions} partitions by key, default\.docs of the backup over 4"
    ):
        world.restore(rename={"docs": "other"}, if_exists="append")
    assert creates(world) == []


def test_an_index_that_milvus_named_after_a_json_path_gets_its_name_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    world.model.create_collection(NAME, shapes.schema("docs", KEY, VECTOR, shapes.field("any", shapes.JSON)))
    params = {"index_type": "INVERTED", "json_cast_type": "double", "json_path": 'any["nested"]["n"]'}
    world.model.create_index(NAME, "any", "", params)
    world.model.create_index(NAME, "v", "named", {"index_type": "FLAT", "metric_type": "L2"})
    world.backup()
    world.restore(suffix="_back")
    assert [(index.name, index.params) for index in world.model.indexes(BACK)] == [
        ("any/nested/n", params),
        ("named", {"index_type": "FLAT", "metric_type": "L2"}),
    ]


@pytest.mark.parametrize("version", ["2.4.5", "2.6.20", "3.0.1"])
def test_no_binlog_to_import_means_that_milvus_reads_another_bucket(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    filled(world)
    world.backup()
    elsewhere = replace(world.settings, milvus_storage=world.location(f"{world.root}/files", OTHER_BUCKET))
    world.s3.create_bucket(OTHER_BUCKET)
    with pytest.raises(RowsMissing, match=r"may read another bucket than .*: .*no binlog to import"):
        world.restore(suffix="_back", settings=elsewhere)
    assert [*world.model.databases["default"].collections] == ["docs"]


@pytest.mark.parametrize("version", PROFILES)
def test_no_job_waits_for_a_commit_that_nobody_sends(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    filled(world)
    world.backup()
    world.restore(suffix="_back")
    assert {key for body in creates(world) for key in body["options"]} <= {"backup", "skip_disk_quota_check", "storage_version"}
    assert world.model.rows(BACK) == world.model.rows(NAME)
