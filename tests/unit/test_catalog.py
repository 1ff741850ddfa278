"""The catalog: what is listed and in which order, what it costs, and that nothing which is read is trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_milvus_backup.core.attempt import Attempt
from airflow_provider_milvus_backup.core.catalog import newest_first
from airflow_provider_milvus_backup.core.catalog_entry import (
    ATTEMPT,
    COMPLETE,
    DAMAGED,
    DRILLED,
    FACTS,
    HOLD,
    LEASE,
    MARK,
    MAX_BYTES,
    OFFICIAL,
    OURS,
    UNFINISHED,
    VERIFIED,
    CatalogEntry,
    File,
    entry_of,
    read_drilled,
    read_hold,
    read_lease,
    read_verified,
    unfinished_of,
)
from airflow_provider_milvus_backup.core.lease import Holding, Owner
from tests.golden_backups.expected import GOLDEN
from tests.official_backups import GENERATIONS, rewrite, synthetic
from tests.unit.test_fuzz_readers import FUZZ, documented, hostile, junk, mutate, written

#: When the benchmark's store says that everything was written, and what its backups record.
THEN, CREATED = datetime(2026, 1, 1, tzinfo=timezone.utc), "2025-12-31T23:00:00+00:00"
MINUTE = timedelta(minutes=1)
LEVELS = [f"meta/{level}_meta.json" for level in ("full", "collection", "partition", "segment", "backup")]


def files(*keys: str, size: int = 10, when: datetime = THEN) -> dict[str, File]:
    return dict.fromkeys(keys, File(size, when))


def mark(**changes: Any) -> bytes:
    return json.dumps({"id": "an-id", "state_code": 0, "name": "nightly", "size": 12, "milvus_version": "2.5.20", **changes}).encode()


def facts(**changes: Any) -> bytes:
    content = {"version": 1, "backup_id": "an-id", "created": CREATED, "collections": ["default.docs"], "strategy": "flush"}
    return json.dumps({**content, "rows": 5, "objects": 7, **changes}).encode()


def verified(**changes: Any) -> bytes:
    content = {"version": 1, "backup_id": "an-id", "level": "objects", "time": CREATED, "ok": True, "damaged_segments": []}
    return json.dumps({**content, **changes}).encode()


def drilled(**changes: Any) -> bytes:
    content = {"version": 1, "backup_id": "an-id", "time": CREATED, "ok": True, "seconds": 7.5, "whole": True}
    return json.dumps({**content, "collections": [{"name": "default.docs", "rows": 5}], **changes}).encode()


def hold(**changes: Any) -> bytes:
    return json.dumps({"version": 1, "reason": "audit", "owner": "ann", "until": None, "since": CREATED, **changes}).encode()


def listed(contents: Mapping[str, bytes], *more: str) -> CatalogEntry:
    return entry_of("nightly", files(*LEVELS, *more, *contents), contents)


# ---- complete or damaged -------------------------------------------------------------------------------------------------------


def test_a_backup_of_ours_shows_what_both_files_say() -> None:
    assert listed({MARK: mark(), FACTS: facts(), VERIFIED: verified(), DRILLED: drilled()}).to_dict() == {
        "name": "nightly",
        "state": "complete",
        "reason": "",
        "backup_id": "an-id",
        "tool": OURS,
        "format": "binlog",
        "server_version": "2.5.20",
        "strategy": "flush",
        "created": CREATED,
        "committed": "2026-01-01T00:00:00+00:00",
        "written": None,
        "size": 12,
        "objects": 7,
        "rows": 5,
        "collection_count": 1,
        "collection_names": ["default.docs"],
        "hold": None,
        "locked": None,
        "verified": {"level": "objects", "time": CREATED, "ok": True, "damaged_segments": [], "sample": None},
        "drilled": {"time": CREATED, "ok": True, "seconds": 7.5, "collections": None},
        "owner": "",
        "leases": [],
    }


def test_a_backup_of_the_official_tool_is_complete_and_shows_what_its_mark_says() -> None:
    found = listed({MARK: mark()})
    assert (found.state, found.tool, found.size, found.server_version) == (COMPLETE, OFFICIAL, 12, "2.5.20")
    assert (found.created, found.time, found.objects, found.collections) == (None, THEN, None, None)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_backups_of_every_release_are_complete(generation: str) -> None:
    written_files, _ = rewrite(synthetic().full_meta, generation, "backup", "nightly")
    contents = {key.removeprefix("backup/nightly/"): content for key, content in written_files.items()}
    found = entry_of("nightly", {key: File(len(content), THEN) for key, content in contents.items()}, contents)
    assert (found.state, found.reason, found.tool, found.backup_id) == (COMPLETE, "", OFFICIAL, synthetic().full_meta["id"])


@pytest.mark.parametrize("tree", sorted(path.parent.parent.name for path in GOLDEN.glob(f"*/{MARK}")))
def test_golden_backups_are_complete_in_their_format(tree: str) -> None:
    contents = {f"meta/{path.name}": path.read_bytes() for path in (GOLDEN / tree / "meta").iterdir()}
    name = json.loads(contents[MARK])["name"]
    found = entry_of(name, {key: File(len(content), THEN) for key, content in contents.items()}, contents)
    assert (found.state, found.reason) == (COMPLETE, "")
    assert found.format == ("snapshot" if tree == "head-snapshot" else "binlog")


WRONG_MARKS = {
    "no JSON": (b"", "not readable JSON"),
    "half of it": (mark()[:20], "not readable JSON"),
    "a list": (b"[]", "not an object"),
    "of another name": (mark(name="weekly"), "is of backup 'weekly': the directory was copied or renamed"),
    "without a name": (mark(name=None), "is of backup ''"),
    "without an id": (mark(id=""), "id is '', not an id"),
    "an id that is a number": (mark(id=7), "id is 7, not a string"),
    "a size below zero": (mark(size=-1), "size is -1"),
    "a size in words": (mark(size="12"), "size is '12', not an integer"),
    "a format that is a number": (mark(format=1), "format is 1"),
}


@pytest.mark.parametrize("case", WRONG_MARKS)
def test_a_commit_mark_that_is_nonsense_is_damage_with_its_reason(case: str) -> None:
    content, reason = WRONG_MARKS[case]
    found = listed({MARK: content, FACTS: facts(), VERIFIED: verified()})
    assert (found.state, found.verified, found.committed) == (DAMAGED, None, THEN)
    assert reason in found.reason


def test_a_commit_mark_that_is_far_too_large_is_damage() -> None:
    found = entry_of("nightly", {**files(*LEVELS), MARK: File(MAX_BYTES + 1, THEN)}, {MARK: b""})
    assert (found.state, found.reason) == (DAMAGED, "backup_meta.json has 16,777,217 bytes; it is a small file in every backup")


@pytest.mark.parametrize(
    ("there", "format_", "state"),
    [
        ([MARK], "", DAMAGED),
        ([MARK, "meta/full_meta.json"], "", COMPLETE),
        ([MARK, "meta/collection_meta.json", "meta/partition_meta.json"], "", DAMAGED),
        ([MARK, "meta/collection_meta.json", "meta/partition_meta.json", "meta/segment_meta.json"], "", COMPLETE),
        ([MARK, "meta/collection_meta.json"], "snapshot", COMPLETE),
        ([MARK], "snapshot", DAMAGED),
    ],
)
def test_a_commit_mark_alone_is_damage_for_the_official_tool_writes_it_first(there: list[str], format_: str, state: str) -> None:
    found = entry_of("nightly", files(*there), {MARK: mark(format=format_)})
    assert found.state == state
    assert ("the tool that wrote it died" in found.reason) == (state == DAMAGED)
    assert entry_of("nightly", {**files(*there, size=0), MARK: File(10, THEN)}, {MARK: mark(format=format_)}).state == DAMAGED


def test_a_format_that_this_version_does_not_know_is_no_damage() -> None:
    found = listed({MARK: mark(format="parquet")})
    assert (found.state, found.format) == (COMPLETE, "parquet")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        facts(backup_id="another"),  # of an attempt that was to replace this backup and died
        facts(version=2),
        facts(objects="7"),
        facts(collections=[1]),
    ],
)
def test_facts_that_are_not_of_this_backup_are_not_shown(content: bytes) -> None:
    found = listed({MARK: mark(), FACTS: content})
    assert (found.state, found.tool, found.objects, found.rows, found.collections, found.created) == (
        COMPLETE,
        OURS,
        None,
        None,
        None,
        None,
    )


def test_the_rows_of_a_snapshot_are_not_known() -> None:
    found = listed({MARK: mark(format="snapshot"), FACTS: facts(rows=0)})
    assert (found.rows, found.objects) == (None, 7)


# ---- times ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (CREATED, CREATED),
        ("2026-01-01T01:00:00+02:00", CREATED),
        ("2025-12-31T23:00:00Z", CREATED),
        ("2026-01-01T00:00:30+00:00", "2026-01-01T00:00:00+00:00"),  # machines of one store differ a little
        ("2026-01-01T00:02:00+00:00", None),
        ("9999-12-31T23:59:59-23:59", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("2025-12-31T23:00:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_recorded_time_is_believed_when_it_is_not_after_the_commit(said: str, taken: str | None) -> None:
    assert listed({MARK: mark(), FACTS: facts(created=said)}).to_dict()["created"] == taken


@pytest.mark.parametrize(("said", "taken"), [(1_700_000_000_000, "2023-11-14T22:13:20+00:00"), (455_000_000_000_000_000, None), (0, None)])
def test_the_time_that_old_official_releases_record_is_taken_for_milliseconds(said: int, taken: str | None) -> None:
    assert listed({MARK: mark(backup_timestamp=said)}).to_dict()["created"] == taken


def test_the_order_is_that_of_recorded_times_whatever_the_names_are() -> None:
    def at(name: str, minutes: int | None, committed: int | None = None) -> CatalogEntry:
        moments = [None if m is None else THEN + m * MINUTE for m in (minutes, committed)]
        return CatalogEntry(name, COMPLETE, created=moments[0], committed=moments[1])

    entries = [at("nightly_9", 1, 50), at("b", 2), at("nightly_10", 3), at("a", 2), at("zzz", None), at("copied_later", None, 4)]
    assert [entry.name for entry in newest_first(entries)] == ["copied_later", "nightly_10", "a", "b", "nightly_9", "zzz"]
    assert newest_first(entries[::-1]) == newest_first(entries)


# ---- hold, verified, lease -----------------------------------------------------------------------------------------------------


def test_a_hold_holds_until_its_time_and_without_one_for_ever() -> None:
    until = (THEN + MINUTE).isoformat()
    assert read_hold(hold(), THEN) == {"reason": "audit", "owner": "ann", "until": None, "since": CREATED}
    assert (read_hold(hold(until=until), THEN) or {})["until"] == until
    assert read_hold(hold(until=until), THEN + MINUTE) is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[", hold(version=2), hold(until="next year"), hold(until="2020-01-01T00:00:00"), hold(reason=1)]
)
def test_a_hold_that_cannot_be_read_holds(content: bytes) -> None:
    found = read_hold(content, THEN + timedelta(days=10_000))
    assert found is not None
    assert found["until"] is None
    assert found["reason"].startswith("unknown: hold.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        verified(version=2),
        verified(backup_id="of-the-replaced"),
        verified(backup_id=None),
        verified(time="now"),
        verified(level=""),
        verified(ok=1),
    ],
)
def test_a_verification_that_is_not_of_this_backup_or_unreadable_is_none(content: bytes) -> None:
    assert read_verified(content, "an-id") is None


def test_a_verification_says_what_was_damaged() -> None:
    found = read_verified(verified(ok=False, damaged_segments=[7]), "an-id")
    assert found == {"level": "objects", "time": CREATED, "ok": False, "damaged_segments": [7], "sample": None}
    assert read_verified(verified(ok=None, sample="3/30"), "an-id") == {**found, "damaged_segments": [], "sample": "3/30"}


@pytest.mark.parametrize(
    "content", [b"", b"[]", drilled(version=2), drilled(backup_id="other"), drilled(time="now"), drilled(ok=1), drilled(seconds="")]
)
def test_a_drill_that_is_not_of_this_backup_or_unreadable_is_none(content: bytes) -> None:
    assert read_drilled(content, "an-id") is None
    told = read_drilled(drilled(ok=False, whole=False), "an-id")
    assert told == {"time": CREATED, "ok": False, "seconds": 7.5, "collections": ["default.docs"]}


LEASED = Holding(Owner("dag.backup", 0, 2), "write backup 'nightly'", seconds=60, host="worker", pid=7)


def test_a_lease_counts_as_long_as_it_says_and_an_unreadable_one_as_long_as_any() -> None:
    assert read_lease(LEASED.to_json(), 59) == "dag.backup, try 2 (process 7 on worker), to write backup 'nightly'"
    assert read_lease(LEASED.to_json(), 60) == ""
    assert read_lease(LEASED.to_json(), -3) != ""
    assert read_lease(b"{", 59) == "somebody whose lease cannot be read"
    assert read_lease(b'{"version":9,"seconds":3600}', 3599) == "somebody whose lease cannot be read", "a later version handed it over"
    assert read_lease(b"{", 60) == ""


# ---- unfinished ----------------------------------------------------------------------------------------------------------------


def test_an_unfinished_backup_of_ours_says_who_began_it_and_when_he_was_last_seen() -> None:
    there = {**files(ATTEMPT), **files(LEASE, when=THEN + MINUTE)}
    attempt = Attempt("an-id", Owner("dag.backup", 0, 1))
    found = unfinished_of("nightly", there, {ATTEMPT: attempt.to_json(), LEASE: LEASED.to_json()})
    assert (found.state, found.tool, found.owner, found.backup_id) == (UNFINISHED, OURS, "dag.backup, try 1", "an-id")
    assert (found.written, found.time, found.size) == (THEN + MINUTE, THEN + MINUTE, None)
    only_planning = unfinished_of("nightly", files(LEASE), {LEASE: LEASED.to_json()})
    assert (only_planning.owner, only_planning.backup_id) == ("dag.backup, try 2", "")


def test_an_unfinished_backup_of_the_official_tool_shows_its_data() -> None:
    there = files("binlogs/insert_log/1/2/3/3/0/4", "bundle/snapshots/1/x", "meta/full_meta.json")
    there |= files("binlogs/delta_log/1/2/3/3/5", size=7, when=THEN + MINUTE)
    for also in ({}, files(LEASE, HOLD, when=THEN + 2 * MINUTE)):  # what we may have put beside it
        found = unfinished_of("nightly", {**there, **also}, {})
        assert (found.tool, found.owner, found.size, found.objects, found.written) == (OFFICIAL, "", 27, 3, THEN + MINUTE)


def test_an_unreadable_attempt_is_named_and_the_lease_is_read_all_the_same() -> None:
    found = unfinished_of("nightly", files(ATTEMPT, LEASE), {ATTEMPT: b"{}", LEASE: LEASED.to_json()})
    assert "attempt.json.version" in found.reason
    assert found.owner == "dag.backup, try 2"


# ---- hostile content -----------------------------------------------------------------------------------------------------------

CONTENTS = {MARK: mark(format="snapshot", backup_timestamp=1), FACTS: facts(), VERIFIED: verified(damaged_segments=[1]), HOLD: hold()}
CONTENTS |= {DRILLED: drilled(), ATTEMPT: Attempt("an-id", Owner("dag.backup")).to_json(), LEASE: LEASED.to_json()}


def changed(content: bytes, data: st.DataObject) -> bytes:
    kind = data.draw(st.sampled_from(["whole", "mutated", "replaced", "junk"]))
    if kind == "junk":
        return data.draw(junk)
    return content if kind == "whole" else written(data.draw(hostile) if kind == "replaced" else mutate(json.loads(content), data), data)


@settings(FUZZ, max_examples=400)
@given(st.data())
def test_whatever_the_files_hold_there_is_an_entry_and_it_can_be_sent(data: st.DataObject) -> None:
    contents = {key: changed(content, data) for key, content in CONTENTS.items()}
    with documented():
        found = listed(contents)
        unfinished = unfinished_of("nightly", files(ATTEMPT, LEASE), contents)
        held, leased = read_hold(contents[HOLD], THEN), read_lease(contents[LEASE], 0.0)
    for entry in (found, unfinished):
        assert json.loads(json.dumps(entry.to_dict()).encode()) == entry.to_dict()
        assert entry.time is not None
        assert entry.time <= THEN
    assert found.state in (COMPLETE, DAMAGED)
    assert (found.state == DAMAGED) == bool(found.reason)
    if found.state == COMPLETE:
        assert json.loads(contents[MARK])["name"] == "nightly"
        assert found.backup_id
    json.dumps([held, leased]).encode()
    if held is None:
        assert json.loads(contents[HOLD])["until"]
