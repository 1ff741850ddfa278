"""What the model of a Milvus refuses to import, and what becomes of its jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.contract import shapes
from tests.contract.binlogs import Delete, delta_log
from tests.contract.buckets import MemoryBucket
from tests.contract.jobs import Fate, Job
from tests.contract.model import Model
from tests.contract.profiles import PROFILES
from tests.contract.refusals import Refusal
from tests.contract.scenes import BEFORE_3, SOURCE, TARGET, Clock, dirs, done, filled, made, options

WRAPPED = "failed to broadcast import: failed to validate import request: "


def with_target(version: str, **more: Any) -> tuple[Model, Any]:
    model, source = filled(version, **more)
    model.create_collection(TARGET, shapes.schema("target"))
    return model, source


def refusal(model: Model, files: list[list[str]], opts: dict[str, str] | None = None, partition: str = "_default") -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        model.import_job(TARGET, files, options(model) if opts is None else opts, partition)
    return caught.value.code, caught.value.reason


# ---- refused at once ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", PROFILES)
def test_prefixes_without_anything_below_are_refused_and_from_2_6_on_the_reason_is_wrapped(version: str) -> None:
    model, _ = with_target(version)
    prefix = WRAPPED if version >= "2.6" else ""
    assert refusal(model, [["nowhere/", "none/"]]) == (
        2100,
        f'{prefix}no binlog to import, input=[paths:"nowhere/" paths:"none/"]: importing data failed',
    )


@pytest.mark.parametrize("version", PROFILES)
def test_three_paths_are_too_many(version: str) -> None:
    model, _ = with_target(version)
    code, text = refusal(model, [["a/", "b/", "c/"]])
    assert code == 2100
    assert "too many input paths for binlog import. Valid paths length should be one or two, but got paths:[a/ b/ c/]" in text


@pytest.mark.parametrize("version", PROFILES)
def test_requests_that_say_too_little_or_name_what_is_not_there(version: str) -> None:
    model, source = with_target(version)
    files = [dirs(source)]
    assert refusal(model, files, partition="") == (1100, "partition not specified: invalid parameter")
    assert refusal(model, files, partition="nope") == (200, "partition not found[partition=nope]")
    assert refusal(model, []) == (1100, "import request is empty: invalid parameter")
    assert refusal(model, files, {"backup": "True!"})[0] == 2100
    with pytest.raises(Refusal, match=r"collection not found\[database=default\]\[collection=nope\]"):
        model.import_job(("default", "nope"), files, options(model), "_default")
    with pytest.raises(Refusal, match=r"database not found\[database=nope\]"):
        model.import_job(("nope", "target"), files, options(model), "_default")


@pytest.mark.parametrize("version", BEFORE_3)
def test_an_l0_import_needs_a_released_collection(version: str) -> None:
    model, _ = with_target(version)
    model.create_index(TARGET, "v", "v", {"index_type": "FLAT"})
    model.load(TARGET)
    assert refusal(model, [["any/"]], {"l0_import": "true"}, "") == (
        2100,
        "for l0 import, collection cannot be loaded, please release it first: importing data failed",
    )
    model.release(TARGET)
    assert model.import_job(TARGET, [["any/"]], {"l0_import": "true"})


@pytest.mark.parametrize("version", ["3.0.0", "3.0.1"])
def test_3_0_has_no_l0_import(version: str) -> None:
    model, _ = with_target(version)
    code, text = refusal(model, [["any/"]], {"l0_import": "true"}, "")
    assert (code, text.partition(" (")[0]) == (2100, "l0 import is disabled")


def test_jobs_are_limited_from_2_4_14_on_and_files_always() -> None:
    for version, profile in PROFILES.items():
        assert (profile.max_jobs, profile.max_files) == (1024 if profile.import_describe else None, 1024)
        model, source = with_target(version)
        model.profile = replace(profile, max_jobs=profile.max_jobs and 3, max_files=4)
        model.phase_seconds = 1e9
        assert refusal(model, [["a/"]] * 5)[1].startswith("The max number of import files should not exceed 4, but got 5")
        for _ in range(3):
            model.import_job(TARGET, [dirs(source)], options(model), "_default")
        if profile.max_jobs is None:
            assert model.import_job(TARGET, [dirs(source)], options(model), "_default")
            continue
        code, text = refusal(model, [dirs(source)])
        assert code == (2101 if version == "3.0.1" else 2100)
        assert "The number of jobs has reached the limit, please try again later." in text


def test_segments_below_the_prefixes_are_counted_like_pairs() -> None:
    model, source = with_target("2.6.4")
    model.profile = replace(model.profile, max_files=1)
    assert "The max number of import files should not exceed 1, but got 2" in refusal(model, [dirs(source)])[1]


# ---- refused by the tasks ----------------------------------------------------------------------------------------------------------


def test_a_stray_log_in_one_directory_fails_the_job() -> None:
    for version, directory, counts in (("2.5.10", 101, "field101:6, field0:5"), ("2.6.4", 101, "field101:6, field0:5")):
        model, source = with_target(version, shards=1)
        model.plant_stray_log(model.listed(SOURCE)[0].id, directory)
        progress = done(model, [dirs(source)])
        assert (progress.state, progress.progress) == ("Failed", 0)
        assert progress.reason == f"misaligned binlog count, {counts}: importing data failed"
        assert model.row_count(TARGET) == 0


def test_missing_directories_fail_the_job() -> None:
    cases = {
        ("2.5.10", "/0/"): "no binlog for RowID field",
        ("2.6.4", "/0/"): "no binlog for system fields",
        ("2.5.10", "/1/"): "no binlog for Timestamp field",
        ("2.5.10", "/101/"): "no binlog for field:v",
        ("2.6.4", "/101/"): "no binlog for field:v",
        ("2.4.24", "/100/"): "no binlog for field:id",
    }
    for (version, directory), reason in cases.items():
        model, source = with_target(version)
        for key in model.bucket.list("files/insert_log/"):
            if directory in key:
                model.bucket.delete(key)
        assert done(model, [dirs(source)]).reason == f"{reason}: importing data failed"


def test_nullable_and_dynamic_fields_need_no_logs_from_2_5_on() -> None:
    outcomes = {}
    for version in ("2.4.24", "2.5.4", "2.6.4"):
        model, source = filled(version)
        schema = shapes.schema("target", dynamic=True)
        schema.fields.append(shapes.field("more", shapes.INT64, nullable=True))
        model.create_collection(TARGET, schema)
        progress = done(model, [dirs(source)])
        outcomes[version] = progress.reason or model.rows(TARGET)["_default"][3]
    assert outcomes == {
        "2.4.24": "no binlog for field:more: importing data failed",
        "2.5.4": shapes.row(3, more=None),
        "2.6.4": shapes.row(3, more=None),
    }


def test_a_v2_segment_is_not_read_without_its_storage_version() -> None:
    model, source = with_target("2.6.4")
    job = model.import_job(TARGET, [dirs(source)], {"backup": "true"}, "_default")
    model.finish_jobs()
    assert model.progress(job).reason == "no binlog for Timestamp field: importing data failed"


def test_columns_of_another_type_or_dimension_fail_the_job() -> None:
    for field, reason in (
        (shapes.field("v", shapes.FLOAT_VECTOR, dim="4"), "vector dimension 2 is not equal to schema dimension 4"),
        (shapes.field("v", shapes.SPARSE), "binlog is FloatVector type, unequal to field 101"),
    ):
        model, source = filled("2.5.10")
        model.create_collection(TARGET, shapes.schema("target", shapes.field("id", shapes.INT64, key=True), field))
        assert done(model, [dirs(source)]).reason == f"{reason}: importing data failed"


def test_what_is_no_number_in_the_place_of_a_field_fails_the_job() -> None:
    model, source = with_target("2.5.10")
    segment = model.listed(SOURCE)[0]
    model.bucket.put(f"{dirs(source)[0]}{segment.id}/notes/1", b"")
    assert done(model, [dirs(source)]).reason.startswith("failed to parse field id from log, error: strconv.ParseInt: parsing ")


def test_a_truncated_log_fails_the_job() -> None:
    model, source = with_target("2.6.4")
    key = model.bucket.list("files/insert_log/")[0]
    model.bucket.put(key, model.bucket.get(key)[:-20])
    assert done(model, [dirs(source)]).state == "Failed"
    assert model.copies(TARGET) == {}


@pytest.mark.parametrize("version", BEFORE_3)
def test_several_l0_prefixes_in_one_job_work_from_2_6_5_on(version: str) -> None:
    model, source = with_target(version)
    done(model, [dirs(source)])
    for number in (1, 2):
        model.bucket.put(f"l0/{number}/7", delta_log([Delete(number, model.next_ts())]))
    job = model.import_job(TARGET, [["l0/1/"], ["l0/2/"]], {"l0_import": "true"})
    model.finish_jobs()
    progress = model.progress(job)
    if model.profile.many_l0_prefixes:
        assert progress.state == "Completed"
        assert set(model.copies(TARGET)) == {0, 3, 4, 5, 6, 7, 8, 9}
    else:
        assert progress.reason.startswith("there should be one prefix for l0 import, but got [[l0/1/] [l0/2/]]")
        assert set(model.copies(TARGET)) == set(range(10))


def test_an_l0_import_into_one_partition_leaves_the_others_alone() -> None:
    model = made("2.6.4")
    model.create_collection(TARGET, shapes.schema("target"))
    model.create_partition(TARGET, "p")
    for partition in ("_default", "p"):
        model.insert(TARGET, [shapes.row(1)], partition)
    model.flush(TARGET)
    model.bucket.put("l0/1/7", delta_log([Delete(1, model.next_ts())]))
    model.import_job(TARGET, [["l0/1/"]], {"l0_import": "true"}, "p")
    model.finish_jobs()
    assert model.rows(TARGET) == {"_default": {1: shapes.row(1)}, "p": {}}
    model.import_job(TARGET, [["l0/1/"]], {"l0_import": "true"})
    model.finish_jobs()
    assert model.rows(TARGET) == {"_default": {}, "p": {}}


def test_a_segment_of_storage_version_3_cannot_be_read_by_its_prefix() -> None:
    model = made("3.0.0")
    source = model.create_collection(SOURCE, shapes.schema("source"))
    model.plant_v3(SOURCE, [shapes.row(1)])
    model.create_collection(TARGET, shapes.schema("target"))
    assert done(model, [[dirs(source)[0]]], storage_version="3").state == "Failed"
    assert done(model, [[dirs(source)[0]]], storage_version="2").state == "Failed"


# ---- jobs --------------------------------------------------------------------------------------------------------------------------


def started(version: str, fate: Fate | None = None, **more: str) -> tuple[Model, Clock, Job]:
    clock = Clock()
    model = Model(PROFILES[version], MemoryBucket(), monotonic=clock)
    source = model.create_collection(SOURCE, shapes.schema("source"))
    model.insert(SOURCE, [shapes.row(1)])
    model.flush(SOURCE)
    model.create_collection(TARGET, shapes.schema("target"))
    if fate:
        model.fates.append(fate)
    return model, clock, model.import_job(TARGET, [[dirs(source)[0]]], options(model, **more), "_default")


@pytest.mark.parametrize(
    ("version", "ranges"),
    [
        ("2.4.24", [("Pending", 0), ("Importing", 10), ("Importing", 40), ("Importing", 70), ("Completed", 100)]),
        ("2.5.10", [("Pending", 0), ("Importing", 10), ("Importing", 40), ("Importing", 70), ("Importing", 80), ("Completed", 100)]),
        ("2.6.4", [("Pending", 0), ("Importing", 10), ("Importing", 40), ("Importing", 70), ("Importing", 80), ("Completed", 100)]),
    ],
)
def test_a_job_goes_through_the_states_of_its_version(version: str, ranges: list[tuple[str, int]]) -> None:
    model, clock, job = started(version)
    model.phase_seconds = 2.0
    seen = []
    for _ in range(len(ranges)):
        progress = model.progress(model.job(job.id))
        seen.append((progress.state, progress.progress))
        clock.now += 2
    assert seen == ranges
    assert model.copies(TARGET) == {1: 1}


def test_rows_of_a_job_that_is_not_completed_are_invisible_and_its_segments_are_listed() -> None:
    listed = {}
    for version in ("2.4.5", "2.5.10", "2.6.4"):
        model, clock, job = started(version)
        clock.now += 3.5 * model.phase_seconds
        assert (model.progress(model.job(job.id)).state, model.copies(TARGET)) == ("Importing", {})
        listed[version] = [len(segment.rows) for segment in model.listed(TARGET)]
    assert listed == {"2.4.5": [1], "2.5.10": [1], "2.6.4": [1]}


def test_a_job_can_be_told_to_fail() -> None:
    model, _, job = started("2.6.4", Fate(fail="no space left"))
    model.finish_jobs()
    progress = model.progress(model.job(job.id))
    assert (progress.state, progress.reason, model.copies(TARGET)) == ("Failed", "no space left", {})


def test_a_job_can_be_told_to_hang() -> None:
    model, clock, job = started("2.6.4", Fate(hang="IndexBuilding"))
    clock.now += 3600
    assert model.progress(model.job(job.id)).state == "Importing"
    job.fate = Fate()
    assert model.progress(model.job(job.id)).state == "Completed"


def test_a_job_takes_no_longer_than_it_may() -> None:
    model, clock, job = started("2.6.4", Fate(hang="Importing"), timeout="1m30s")
    clock.now += 89
    assert model.progress(model.job(job.id)).state == "Importing"
    clock.now += 2
    assert model.progress(model.job(job.id)).reason == "import timeout"
    with pytest.raises(Refusal, match='parse timeout failed, err=time: invalid duration "90"'):
        model.import_job(TARGET, [["a/"]], options(model, timeout="90"), "_default")


def test_the_disk_quota_is_skipped_on_request_by_2_4_for_data_alone() -> None:
    outcomes = {}
    for version in ("2.4.24", "2.5.4"):
        model, source = with_target(version)
        model.quota_exceeded = True
        model.bucket.put("l0/1/7", delta_log([Delete(1, model.next_ts())]))
        plain = done(model, [dirs(source)])
        assert plain.reason == "quota exceeded[reason=disk quota exceeded, please allocate more resources]"
        data = done(model, [dirs(source)], skip_disk_quota_check="true")
        job = model.import_job(TARGET, [["l0/1/"]], {"l0_import": "true", "skip_disk_quota_check": "true"})
        model.finish_jobs()
        outcomes[version] = (data.state, model.progress(job).state)
    assert outcomes == {"2.4.24": ("Completed", "Failed"), "2.5.4": ("Completed", "Completed")}


@pytest.mark.parametrize(("version", "code"), [("2.4.5", 2100), ("2.6.20", 2100), ("3.0.1", 2101)])
def test_the_record_of_a_job_is_gone_three_hours_after_its_end(version: str, code: int) -> None:
    model, clock, job = started(version)
    model.finish_jobs()
    clock.now += 10_700
    assert [known.id for known in model.jobs_of(TARGET)] == [job.id]
    clock.now += 200
    with pytest.raises(Refusal, match=f"import job does not exist, jobID={job.id}") as caught:
        model.job(job.id)
    assert caught.value.code == code
    assert model.jobs_of(None) == []
    assert model.copies(TARGET) == {1: 1}


def test_a_job_whose_record_shall_be_lost_is_done_all_the_same() -> None:
    model, _, job = started("2.5.10", Fate(forget=True))
    model.finish_jobs()
    with pytest.raises(Refusal, match="import job does not exist"):
        model.job(job.id)
    assert model.copies(TARGET) == {1: 1}


def test_a_job_fails_when_its_collection_is_dropped() -> None:
    model, _, job = started("2.5.10")
    model.drop_collection(TARGET)
    model.finish_jobs()
    assert model.progress(model.job(job.id)).reason == f"collection {job.collection_id} dropped"


def test_3_0_waits_for_a_commit_when_it_is_told_to() -> None:
    model, clock, job = started("3.0.0", auto_commit="false")
    clock.now += 60
    assert (model.progress(model.job(job.id)).state, model.copies(TARGET)) == ("Uncommitted", {})
    model.commit_job(job.id)
    clock.now += 60
    assert (model.progress(model.job(job.id)).state, model.copies(TARGET)) == ("Completed", {1: 1})
    with pytest.raises(Refusal, match="cannot be aborted"):
        model.abort_job(job.id)


def test_an_aborted_job_leaves_no_rows() -> None:
    model, clock, job = started("3.0.0", auto_commit="false")
    clock.now += 60
    model.abort_job(job.id)
    assert (model.progress(model.job(job.id)).state, model.copies(TARGET), model.listed(TARGET)) == ("Failed", {}, [])


def test_with_auto_commit_3_0_shows_importing_at_99() -> None:
    model, clock, job = started("3.0.0")
    clock.now += 5.5 * model.phase_seconds
    progress = model.progress(model.job(job.id))
    assert (progress.state, progress.progress, model.copies(TARGET)) == ("Importing", 99, {})
    clock.now += 2 * model.phase_seconds
    assert (model.progress(model.job(job.id)).state, model.copies(TARGET)) == ("Completed", {1: 1})
