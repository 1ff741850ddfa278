"""The model of a Milvus keeps and imports rows as a Milvus does; what it would refuse, the model refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.binlog import count_rows
from tests.contract import shapes
from tests.contract.buckets import children
from tests.contract.jobs import Progress
from tests.contract.profiles import PROFILES
from tests.contract.scenes import BEFORE_3, SOURCE, TARGET, Clock, dirs, done, filled, l0_of, made
from tests.contract.state import ALL_PARTITIONS, L0

# ---- rows --------------------------------------------------------------------------------------------------------------------------

PARTITIONS = ("_default", "other")
STEPS = st.one_of(
    st.tuples(st.just("insert"), st.integers(0, 5), st.sampled_from(PARTITIONS)),
    st.tuples(st.just("upsert"), st.integers(0, 5), st.sampled_from(PARTITIONS)),
    st.tuples(st.just("delete"), st.integers(0, 5), st.sampled_from(("", *PARTITIONS))),
    st.tuples(st.sampled_from(("flush", "compact", "compact_l0")), st.just(0), st.just("")),
)


@settings(max_examples=60, deadline=None)
@given(version=st.sampled_from(sorted(PROFILES)), steps=st.lists(STEPS, max_size=25))
def test_rows_are_those_of_a_plain_list_of_rows_whatever_is_flushed_and_compacted(version: str, steps: list[Any]) -> None:
    model = made(version)
    model.create_collection(SOURCE, shapes.schema("source"), shards=2)
    model.create_partition(SOURCE, "other")
    expected: list[tuple[int, str, float]] = []
    for number, (verb, pk, partition) in enumerate(steps):
        row = {"id": pk, "v": [float(number), 0.0]}
        if verb in ("delete", "upsert"):
            expected = [(p, where, v) for p, where, v in expected if p != pk or partition not in ("", where)]
        if verb in ("insert", "upsert"):
            expected.append((pk, partition, float(number)))
        if verb == "insert":
            model.insert(SOURCE, [row], partition)
        elif verb == "upsert":
            model.upsert(SOURCE, [row], partition)
        elif verb == "delete":
            model.delete(SOURCE, [pk], partition)
        else:
            getattr(model, verb)(SOURCE)
    found = [(row.pk, partition, row.values[101][0]) for partition, row in model.live(SOURCE)]
    assert sorted(found) == sorted(expected)


def test_an_upsert_spares_its_own_row_through_all_compactions() -> None:
    model = made("2.6.4")
    model.create_collection(SOURCE, shapes.schema("source"))
    model.upsert(SOURCE, [shapes.row(1)])
    model.flush(SOURCE)
    model.compact_l0(SOURCE)
    assert [len(segment.deletes) for segment in model.listed(SOURCE)] == [1]
    model.compact(SOURCE)
    assert [len(segment.deletes) for segment in model.listed(SOURCE)] == [0]
    assert model.copies(SOURCE) == {1: 1}


@pytest.mark.parametrize("version", PROFILES)
def test_a_flush_writes_milvus_own_key_layout(version: str) -> None:
    model, collection = filled(version, shards=1, dynamic=True)
    model.delete(SOURCE, [1])
    model.delete(SOURCE, [2], "_default")
    model.flush(SOURCE)
    segment = next(segment for segment in model.listed(SOURCE) if segment.level != L0)
    directories = {0, 1, 100, 101, 102} if model.profile.storage_version == 1 else {0, 101}
    insert = f"files/insert_log/{collection.id}/{collection.partitions[0].id}/{segment.id}/"
    assert set(segment.insert_logs) == directories
    assert model.bucket.list("files/insert_log/") == sorted(
        f"{insert}{directory}/{log}" for directory, logs in segment.insert_logs.items() for log in logs
    )
    assert {len(logs) for logs in segment.insert_logs.values()} == {5}
    assert model.bucket.list("files/delta_log/") == sorted(
        f"files/delta_log/{collection.id}/{l0.partition_id}/{l0.id}/{l0.delta_logs[0]}" for l0 in l0_of(model)
    )
    assert {l0.partition_id for l0 in l0_of(model)} == {ALL_PARTITIONS, collection.partitions[0].id}


def test_delta_logs_are_counted_by_the_providers_own_reader() -> None:
    model, _ = filled("2.5.10", shards=1)
    model.delete(SOURCE, [3, 4, 5])
    model.flush(SOURCE)
    (key,) = model.bucket.list("files/delta_log/")
    assert count_rows(model.bucket.get(key), key) == 3


def test_ids_are_given_by_position_and_the_dynamic_field_comes_before_struct_arrays() -> None:
    model = made("2.6.4")
    schema = shapes.schema("source", dynamic=True)
    struct = schema.struct_array_fields.add(name="chunks")
    struct.fields.append(shapes.field("emb", shapes.ARRAY_OF_VECTOR, element_type=shapes.FLOAT_VECTOR, dim="2"))
    collection = model.create_collection(SOURCE, schema)
    model.add_field(SOURCE, shapes.field("late", shapes.INT64, nullable=True, default=7).SerializeToString())
    fields = {field.name: field.fieldID for field in collection.schema.fields}
    assert fields == {"id": 100, "v": 101, "$meta": 102, "late": 105}
    assert (collection.schema.struct_array_fields[0].fieldID, collection.schema.struct_array_fields[0].fields[0].fieldID) == (103, 104)


def test_a_row_of_every_kind_comes_back() -> None:
    model = made("2.6.4")
    schema = shapes.schema("source", dynamic=True)
    schema.fields.append(shapes.field("text", shapes.VARCHAR, max_length="9", nullable=True))
    schema.fields.append(shapes.field("sparse", shapes.SPARSE))
    schema.struct_array_fields.add(name="chunks").fields.append(shapes.field("emb", shapes.ARRAY_OF_VECTOR, dim="2"))
    source = model.create_collection(SOURCE, schema)
    rows = [
        shapes.row(1, text=None, sparse=b"\0\1", chunks=[{"emb": [1.0, 2.0]}, {"emb": [3.0, 4.0]}], more={"deep": [None, "ü"]}),
        shapes.row(2, text="x", sparse=b"", chunks=[]),
    ]
    model.insert(SOURCE, rows)
    model.flush(SOURCE)
    schema.name = "target"
    model.create_collection(TARGET, schema)
    assert done(model, [[dirs(source)[0]]]).state == "Completed"
    assert model.rows(TARGET)["_default"] == {1: rows[0], 2: rows[1]}


def test_sealed_rows_are_not_written_before_the_flush_is_over() -> None:
    clock = Clock()
    model = made("2.5.10", monotonic=clock)
    model.create_collection(SOURCE, shapes.schema("source"))
    model.insert(SOURCE, [shapes.row(1)])
    assert model.listed(SOURCE) == []
    pending = model.begin_flush(SOURCE)
    assert [segment.insert_logs for segment in model.listed(SOURCE)] == [{}]
    assert not model.flushed(SOURCE, [], pending.flush_ts)
    clock.now += model.flush_seconds
    assert model.flushed(SOURCE, [segment.id for segment in pending.segments], pending.flush_ts)
    assert all(model.listed(SOURCE)[0].insert_logs.values())


def test_a_dropped_segment_reports_the_delta_logs_of_its_child() -> None:
    model, collection = filled("2.5.10", shards=1)
    (parent,) = model.listed(SOURCE)
    (child,) = model.compact(SOURCE)
    model.delete(SOURCE, [1])
    model.flush(SOURCE)
    model.compact_l0(SOURCE)
    assert model.listed(SOURCE) == [child]
    assert model.described_delta_logs(collection, parent) == child.delta_logs != []
    assert model.bucket.list(f"files/insert_log/{collection.id}/{collection.partitions[0].id}/{parent.id}/")
    assert not model.bucket.list(f"files/delta_log/{collection.id}/{collection.partitions[0].id}/{parent.id}/")
    model.collect_garbage(SOURCE)
    assert not model.bucket.list(f"files/insert_log/{collection.id}/{collection.partitions[0].id}/{parent.id}/")


# ---- imports -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", PROFILES)
@pytest.mark.parametrize("shards", [1, 3])
def test_what_was_exported_is_imported_into_any_number_of_shards(version: str, shards: int) -> None:
    model, source = filled(version)
    model.delete(SOURCE, [1])
    model.upsert(SOURCE, [shapes.row(2)])
    model.flush(SOURCE)
    model.create_collection(TARGET, shapes.schema("target"), shards=shards)
    model.compact_l0(SOURCE)
    assert done(model, [dirs(source)]) == Progress("Completed", 100, "", 9)
    assert model.rows(TARGET) == model.rows(SOURCE)
    assert set(model.copies(TARGET).values()) == {1}
    assert {segment.vchannel for segment in model.listed(TARGET)} <= set(model.collection(TARGET).vchannels)


@pytest.mark.parametrize("version", BEFORE_3)
def test_an_l0_import_deletes_what_is_older_and_nothing_else(version: str) -> None:
    model, source = filled(version)
    model.delete(SOURCE, [1])
    model.upsert(SOURCE, [shapes.row(2)])
    model.flush(SOURCE)
    model.create_collection(TARGET, shapes.schema("target"), shards=1)
    assert done(model, [dirs(source)]).state == "Completed"
    assert model.copies(TARGET) == Counter({number: 2 if number == 2 else 1 for number in range(10)})
    for l0 in l0_of(model):
        job = model.import_job(TARGET, [[f"files/delta_log/{source.id}/{l0.partition_id}/{l0.id}/"]], {"l0_import": "true"})
        model.finish_jobs()
        assert model.progress(model.job(job.id)).state == "Completed"
    assert model.rows(TARGET) == model.rows(SOURCE)
    assert set(model.copies(TARGET).values()) == {1}


def test_the_deletes_of_foreign_keys_do_no_harm_when_they_lie_beside_every_segment() -> None:
    """The way of 3.0, where there is no L0 import: each L0 log is copied beside each segment."""
    model, source = filled("3.0.0")
    model.delete(SOURCE, [1])
    model.upsert(SOURCE, [shapes.row(2)])
    model.flush(SOURCE)
    insert, delta = dirs(source)
    for l0 in l0_of(model):
        for key in model.bucket.list(f"files/delta_log/{source.id}/{l0.partition_id}/{l0.id}/"):
            for segment in children(model.bucket, insert):
                model.bucket.put(f"staged/{segment.split('/')[-2]}/{key.split('/')[-1]}", model.bucket.get(key))
    model.create_collection(TARGET, shapes.schema("target"))
    assert done(model, [[insert, "staged/"]]).state == "Completed"
    assert model.rows(TARGET) == model.rows(SOURCE)
    assert delta != "staged/"


def test_rows_keep_their_own_time_before_3_0_and_have_that_of_the_commit_from_then_on() -> None:
    for version in PROFILES:
        model, source = filled(version, shards=1)
        model.create_collection(TARGET, shapes.schema("target"))
        old = {row.pk: row.ts for row in model.listed(SOURCE)[0].rows}
        done(model, [dirs(source)])
        new = {row.pk: segment.ts(row) for segment in model.listed(TARGET) for row in segment.rows}
        assert new.keys() == old.keys()
        assert all(new[pk] > old[pk] for pk in old) if model.profile.commit_ts else new == old


def test_old_rows_expire_at_once_when_they_keep_their_time() -> None:
    found = {}
    for version in ("2.6.20", "3.0.0"):
        clock = Clock()
        model = made(version, clock=clock)
        source = model.create_collection(SOURCE, shapes.schema("source"))
        model.insert(SOURCE, [shapes.row(1)])
        model.flush(SOURCE)
        clock.now += 7200
        model.create_collection(TARGET, shapes.schema("target"), properties={"collection.ttl.seconds": "3600"})
        assert done(model, [dirs(source)]).imported == 1
        found[version] = model.row_count(TARGET)
    assert found == {"2.6.20": 0, "3.0.0": 1}


def test_a_prefix_without_its_slash_reads_its_siblings_too() -> None:
    model, source = filled("2.5.10", shards=1)
    (segment,) = model.listed(SOURCE)
    for key in model.bucket.list("files/insert_log/"):
        model.bucket.put(key.replace(f"/{segment.id}/", f"/{segment.id}7/"), model.bucket.get(key))
        model.bucket.put("staged/1/" + key.split(f"/{source.partitions[0].id}/")[1], model.bucket.get(key))
        model.bucket.put("staged/12/" + key.split(f"/{source.partitions[0].id}/")[1], model.bucket.get(key))
    model.create_collection(TARGET, shapes.schema("target"))
    assert done(model, [["staged/1/"]]).imported == 10
    assert done(model, [["staged/1"]]).imported == 20


def test_importing_twice_doubles_every_row() -> None:
    model, source = filled("2.6.4")
    model.create_collection(TARGET, shapes.schema("target"))
    for _ in range(2):
        done(model, [dirs(source)])
    assert set(model.copies(TARGET).values()) == {2}


def test_rows_end_where_the_job_says_so_and_the_unit_is_the_versions() -> None:
    clock = Clock()
    outcomes = {}
    for version in ("2.4.5", "2.4.24", "2.5.4", "2.5.10", "2.6.4", "3.0.0"):
        model = made(version, clock=clock)
        source = model.create_collection(SOURCE, shapes.schema("source"))
        model.insert(SOURCE, [shapes.row(1)])
        clock.now += 10
        cut = clock.now
        clock.now += 10
        model.insert(SOURCE, [shapes.row(2)])
        model.flush(SOURCE)
        model.create_collection(TARGET, shapes.schema("target"))
        milliseconds, hybrid = str(int(cut * 1000)), str(int(cut * 1000) << 18)
        progresses = [done(model, [dirs(source)], end_ts=end_ts) for end_ts in (milliseconds, hybrid)]
        outcomes[version] = [(progress.reason, progress.imported) for progress in progresses]
    refused = f"end_ts is not a valid hybrid timestamp, value={int((clock.now - 10) * 1000)}: importing data failed"
    assert [outcomes[version][0] for version in ("2.4.5", "2.5.4")] == [("", 1)] * 2
    assert [outcomes[version][1] for version in ("2.4.24", "2.5.10", "2.6.4", "3.0.0")] == [("", 1)] * 4
    assert outcomes["3.0.0"][0] == (refused, 0)
