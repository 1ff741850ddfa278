"""Which segments and which of their logs a backup takes: exactly those that Milvus names, at a moment at which they belong together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import segment_logs, survey
from airflow_provider_milvus_backup.core.errors import Cancelled, SourceChanged, UnsupportedFormat
from airflow_provider_milvus_backup.core.lease import Owner
from airflow_provider_milvus_backup.core.patience import Patience
from tests.contract import shapes
from tests.contract.jobs import Fate, Job
from tests.contract.profiles import PROFILES
from tests.contract.refusals import Refusal
from tests.contract.scenes import dirs, options
from tests.contract.state import Segment

from .worlds import World

NAME, RESTORED = ("default", "docs"), ("default", "docs_back")
#: Nothing listens there.
NOWHERE = "http://127.0.0.1:9"


def fill(world: World, count: int = 4, flushes: int = 1) -> list[Segment]:
    """One collection in one channel; return its segments."""
    world.model.create_collection(NAME, shapes.schema("docs"))
    return [segment for flush in range(flushes) for segment in add(world, range(flush * count, (flush + 1) * count))]


def add(world: World, numbers: Any) -> list[Segment]:
    world.model.insert(NAME, [shapes.row(number) for number in numbers])
    return world.model.flush(NAME)


def restored(world: World) -> Any:
    world.restore(suffix="_back")
    assert set(world.model.copies(RESTORED).values()) <= {1}
    return world.model.rows(RESTORED)


# ---- logs that nothing names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "directory"), [("2.5.10", 101), ("3.0.0", 0)])
def test_a_stray_log_of_one_field_is_left_out_where_milvus_names_the_logs(
    milvus: Callable[..., World], version: str, directory: int
) -> None:
    world = milvus(version)
    (segment,) = fill(world)
    stray = world.model.plant_stray_log(segment.id, directory)
    rows = world.model.rows(NAME)
    world.backup()
    assert not [key for key in world.keys("backup/nightly") if key.endswith(stray.rpartition("/")[2])]
    taken = {logs.get("fieldID", 0): [log["log_id"] for log in logs["binlogs"]] for logs in world.saved()[segment.id]["binlogs"]}
    assert taken == segment.insert_logs
    assert restored(world) == rows


def test_a_stray_directory_of_a_field_that_never_was_is_left_out(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    (segment,) = fill(world)
    world.model.plant_stray_log(segment.id, 177)
    rows = world.model.rows(NAME)
    world.backup()
    assert not [key for key in world.keys("backup/nightly") if "/177/" in key]
    assert restored(world) == rows


def test_without_rest_a_stray_log_is_refused_naming_the_segment_and_the_counts(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "LISTINGS", 2)
    world = milvus("2.5.10")
    (segment,) = fill(world)
    world.model.plant_stray_log(segment.id, 101)
    world.address["rest_endpoint"] = NOWHERE
    counts = r"\(field 0: 1, field 1: 1, field 100: 1, field 101: 2\)"
    with pytest.raises(SourceChanged, match=rf"segment {segment.id} has different numbers of binlogs per field {counts}"):
        world.backup()
    warned = [line for line in world.log.lines if "taken from a listing of the bucket, because Milvus cannot be asked" in line]
    assert len(warned) == 1
    assert "127.0.0.1:9" in warned[0]
    assert not [key for key in world.keys("backup/nightly") if key.startswith(("meta/", "binlogs/"))]


def test_2_5_4_does_not_name_logs_so_that_a_clean_directory_is_listed_without_a_warning(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.4")
    fill(world)
    rows = world.model.rows(NAME)
    world.backup()
    assert world.server.requests["segments/describe"] == 0
    assert not world.said("cannot be asked")
    assert restored(world) == rows


def test_a_server_that_cannot_name_logs_although_its_version_says_so_is_listed_with_a_warning(milvus: Callable[..., World]) -> None:
    world = milvus(replace(PROFILES["2.5.10"], segments_describe=False))
    fill(world, flushes=2)
    rows = world.model.rows(NAME)
    world.backup()
    assert world.server.requests["segments/describe"] == 1
    assert len([line for line in world.log.lines if "taken from a listing of the bucket, because Milvus cannot be asked" in line]) == 1
    assert restored(world) == rows


def test_more_segments_than_one_request_takes_are_all_named(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_logs, "_PER_REQUEST", 2)
    world = milvus("2.6.20")
    segments = fill(world, count=1, flushes=5)
    world.model.plant_stray_log(segments[4].id, 101)
    world.backup()
    ids = [segment.id for segment in segments]
    assert [request["segmentIDs"] for request in world.server.recorder.of("segments/describe")] == [ids[:2], ids[2:4], ids[4:]]
    assert {number: segment["v_channel"] for number, segment in world.saved().items()} == {s.id: s.vchannel for s in segments}
    assert restored(world)["_default"].keys() == set(range(5))


# ---- compactions at a bad moment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.5.10", "2.6.20"])
def test_compaction_children_trap_a_segment_compacted_before_it_is_described_is_looked_at_again(
    milvus: Callable[..., World], version: str
) -> None:
    world = milvus(version)
    parents = fill(world, flushes=2)
    world.model.delete(NAME, [1])
    world.model.flush(NAME)

    def compact() -> None:
        world.model.compact_l0(NAME)  # the parents' describe now has the delta logs of the child as well
        world.model.compact(NAME)

    world.at("segments/describe", compact)
    rows = world.model.rows(NAME)
    world.backup()
    assert world.said("is no longer a flushed one; it was just compacted or dropped; looking again")
    (child,) = [segment for segment in world.model.listed(NAME) if segment.compaction_from]
    assert set(child.compaction_from) == {parent.id for parent in parents}
    assert world.saved().keys() == {child.id}
    assert restored(world) == rows
    assert 1 not in rows["_default"]


def test_deletes_that_a_compaction_moved_from_l0_into_the_segments_are_backed_up_once(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    (segment,) = fill(world)
    world.model.delete(NAME, [1])
    (l0,) = world.model.flush(NAME)
    world.at("segments/describe", partial(world.model.compact_l0, NAME))
    world.backup()
    assert l0.id not in world.saved()
    assert [log["log_id"] for logs in world.saved()[segment.id]["deltalogs"] for log in logs["binlogs"]] == segment.delta_logs
    assert restored(world)["_default"].keys() == {0, 2, 3}


@pytest.mark.parametrize("version", ["2.4.24", "3.0.0"])
def test_a_segment_whose_files_are_collected_before_they_are_copied_is_planned_again(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world, flushes=2)

    def collect() -> None:
        world.model.compact(NAME)
        world.model.collect_garbage(NAME)

    world.log.actions["to copy:"] = collect
    rows = world.model.rows(NAME)
    summary = world.backup()
    assert world.said("docs: planned again")
    (child,) = world.model.listed(NAME)
    assert world.saved().keys() == {child.id}
    assert summary["segments"] == 1
    assert {key.split("/")[4] for key in world.keys("backup/nightly/binlogs")} == {str(child.id)}
    assert restored(world) == rows


def test_segment_not_found_between_the_two_steps_inside_the_server_is_asked_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    fill(world)

    def gone() -> None:
        raise Refusal(600, "segment not found[segment=450000000000000999]")

    world.at("GetPersistentSegmentInfo", gone, gone, gone)
    rows = world.model.rows(NAME)
    world.backup()
    assert world.server.requests["GetPersistentSegmentInfo"] > 3
    assert restored(world) == rows


def test_a_segment_that_is_forgotten_before_it_is_described_is_looked_at_again(milvus: Callable[..., World]) -> None:
    world = milvus("2.5.10")
    fill(world, flushes=2)

    def forget() -> None:
        world.model.compact(NAME)
        world.model.collect_garbage(NAME)

    world.at("segments/describe", forget)
    rows = world.model.rows(NAME)
    world.backup()
    assert world.said("vanished while it was looked at; looking again")
    assert restored(world) == rows


# ---- segments that are no part of a backup ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.4.5", "3.0.0"])
def test_growing_sealed_and_empty_segments_are_left_out(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    (flushed,) = fill(world)
    world.model.plant_empty(NAME)
    rows = world.model.rows(NAME)
    world.model.insert(NAME, [shapes.row(50)])
    world.model.flush_seconds = 600
    world.model.begin_flush(NAME)
    world.model.insert(NAME, [shapes.row(51)])
    assert {segment.state for segment in world.model.collection(NAME).segments} == {2, 3, 4}
    world.backup(strategy="skip_flush")
    assert world.saved().keys() == {flushed.id}
    world.model.flush_seconds = 0.02
    assert restored(world) == rows


def importing(world: World) -> Job:
    """A job that has not ended, into the collection of the backup; it reads a copy of what is there."""
    world.model.fates.append(Fate(hang="IndexBuilding"))
    world.model.create_collection(("default", "other"), shapes.schema("other"))
    world.model.insert(("default", "other"), [shapes.row(70)])
    world.model.flush(("default", "other"))
    files = [dirs(world.model.collection(("default", "other")))]
    files = [[path.replace("files/", f"{world.model.root_path}/", 1) for path in paths] for paths in files]
    job = world.model.import_job(NAME, files, options(world.model), "_default")
    world.model.finish_jobs()
    assert not job.over
    return job


@pytest.mark.parametrize("version", ["2.4.5", "2.4.24", "2.5.10", "2.6.4", "3.0.0"])
def test_a_collection_that_is_imported_into_is_refused_by_name(
    milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(survey, "LISTINGS", 2)
    world = milvus(version)
    fill(world)
    importing(world)
    with pytest.raises(SourceChanged, match=r"rows are being imported into default\.docs; back it up when its import jobs have ended"):
        world.backup(collections="docs")
    assert not [key for key in world.keys("backup/nightly") if key.startswith(("meta/", "binlogs/"))]


def test_without_rest_a_running_import_is_seen_over_grpc(milvus: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "LISTINGS", 1)
    world = milvus("2.6.20")
    fill(world)
    importing(world)
    world.address["rest_endpoint"] = NOWHERE
    with pytest.raises(SourceChanged, match=r"rows are being imported into default\.docs"):
        world.backup(collections="docs")


def test_a_collection_is_backed_up_whole_when_the_import_into_it_ends_meanwhile(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    job = importing(world)

    def end() -> None:
        job.fate = Fate()
        world.model.finish_jobs()

    world.at("jobs/import/list", lambda: None, lambda: None, end)  # the first one is whether REST answers
    world.backup(collections="docs")
    assert world.said("rows are being imported into default.docs")
    assert restored(world)["_default"].keys() == {0, 1, 2, 3, 70}


def test_an_import_that_begins_while_segments_are_listed_is_noticed(milvus: Callable[..., World]) -> None:
    world = milvus("2.6.20")
    fill(world)
    jobs: list[Job] = []

    def begin() -> None:
        jobs.append(importing(world))

    def end() -> None:
        jobs[0].fate = Fate()
        world.model.finish_jobs()

    world.at("GetPersistentSegmentInfo", begin)
    # Whether REST answers, before the segments are listed, after it; then all over again.
    world.at("jobs/import/list", *[lambda: None] * 3, end)
    world.backup(collections="docs")
    assert world.said("rows are being imported into default.docs")
    assert restored(world)["_default"].keys() == {0, 1, 2, 3, 70}


def test_the_rows_of_an_import_that_fails_in_the_end_are_in_no_backup(milvus: Callable[..., World]) -> None:
    world = milvus("2.4.24")
    fill(world)
    job = importing(world)

    def fail() -> None:
        world.model.fail_job(job, "index building failed")

    world.at("jobs/import/list", lambda: None, lambda: None, fail)
    world.backup(collections="docs")
    assert restored(world)["_default"].keys() == {0, 1, 2, 3}


@pytest.mark.parametrize("version", ["2.4.24", "2.6.20"])
def test_who_may_not_ask_for_imports_is_told_that_nobody_knows_whether_one_runs(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world)
    rows = world.model.rows(NAME)

    def refuse() -> None:
        raise Refusal(65535, "PrivilegeImport: permission deny to reader in the `default` database")

    world.at("jobs/import/list", *[refuse] * 3)
    world.backup(collections="docs")
    (said,) = [line for line in world.log.lines if "whether rows are being imported into default.docs is not known" in line]
    assert "The privilege Import lets it be asked" in said
    assert restored(world) == rows


@pytest.mark.parametrize("strategy", ["flush", "skip_flush"])
@pytest.mark.parametrize("version", ["2.4.5", "2.4.24", "2.5.4", "2.5.10"])
def test_a_segment_that_is_still_called_flushing_is_backed_up(milvus: Callable[..., World], version: str, strategy: str) -> None:
    world = milvus(version)
    first, second = fill(world, flushes=2)
    world.model.plant_flushing(second)
    rows = world.model.rows(NAME)
    assert rows["_default"].keys() == set(range(8))
    world.backup(strategy=strategy)
    assert world.saved().keys() == {first.id, second.id}
    assert restored(world) == rows


@pytest.mark.parametrize(("version", "twice"), [("2.4.5", True), ("2.4.24", True), ("2.5.4", False), ("2.6.20", False)])
def test_2_4_lists_what_a_clustering_compaction_makes_beside_its_inputs_and_that_is_said(
    milvus: Callable[..., World], version: str, twice: bool
) -> None:
    world = milvus(version)
    schema = shapes.schema("docs")
    schema.fields[0].is_clustering_key = True
    world.model.create_collection(NAME, schema, shards=1)
    world.model.create_index(NAME, "v", "v_index", {"index_type": "FLAT", "metric_type": "L2"})
    (inputs,) = add(world, range(4))
    world.backup("before")
    warning = "rows of default.docs may be in this backup twice"
    assert not world.said(warning)
    made = world.model.begin_clustering(NAME)
    assert world.model.rows(NAME)["_default"].keys() == {0, 1, 2, 3}
    world.backup()
    assert world.said(warning) == twice
    assert world.saved().keys() == ({inputs.id, made.id} if twice else {inputs.id})


def test_storage_version_3_is_refused_with_the_reason(milvus: Callable[..., World]) -> None:
    world = milvus("3.0.0")
    fill(world)
    world.model.plant_v3(NAME, [shapes.row(80)])
    with pytest.raises(UnsupportedFormat, match=r"default\.docs has segments in storage version 3, .* manifests .* format='snapshot'"):
        world.backup()
    assert not [key for key in world.keys("backup/nightly") if key.startswith(("meta/", "binlogs/"))]


# ---- a retry ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.5.10", "3.0.0"])
def test_a_retry_after_a_kill_and_a_compaction_holds_what_is_there_now_and_nothing_else(milvus: Callable[..., World], version: str) -> None:
    world = milvus(version)
    fill(world, flushes=2)
    world.model.delete(NAME, [1])
    stop = threading.Event()
    world.log.actions["copied"] = stop.set
    with pytest.raises(Cancelled):
        world.backup(patience=Patience(stop, timeout=250), owner=Owner("dag.task"))
    assert [key for key in world.keys("backup/nightly") if key.startswith("meta/")] == []
    world.model.compact_l0(NAME)
    world.model.compact(NAME)
    world.model.collect_garbage(NAME)
    world.model.upsert(NAME, [{"id": 2, "v": [9.0, 9.0]}])
    world.backup(owner=Owner("dag.task", attempt=2))
    world.checked()  # also that there is no object of the first try
    assert restored(world) == world.model.rows(NAME)
