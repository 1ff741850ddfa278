"""What each version of Milvus wants of an import job: paths, bounds, deletes in L0 segments, options."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_milvus_backup.core import imports, layout
from airflow_provider_milvus_backup.core.capabilities import Capabilities
from airflow_provider_milvus_backup.core.doors import RestDoor
from airflow_provider_milvus_backup.core.errors import SourceChanged
from airflow_provider_milvus_backup.core.job_planning import JobRules, Places, folded_copies, is_folded, plan_jobs
from airflow_provider_milvus_backup.core.meta import Collection, FieldLogs, Log, Partition, Segment
from airflow_provider_milvus_backup.core.plan import BackupPlan
from airflow_provider_milvus_backup.core.restore_state import Job, Target
from tests.contract.buckets import MemoryBucket
from tests.contract.model import Model
from tests.contract.profiles import PROFILES
from tests.unit.histories import (
    FLUSHING,
    SOURCE,
    TARGET,
    VERSIONS,
    History,
    Step,
    Way,
    contents,
    copied,
    flushed,
    jobs_for,
    lived,
    planned,
    restored,
    run,
    take,
)

HUGE = 2**40
#: Versions on both sides of each change.
BEFORE_2_4, BEFORE_L0_IMPORT, L0_IMPORT, MANY_L0 = (
    ("2.3.5", "2.3.22"),
    ("2.4.0", "2.4.4"),
    ("2.4.5", "2.5.27", "2.6.4"),
    ("2.6.5", "2.6.20"),
)


def segment(number: int, size: int = 10, **more: Any) -> Segment:
    """A data segment of partition 2 with one log, in a group of its own."""
    given = {"segment_id": number, "partition_id": 2, "rows": 1, "deltas": [], "group_id": number, **more}
    return Segment(inserts=[FieldLogs(0, [Log(number * 10, size)])], **given)


def l0(number: int, partition: int = layout.ALL_PARTITIONS) -> Segment:
    """An L0 segment with one delta log."""
    group = None if partition == layout.ALL_PARTITIONS else number
    return Segment(number, partition, 0, [], [FieldLogs(0, [Log(number * 10, 5)])], group, is_l0=True)


def collection(*segments: Segment) -> Collection:
    """A collection of partitions 2 and 3."""
    partitions = [
        Partition(number, name, [s for s in segments if s.partition_id == number]) for number, name in ((2, "_default"), (3, "p"))
    ]
    return Collection(1, SOURCE, {}, 1, 2, partitions, [s for s in segments if s.partition_id == layout.ALL_PARTITIONS])


def jobs_of(version: str, *segments: Segment, max_bytes: int = HUGE, append: bool = False) -> list[Job]:
    """The jobs of a restore into one version, by the best door that it has."""
    capabilities, one = Capabilities(version), collection(*segments)
    rules = JobRules.of(capabilities, 0 if version.startswith("2.3") else RestDoor.per_job, max_bytes)
    return plan_jobs(one, Places("b/", None, "f/" if is_folded(one, rules, append=append) else None), rules, [])


def files(version: str, *segments: Segment, **more: Any) -> list[tuple[str, list[list[str]]]]:
    """The partition and the import files of each job."""
    return [(job.partition, job.files) for job in jobs_of(version, *segments, **more)]


def empty(version: str) -> Model:
    """A target with one partition."""
    return lived(History([], version), version, TARGET)


def with_deletes(version: str) -> Model:
    """A source of two partitions: key 0 is deleted everywhere, key 1 in one of them, key 2 is written anew."""
    steps = [
        Step("insert", (0, 1, 2), "_default"),
        Step("insert", (0, 1, 2), "p1"),
        FLUSHING,
        Step("delete", (0,)),
        Step("delete", (1,), "p1"),
        Step("upsert", (2,), "_default"),
        FLUSHING,
    ]
    return lived(History(steps, version, partitions=2), version)


def backed_up(model: Model) -> tuple[BackupPlan, MemoryBucket]:
    """The plan of a backup, and the objects copied by it."""
    plan = planned(model)
    return plan, copied(plan, model)


# ---- paths -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.4.0", *VERSIONS])
def test_from_2_4_on_there_is_no_path_for_deltas_where_there_are_none(version: str) -> None:
    deleted = segment(12, deltas=[FieldLogs(0, [Log(9, 5)])])
    assert files(version, segment(11), deleted) == [
        ("_default", [["b/insert_log/1/2/11/"], ["b/insert_log/1/2/12/", "b/delta_log/1/2/12/"]])
    ]


@pytest.mark.parametrize("version", BEFORE_2_4)
def test_before_2_4_there_are_exactly_two_paths_whatever_was_deleted(version: str) -> None:
    deleted = segment(12, deltas=[FieldLogs(0, [Log(9, 5)])])
    assert files(version, segment(11)) == [("_default", [["b/insert_log/1/2/11/", ""]])]
    assert files(version, segment(11), deleted) == [("_default", [["b/insert_log/1/2/", "b/delta_log/1/2/"]])]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("staged", [True, False])
def test_every_path_ends_in_a_slash_and_none_is_empty(version: str, staged: bool) -> None:
    plan, backups = backed_up(with_deletes(version))
    target = lived(History([], version, partitions=2), version, TARGET)
    for append in (True, False):
        paths = [
            path for job in jobs_for(plan, backups, target, Way(staged=staged), append=append).jobs for file in job.files for path in file
        ]
        assert paths
        assert all(path.endswith("/") and target.bucket.list(path) for path in paths)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_segment_whose_id_begins_like_that_of_another_is_not_imported_with_it(version: str) -> None:
    (_, [one]), (_, [ten]) = files(version, segment(1), segment(10), max_bytes=1)
    keys = {number: f"b/insert_log/1/2/{number}/{number}/0/{number}0" for number in (1, 10)}
    assert [[key for key in keys.values() if key.startswith(prefix)] for (prefix,) in (one, ten)] == [[keys[1]], [keys[10]]]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_group_that_several_segments_share_is_imported_once(version: str) -> None:
    source = with_deletes(version)
    plan = planned(source)
    (one,) = plan.backup.collections
    # Groups of segments are named after any number; the official tool makes one of several small segments.
    shared = [replace(part, segments=[s if s.is_l0 else replace(s, group_id=7) for s in part.segments]) for part in one.partitions]
    plan = replace(plan, backup=replace(plan.backup, collections=[replace(one, partitions=shared)]))
    target = restored(plan, copied(plan, source), version, Way())
    assert contents(target, TARGET) == contents(source, SOURCE)
    assert set(target.copies(TARGET).values()) == {1, 2}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_segment_without_rows_and_files_is_in_no_job(version: str) -> None:
    model = lived(History([Step("insert", (0,), "_default"), FLUSHING], version), version)
    model.plant_empty(SOURCE)
    plan, backups = backed_up(model)
    assert len(model.listed(SOURCE)) == 2
    assert [job.segments for job in jobs_for(plan, backups, empty(version), Way()).jobs] == [1]
    assert contents(restored(plan, backups, version, Way()), TARGET) == contents(model, SOURCE)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_job_of_data_names_a_partition(version: str) -> None:
    assert [job.partition for job in jobs_of(version, segment(11), segment(12, partition_id=3))] == ["_default", "p"]


# ---- bounds ------------------------------------------------------------------------------------------------------------------------


def test_a_job_has_256_segments_at_most() -> None:
    jobs = jobs_of("2.6.20", *(segment(1000 + number) for number in range(600)))
    assert sorted(len(job.files) for job in jobs) == [88, 256, 256]
    assert len({path for job in jobs for (path,) in job.files}) == 600
    assert [job.segments for job in jobs] == [len(job.files) for job in jobs]


def test_a_job_has_no_more_bytes_than_allowed_unless_one_segment_has_them_alone() -> None:
    sizes = [40, 40, 40, 150, 60]
    jobs = jobs_of("2.6.20", *(segment(11 + number, size) for number, size in enumerate(sizes)), max_bytes=100)
    assert sorted(job.bytes for job in jobs) == [40, 60, 80, 150]
    assert sum(len(job.files) for job in jobs) == len(sizes)


@pytest.mark.parametrize("version", ["2.6.4", "2.6.20", "3.0.0"])
def test_segments_of_different_storage_versions_are_never_in_one_job(version: str) -> None:
    steps = [Step("insert", (0,), "_default"), FLUSHING, Step("insert", (1,), "_default"), FLUSHING]
    source = lived(History(steps, "2.5.10"), version)
    plan, backups = backed_up(source)
    target = empty(version)
    jobs = jobs_for(plan, backups, target, Way())
    assert sorted((job.storage_version, job.segments) for job in jobs.jobs) == [(1, 1), (2, 1)]
    run(target, jobs, Way())
    assert contents(target, TARGET) == contents(source, SOURCE)


# ---- deletes in L0 segments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", L0_IMPORT)
def test_before_2_6_5_a_job_has_one_l0_segment(version: str) -> None:
    assert files(version, segment(11), l0(21), l0(22))[1:] == [("", [["b/delta_log/1/-1/21/"]]), ("", [["b/delta_log/1/-1/22/"]])]


@pytest.mark.parametrize("version", MANY_L0)
def test_from_2_6_5_on_a_job_has_many_l0_segments(version: str) -> None:
    assert files(version, segment(11), l0(21), l0(22))[1:] == [("", [["b/delta_log/1/-1/21/"], ["b/delta_log/1/-1/22/"]])]
    many = files(version, segment(11), *(l0(100 + number) for number in range(300)))[1:]
    assert sorted(len(few) for _, few in many) == [44, 256]


@pytest.mark.parametrize("version", [*L0_IMPORT, *MANY_L0])
def test_deletes_of_all_partitions_are_imported_without_one_and_others_with_theirs(version: str) -> None:
    found = files(version, segment(11), l0(21), l0(22, 2), l0(23, 3))
    assert sorted(found[1:]) == [
        ("", [["b/delta_log/1/-1/21/"]]),
        ("_default", [["b/delta_log/1/2/22/"]]),
        ("p", [["b/delta_log/1/3/23/"]]),
    ]


@pytest.mark.parametrize("version", [*L0_IMPORT, *MANY_L0])
def test_l0_segments_are_due_when_all_data_is_there(version: str) -> None:
    target = Target(SOURCE, TARGET, TARGET, jobs=jobs_of(version, segment(11), segment(12, partition_id=3), l0(21), l0(22, 2)))
    data = [job for job in target.jobs if not job.l0]
    for number, job in enumerate(data, 1):
        assert not any(one.l0 for one in target.due)
        job.job_id = number
    assert target.due == []
    for job in data:
        job.state = imports.JobState.COMPLETED.value
    assert target.due == [job for job in target.jobs if job.l0] != []


@pytest.mark.parametrize("version", [*BEFORE_2_4, *BEFORE_L0_IMPORT, "3.0.0", "3.0.1", "master-20261101-abc"])
def test_l0_segments_are_folded_where_they_cannot_be_imported(version: str) -> None:
    segments = segment(11), segment(12, partition_id=3), l0(21), l0(22, 3)
    jobs = jobs_of(version, *segments)
    assert [job.l0 for job in jobs] == [False, False]
    assert {path for job in jobs for file in job.files for path in file if "delta_log" in path} == {
        "f/delta_log/1/2/11/",
        "f/delta_log/1/3/12/",
    }
    copies = Counter(copy.destination for copy in folded_copies(collection(*segments), "b/", "f/"))
    assert copies == {"f/delta_log/1/2/11/11/210": 1, "f/delta_log/1/3/12/12/210": 1, "f/delta_log/1/3/12/12/220": 1}


def test_logs_of_the_same_name_are_folded_beside_each_other() -> None:
    own = [FieldLogs(0, [Log(7, 1), Log(8, 2)])]
    twins = [replace(l0(number), deltas=[FieldLogs(0, [Log(7, number)])]) for number in (21, 22)]
    copies = list(folded_copies(collection(segment(11, deltas=own), *twins), "b/", "f/"))
    assert len({copy.destination for copy in copies}) == 4
    assert [copy.source for copy in copies] == [
        "b/delta_log/1/2/11/11/7",
        "b/delta_log/1/2/11/11/8",
        "b/delta_log/1/-1/21/7",
        "b/delta_log/1/-1/22/7",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_rows_are_appended_to_a_loaded_collection_and_its_own_rows_are_spared(version: str) -> None:
    source = with_deletes(version)
    there = History([Step("insert", (0, 1, 2), "_default"), Step("insert", (1,), "p1"), FLUSHING], version, partitions=2)
    target = lived(there, version, TARGET, years=-1)
    target.create_index(TARGET, "v", "v", {"index_type": "FLAT"})
    target.load(TARGET)
    before = contents(target, TARGET)
    plan, backups = backed_up(source)
    jobs = jobs_for(plan, backups, target, Way(), append=True)
    assert not any(job.l0 for job in jobs.jobs)
    run(target, jobs, Way())
    assert contents(target, TARGET) == before + contents(source, SOURCE)


def test_l0_segments_are_known_by_their_files_where_milvus_does_not_say_the_level() -> None:
    found = [segment for segment in planned(with_deletes("2.4.5")).backup.collections[0].segments() if segment.is_l0]
    assert {(segment.partition_id > 0, bool(segment.inserts), bool(segment.deltas)) for segment in found} == {
        (True, False, True),
        (False, False, True),
    }


# ---- stray logs --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_that_an_unfinished_write_has_left_is_refused_or_left_out(version: str) -> None:
    model = lived(History([Step("insert", (0,), "_default"), FLUSHING], version), version)
    (there,) = model.listed(SOURCE)
    model.plant_stray_log(there.id, 101)
    if not model.profile.segments_describe:
        with pytest.raises(SourceChanged, match=f"segment {there.id} has different numbers of binlogs per field .*field 101: 2"):
            planned(model)
        return
    plan, backups = backed_up(model)
    assert contents(restored(plan, backups, version, Way()), TARGET) == contents(model, SOURCE)


# ---- options -----------------------------------------------------------------------------------------------------------------------

TS = (1_795_000_000_123 << 18) + 5
MILLISECONDS = ("2.3.5", "2.4.0", "2.4.23", "2.5.0", "2.5.5")
HYBRID = ("2.4.24", "2.4.25", "2.5.6", "2.5.27", "2.6.0", "2.6.20", "3.0.0")


def options(version: str, **more: Any) -> dict[str, str]:
    return imports.options(Capabilities(version), **{"l0": False, "storage_version": 0, "end_ts": 0, "tag": "t", **more})


@pytest.mark.parametrize("version", MILLISECONDS)
def test_end_ts_is_in_milliseconds_before_2_4_24_and_2_5_6(version: str) -> None:
    assert options(version, end_ts=TS)["end_ts"] == "1795000000124"


@pytest.mark.parametrize("version", HYBRID)
def test_end_ts_is_a_hybrid_timestamp_from_2_4_24_and_2_5_6_on(version: str) -> None:
    assert options(version, end_ts=TS)["end_ts"] == str(TS)


@pytest.mark.parametrize("version", [*MILLISECONDS, *HYBRID])
def test_no_end_ts_is_sent_that_nobody_asked_for(version: str) -> None:
    assert "end_ts" not in options(version)


@pytest.mark.parametrize("version", ["2.4.5", "2.4.24", "2.5.4", "2.5.10", "2.6.20", "3.0.0"])
def test_a_row_of_the_millisecond_of_the_flush_is_not_lost(version: str) -> None:
    model = lived(History([Step("insert", (0, 1), "_default"), Step("insert", (2,), "_default")], version), version)
    flush_ts = flushed(model, SOURCE)
    wanted = contents(model, SOURCE)
    assert {row.ts >> 18 for _, row in model.live(SOURCE)} == {flush_ts >> 18}
    take(model, SOURCE, Step("insert", (3,), "_default"))
    take(model, SOURCE, FLUSHING)
    plan = planned(model, flush_ts=flush_ts)
    assert contents(restored(plan, copied(plan, model), version, Way(), cut=True), TARGET) == wanted


@pytest.mark.parametrize("version", ["2.3.5", *PROFILES])
@pytest.mark.parametrize("of_l0", [True, False])
def test_options_are_strings(version: str, of_l0: bool) -> None:
    given = options(version, l0=of_l0, storage_version=2, end_ts=TS)
    assert {type(value) for pair in given.items() for value in pair} == {str}
    assert {"backup": given.get("backup"), "l0_import": given.get("l0_import")} == {
        "backup": None if of_l0 else "true",
        "l0_import": "true" if of_l0 else None,
    }


def test_a_job_says_which_storage_version_it_imports_unless_it_is_the_first() -> None:
    assert [options("2.6.20", storage_version=version).get("storage_version") for version in (0, 1, 2)] == [None, None, "2"]
