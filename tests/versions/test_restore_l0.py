"""Deletes in L0 segments come back as deletes: imported, or folded into the delta logs of the other segments."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_milvus_backup.core.restore_plan import RestoreOptions
from demo import servers
from tests.contract import shapes
from tests.contract.profiles import PROFILES

from .restoring import BACK, NAME, RESTORE_ID, creates, deletes, jobs, once_each, restoring
from .worlds import BUCKET, World

FOLDS = [name for name, profile in PROFILES.items() if profile.l0_disabled]
ONE_PREFIX = [name for name, profile in PROFILES.items() if not profile.many_l0_prefixes]


def l0_jobs(world: World) -> list[dict[str, object]]:
    """Return the requests that were to import L0 segments."""
    return [body for body in creates(world) if "l0_import" in body["options"]]


def staged(world: World) -> list[str]:
    """Return what any restore has left in Milvus's bucket outside of Milvus's own data and of backups."""
    found = world.s3.client().list_objects_v2(Bucket=BUCKET, Prefix="restore-temp-").get("Contents", [])
    return [item["Key"] for item in found if "/binlogs/" in item["Key"]]


# ---- imported ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ONE_PREFIX)
def test_before_2_6_5_each_job_has_one_prefix(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    found = l0_jobs(world)
    assert len(found) >= 4, "of two partitions and of all"
    assert all([len(paths) for paths in body["files"]] == [1] for body in found)  # type: ignore[attr-defined]
    assert {str(body.get("partitionName", "")) for body in found} == {"", "_default", "second"}


def test_from_2_6_5_a_job_takes_several_prefixes(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    rows = deletes(world)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    found = l0_jobs(world)
    assert sorted(str(body.get("partitionName", "")) for body in found) == ["", "_default", "second"], (
        "one job per partition and one of all"
    )
    assert max(len(body["files"]) for body in found) > 1  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["2.4.5", "2.5.10", "2.6.20"])
def test_deletes_are_submitted_when_all_data_is_there_and_nothing_is_loaded(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.model.create_index(NAME, "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    world.model.load(NAME)
    world.backup()
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    kinds = ["l0_import" in body["options"] for body in creates(world)]
    assert kinds == sorted(kinds), "deletes of rows that come later would be lost"
    data_ended = max(job.ended for job in jobs(world) if not job.options.l0_import)
    assert all(job.since >= data_ended for job in jobs(world) if job.options.l0_import)
    assert world.model.collection(BACK).loaded, "it was loaded when it was backed up"


@pytest.mark.parametrize("version", ["2.4.24", "2.6.20"])
def test_whoever_only_finishes_submits_the_deletes(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.backup()
    with restoring(world) as run:
        run.start("nightly", RESTORE_ID, RestoreOptions(suffix="_back"))
    assert l0_jobs(world) == []
    for _ in range(10):
        world.model.finish_jobs()
        with restoring(world) as run:
            state = run.states.find("nightly", RESTORE_ID)
            assert state
            if run.poll(state):
                run.finish(state)
                break
    assert world.model.rows(BACK) == rows
    assert once_each(world)


# ---- folded --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", FOLDS)
def test_3_0_gets_deletes_among_the_delta_logs_of_each_segment(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.backup()
    seen: list[str] = []
    world.at("jobs/import/create", lambda: seen.extend(staged(world)))
    world.restore(suffix="_back")
    assert world.model.rows(BACK) == rows
    assert l0_jobs(world) == []
    assert seen
    assert all("/folded/delta_log/" in key for key in seen), "data lies where Milvus reads it already"
    assert staged(world) == [], "what was folded is removed at the end"
    deltas = [paths[1] for body in creates(world) for paths in body["files"] if len(paths) == 2]
    assert deltas
    assert all(path.startswith("restore-temp-") for path in deltas)


@pytest.mark.parametrize("version", ["2.4.5", "2.6.20", "3.0.1"])
def test_deletes_of_a_backup_do_not_delete_what_was_there_when_rows_are_appended(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    rows = deletes(world)
    world.backup()
    world.model.create_collection(BACK, shapes.schema(BACK[1]), shards=2)
    world.model.insert(BACK, [{"id": 2, "v": [22.0, 0.5]}])
    world.model.flush(BACK)
    # Its deletes are newer than the rows that are there; imported as such they would take them away.
    world.model.delete(NAME, [2])
    world.backup("later")
    world.restore("later", suffix="_back", if_exists="append")
    assert l0_jobs(world) == []
    found = world.model.rows(BACK)
    assert found["_default"].pop(2)["v"] == [22.0, 0.5]
    assert found == rows
    assert once_each(world)


@pytest.mark.parametrize("version", ["2.4.5", "2.5.10", "2.6.20", "3.0.1"])
def test_a_delete_that_is_older_than_the_row_spares_it(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    model = world.model
    model.create_collection(NAME, shapes.schema("docs"))
    model.delete(NAME, [1, 2, 3])  # of rows that were never there
    model.flush(NAME)
    model.insert(NAME, [shapes.row(number) for number in (1, 2, 3)])
    model.flush(NAME)
    model.delete(NAME, [2])
    model.flush(NAME)
    model.insert(NAME, [{"id": 2, "v": [20.0, 0.5]}])
    rows = model.rows(NAME)
    assert {*rows["_default"]} == {1, 2, 3}
    world.backup()
    world.restore(suffix="_back")
    assert model.rows(BACK) == rows
    world.backup("again", collections=["docs_back"])
    world.restore("again", suffix="_back")
    assert model.rows(("default", "docs_back_back")) == rows, "what was restored can be backed up and restored"


@pytest.mark.parametrize("version", ["2.5.4", "2.6.20", "3.0.1"])
def test_a_backup_in_another_bucket_is_staged_with_its_deletes(milvus: Callable[..., World], s3: servers.S3Server, version: str) -> None:
    s3.create_bucket("vault")
    world = milvus(version)
    rows = deletes(world)
    vault = replace(world.settings, backup_storage=world.location(f"{world.root}/backup", "vault"))
    world.backup(settings=vault)
    seen: list[str] = []
    world.at("jobs/import/create", lambda: seen.extend(staged(world)))
    world.restore(suffix="_back", settings=vault)
    assert world.model.rows(BACK) == rows
    assert once_each(world)
    assert any("/insert_log/" in key for key in seen)
    assert any("/folded/" in key for key in seen) == (version in FOLDS)
    assert staged(world) == []
    assert not world.keys("backup"), "nothing of the backup is in Milvus's bucket"


def test_the_same_backup_is_restored_side_by_side(milvus: Callable[..., World]) -> None:
    world = milvus("3.0.1")
    rows = deletes(world)
    world.backup()
    with restoring(world) as first, restoring(world) as second:
        states = [
            run.start("nightly", uuid.uuid4().hex[:16], RestoreOptions(suffix=suffix)) for run, suffix in ((first, "_a"), (second, "_b"))
        ]
        for run, state in zip((first, second), states, strict=True):
            run.wait(state, 0.2)
            run.finish(state)
    assert world.model.rows(("default", "docs_a")) == world.model.rows(("default", "docs_b")) == rows
    assert staged(world) == []
