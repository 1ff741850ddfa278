"""What an earlier attempt copied is used again only where it is provably right, and a finished backup is never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core import layout, meta
from airflow_provider_milvus_backup.core.copier import Copy
from airflow_provider_milvus_backup.core.errors import BackupExists
from airflow_provider_milvus_backup.core.names import CollectionName
from airflow_provider_milvus_backup.core.plan import FLUSH, BackupPlan
from airflow_provider_milvus_backup.core.reuse import OTHER_SIZE, UNPROVEN, apart, outside, reusable, sort_out
from airflow_provider_milvus_backup.core.store import StoredObject

COPY = Copy("files/x", "backup/x", 10, "etag")


@pytest.mark.parametrize(
    ("there", "recorded", "same"),
    [
        (StoredObject("backup/x", 10, "etag"), {}, True),
        (StoredObject("backup/x", 10, "of the parts-2"), {"backup/x": "etag"}, True),
        (StoredObject("backup/x", 10, ""), {"backup/x": "etag"}, True),
        (StoredObject("backup/x", 11, "etag"), {"backup/x": "etag"}, False),
        (StoredObject("backup/x", 10, "other"), {}, False),
        (StoredObject("backup/x", 10, "other"), {"backup/x": "older"}, False),
        (StoredObject("backup/x", 10, "other"), {"backup/y": "etag"}, False),
    ],
)
def test_an_object_is_reused_by_size_and_by_the_etag_of_its_source(there: StoredObject, recorded: dict[str, str], same: bool) -> None:
    assert reusable(COPY, there, recorded) is same


def test_without_an_etag_of_the_source_nothing_is_proven() -> None:
    copy = COPY._replace(etag="")
    assert not reusable(copy, StoredObject("backup/x", 10, ""), {})
    assert not reusable(copy, StoredObject("backup/x", 10, ""), {"backup/x": ""})


def test_what_goes_is_said_with_the_reason() -> None:
    copies = [Copy(f"s{i}", f"d{i}", 10, f"e{i}") for i in range(5)]
    there = {
        "d0": StoredObject("d0", 10, "e0"),
        "d1": StoredObject("d1", 9, "e1"),
        "d2": StoredObject("d2", 10, "else"),
        "d3": StoredObject("d3", 10, "parts-2"),
        "gone": StoredObject("gone", 1, "x"),
    }
    kept = sort_out(copies, there, {"d3": "e3"})
    assert kept.objects == 2
    assert kept.again == {OTHER_SIZE: 1, UNPROVEN: 1}
    assert sorted(kept.remove) == ["d1", "d2", "gone"]


# ---- beside a finished backup --------------------------------------------------------------------------------------------------

CID, PID = 7, 8


def plan_of(segments: Mapping[int, tuple[Mapping[int, int], Mapping[int, int]]], group: int | None = 0) -> BackupPlan:
    """Return a plan; ``segments`` maps a segment's id to {insert log: size} and {delta log: size}."""
    made = [
        meta.Segment(
            segment_id,
            PID,
            1,
            [meta.FieldLogs(100, [meta.Log(log, size, f"e{log}.{size}") for log, size in sorted(inserts.items())])],
            [meta.FieldLogs(0, [meta.Log(log, size, f"e{log}.{size}") for log, size in sorted(deltas.items())])] if deltas else [],
            segment_id if group == 0 else group,
        )
        for segment_id, (inserts, deltas) in segments.items()
    ]
    collection = meta.Collection(CID, CollectionName("default", "c"), {}, 1, 0, [meta.Partition(PID, "_default", made)])
    return BackupPlan(meta.Backup("id", "name", "v2.3.5", [collection]), FLUSH, "files", "backup", "old")


def copied(plan: BackupPlan) -> dict[str, StoredObject]:
    return {copy.destination: StoredObject(copy.destination, copy.size, copy.etag) for copy in plan.copies()}


logs = st.dictionaries(st.integers(1, 6), st.integers(1, 3), min_size=1, max_size=3)
segments = st.dictionaries(st.sampled_from([1, 2, 11, 470646049525603136]), st.tuples(logs, st.one_of(st.just({}), logs)), max_size=4)


@given(segments, segments, st.randoms(use_true_random=False), st.booleans())
def test_a_new_plan_touches_no_directory_that_it_would_change(old: dict, new: dict, random: object, keep: bool) -> None:  # type: ignore[type-arg]
    finished = copied(plan_of(old))
    debris = {key: item for key, item in copied(apart(plan_of(new), finished, {}, set(finished))).items() if random.random() < 0.5}  # type: ignore[attr-defined]
    there = {**finished, **(debris if keep else {})}
    plan = apart(plan_of(new), there, {}, set(finished))
    wanted = {copy.destination: copy for copy in plan.copies()}
    assert len(wanted) == sum(1 for _ in plan_of(new).copies())  # no two segments share a key
    for key, copy in wanted.items():
        assert key not in there or (there[key].size, there[key].etag) == (copy.size, copy.etag)  # nothing is overwritten with other bytes
    directories = {key.rpartition("/")[0] for key in wanted}
    assert outside([key for key in there if key not in wanted], plan) == [], directories
    changed = {layout.parse_group("backup/name/binlogs/", key) for key in wanted if key not in there}
    assert not changed & {layout.parse_group("backup/name/binlogs/", key) for key in finished}
    assert [s.segment_id for s in plan.backup.collections[0].segments()] == list(new)


@given(segments)
def test_what_has_not_changed_stays_where_it_is(old: dict) -> None:  # type: ignore[type-arg]
    finished = copied(plan_of(old))
    assert apart(plan_of(old), finished, {}, set(finished)) == plan_of(old)


def test_an_interrupted_replacement_goes_on_in_its_own_directory() -> None:
    old, new = plan_of({1: ({1: 1}, {})}), plan_of({1: ({1: 1}, {2: 1, 3: 1})})
    finished = copied(old)
    first = apart(new, finished, {}, set(finished))
    half = dict(list(copied(first).items())[:1])
    assert apart(new, {**finished, **half}, {}, set(finished)) == first


@pytest.mark.parametrize(("partition", "group"), [(-1, None), (7, 5)])
def test_deletes_of_l0_segments_that_changed_cannot_be_replaced_safely(partition: int, group: int | None) -> None:
    """The official tool finds them under the segment's own id alone."""

    def with_l0(log: int) -> BackupPlan:
        plan = plan_of({})
        segment = meta.Segment(5, partition, 0, [], [meta.FieldLogs(0, [meta.Log(log, 1, f"e{log}")])], group, is_l0=True)
        (collection,) = plan.backup.collections
        return replace(plan, backup=replace(plan.backup, collections=[replace(collection, l0_segments=[segment])]))

    finished = copied(with_l0(1))
    assert apart(with_l0(1), finished, {}, set(finished)) == with_l0(1)
    longer = with_l0(1)
    longer.backup.collections[0].l0_segments[0].deltas[0].logs.append(meta.Log(2, 1, "e2"))
    with pytest.raises(BackupExists, match="cannot be replaced safely"):
        apart(longer, finished, {}, set(finished))
